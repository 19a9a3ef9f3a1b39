# SPDX-License-Identifier: MIT
"""Frames and forces: data sets of openmmflow.dataset and other trajectories, checked, and split into blocks of time."""
from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import openmm
import torch
from openmm import app, unit
from openmmflow import builder, molecules

MOLAR_GAS_CONSTANT = 0.00831446261815324  # kJ/mol/K

ROUNDED = {".xtc": 1e-3, ".gro": 1e-3, ".pdb": 1e-4, ".cif": 1e-4, ".mdcrd": 1e-4, ".crd": 1e-4, ".lh5": 1e-3, ".xyz": 1e-4}
"""What trajectory formats round to, nm, as their usual writers write them. A stiff bond of 0.003 nm width is wide next to 1e-4 nm, but not next to
1e-3 nm, and forces that are computed for rounded positions are those of other bond lengths."""

FORCE_UNITS = {"kJ/mol/nm": 1.0, "kcal/mol/A": 41.84, "kcal/mol/angstrom": 41.84,
               "eV/A": 964.8533212331002, "eV/angstrom": 964.8533212331002}
"""Units of forces in NPZ files, in kJ/mol/nm."""

REPAIRABLE = 0.01
"""Part of the frames that may be left out because something is wrong with them; beyond it the data is refused."""

BOND_LENGTHS = (0.05, 0.3)
"""nm: no bond between two atoms is shorter or longer on the average."""


class DataWarning(UserWarning):
    """Data that was repaired, or that is worse than it could be."""


@dataclass
class Frames:
    """Conformations and the forces on them.

    positions : (frames, particles, 3), nm, float64.
    forces : (frames, particles, 3), in k_BT/nm at the temperature of the data, float64.
    displacements : (frames, particles, 3), nm: how far thermal velocities carry each particle in a time step; or None.
    displaced_forces : (frames, 2, particles, 3), k_BT/nm, at positions + displacements and positions - displacements; or None.
    """

    positions: torch.Tensor
    forces: torch.Tensor
    displacements: torch.Tensor | None = None
    displaced_forces: torch.Tensor | None = None

    def __len__(self):
        return len(self.positions)

    def __getitem__(self, index) -> "Frames":
        return self.map(lambda tensor: tensor[index])

    def map(self, function) -> "Frames":
        """The frames with a function applied to every tensor."""
        return Frames(*(None if tensor is None else function(tensor) for tensor in self._tensors()))

    @staticmethod
    def concatenated(parts: list["Frames"]) -> "Frames":
        """All frames of the parts; displacements only if every part has them."""
        return Frames(*(None if any(t is None for t in tensors) else torch.cat(tensors)
                        for tensors in zip(*(part._tensors() for part in parts))))

    def _tensors(self):
        return self.positions, self.forces, self.displacements, self.displaced_forces


def read_data(paths, topology: app.Topology, *, system: openmm.System | None = None, forces=(), temperature: float | None = None,
              molecule_atom: int | None = None, z_matrix=None) -> tuple[list[Frames], dict, app.Topology]:
    """Data sets and trajectories of the molecules of a topology.

    Every copy of the molecule gives frames of its own; those of one file stand in order of time, copies beside each other.

    Parameters
    ----------
    paths : data sets of openmmflow.dataset (HDF5), or trajectories: anything that MDTraj reads.
    topology : of all atoms in the files.
    system : computes the forces on frames of trajectories that have none.
    forces : NPZ files, one for each trajectory, with ``forces`` (frames, particles, 3) and ``units``, one of FORCE_UNITS.
    temperature : of trajectories, K; data sets know theirs.
    molecule_atom : see openmmflow.molecules.copies.
    z_matrix : that frames must have coordinates in; None: the one of openmmflow.builder.

    Returns
    -------
    frames of each file, the common description, and the topology of one molecule.

    Raises
    ------
    ValueError : what the data is not good for; the message says what to do. Repairs are announced by a DataWarning.
    """
    paths = [Path(path) for path in paths]
    if not paths:
        raise ValueError("no data set was given")
    trajectories = [path for path in paths if not is_dataset(path)]
    if forces and len(forces) != len(trajectories):
        raise ValueError(f"{len(forces)} files of forces were given for {len(trajectories)} trajectories; give one for each, in their order")
    forces_of = dict(zip(trajectories, forces))
    groups = molecules.copies(topology, molecule_atom)
    molecule = molecules.subset(topology, groups[0])
    bonds = builder.bond_list(molecule, len(groups[0]))
    if z_matrix is None:
        z_matrix = builder.make_z_matrix(bonds, len(groups[0]))
    sets, descriptions = [], []
    for path in paths:
        if path in trajectories:
            arrays, box, description = _read_trajectory(path, topology, system, forces_of.get(path), temperature)
        else:
            (arrays, description), box = _read_dataset(path), None
        if arrays["positions"].shape[1] != topology.getNumAtoms():
            raise ValueError(f"{path} has frames of {arrays['positions'].shape[1]} atoms, the topology has {topology.getNumAtoms()}")
        arrays = _one_molecule(arrays, groups, bonds, box)
        arrays = _checked(path, arrays, molecule, bonds, z_matrix)
        scale = 1 / (MOLAR_GAS_CONSTANT * description["temperature"])
        frames = Frames(torch.from_numpy(arrays["positions"]), torch.from_numpy(arrays["forces"] * scale))
        if "displaced_forces" in arrays:
            frames.displacements = torch.from_numpy(arrays["displacements"])
            frames.displaced_forces = torch.from_numpy(arrays["displaced_forces"] * scale)
        sets.append(frames)
        descriptions.append(description)
    temperatures = {d["temperature"] for d in descriptions}
    if len(temperatures) > 1:
        raise ValueError(f"the data sets are of different temperatures, {sorted(temperatures)} K; a flow has one")
    common = {key: value for key, value in descriptions[0].items() if all(d.get(key) == value for d in descriptions)}
    return sets, common, molecule


def is_dataset(path) -> bool:
    """Whether a file is one of openmmflow.dataset: an HDF5 file with its description. MDTraj's HDF5 files are trajectories."""
    if not h5py.is_hdf5(path):
        return False
    with h5py.File(path, "r", locking=False) as file:
        return "coordinates" not in file


def _read_dataset(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    """Files may still be written to: a copy is read."""
    with tempfile.TemporaryDirectory() as folder:
        with h5py.File(shutil.copy(path, folder), "r") as file:
            missing = {"positions", "forces"} - set(file)
            if missing:
                raise ValueError(f"{path} is no data set of openmmflow: it has no {' and no '.join(sorted(missing))}")
            count = min(len(file["positions"]), len(file["forces"]))
            arrays = {name: file[name][:count] for name in ("positions", "forces", "displacements", "displaced_forces")
                      if len(file.get(name, ())) >= count}
            if "displaced_forces" not in arrays or "displacements" not in arrays:
                arrays = {name: arrays[name] for name in ("positions", "forces")}
            description = json.loads(file.attrs.get("description", "{}"))
    if "temperature" not in description:
        raise ValueError(f"{path} is no data set of openmmflow: its attribute `description` names no temperature")
    return arrays, description


def _read_trajectory(path: Path, topology, system, forces_path, temperature):
    import mdtraj

    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    if not path.name.endswith(tuple(mdtraj.FormatRegistry.loaders)):
        raise ValueError(f"{path} is neither a data set of openmmflow nor a trajectory: MDTraj reads "
                         f"{', '.join(sorted(mdtraj.FormatRegistry.loaders))}")
    if temperature is None:
        raise ValueError(f"{path} does not say at which temperature it was simulated; give it (temperature, in K)")
    if path.suffix in ROUNDED:
        warnings.warn(f"{path.name}: the format {path.suffix} rounds positions to about {ROUNDED[path.suffix]:g} nm. Stiff bonds become rough, "
                      "and forces belong to other positions; HDF5, NetCDF, DCD and TRR keep single precision", DataWarning, stacklevel=3)
    try:
        if path.suffix in (".h5", ".hdf5", ".pdb", ".gro", ".lh5", ".cif"):
            trajectory = mdtraj.load(str(path))
            _compare_atoms(path, trajectory.topology, topology)
        else:
            trajectory = mdtraj.load(str(path), top=mdtraj.Topology.from_openmm(topology))
    except (OSError, TypeError, RuntimeError, ValueError, ImportError, KeyError) as error:
        raise ValueError(f"{path} cannot be read as a trajectory of the {topology.getNumAtoms()} atoms of the topology: {error}") from error
    positions = trajectory.xyz.astype(float)
    if forces_path is not None:
        forces = read_forces(forces_path)
        if forces.shape != positions.shape:
            raise ValueError(f"{forces_path} has forces of shape {forces.shape}, {path} has positions of shape {positions.shape}")
    elif system is not None:
        forces = _forces(system, positions, trajectory.unitcell_vectors)
    else:
        raise ValueError(f"{path} has no forces (MDTraj reads none from any format): give an NPZ file with them, or a System XML that computes "
                         "them")
    description = {"temperature": float(temperature), "method": f"a trajectory ({path.suffix[1:]})"}
    return {"positions": positions, "forces": forces}, trajectory.unitcell_vectors, description


def read_forces(path) -> np.ndarray:
    """Forces (frames, particles, 3), kJ/mol/nm, of an NPZ file with the arrays ``forces`` and ``units``. Raises ValueError without them."""
    with np.load(path) as file:
        if "forces" not in file:
            raise ValueError(f"{path} has no array `forces`, it has {', '.join(file.files)}")
        if "units" not in file:
            raise ValueError(f"{path} does not say in which units its forces are: store units=\"kJ/mol/nm\" (or one of "
                             f"{', '.join(list(FORCE_UNITS)[1:])}) beside them")
        units = str(file["units"])
        if units not in FORCE_UNITS:
            raise ValueError(f"{path} has forces in {units!r}; known units are {', '.join(FORCE_UNITS)}")
        return file["forces"].astype(float) * FORCE_UNITS[units]


def _forces(system: openmm.System, positions, box) -> np.ndarray:
    """Forces of a System at all positions, kJ/mol/nm."""
    if system.getNumParticles() != positions.shape[1]:
        raise ValueError(f"the System has {system.getNumParticles()} particles, the trajectory has {positions.shape[1]} atoms")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    forces = np.full(positions.shape, np.nan)
    for frame, x in enumerate(positions):
        if np.isfinite(x).all():
            if box is not None:
                context.setPeriodicBoxVectors(*(openmm.Vec3(*map(float, vector)) for vector in box[frame]))
            context.setPositions(x)
            forces[frame] = context.getState(forces=True).getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
    return forces


def _compare_atoms(path, found, topology):
    expected = [atom.element.symbol if atom.element else "?" for atom in topology.atoms()]
    present = [atom.element.symbol if atom.element is not None else "?" for atom in found.atoms]
    if len(present) != len(expected):
        raise ValueError(f"it has {len(present)} atoms")
    for index, (a, b) in enumerate(zip(present, expected)):
        if "?" not in (a, b) and a != b:
            raise ValueError(f"atom {index} is {a} there and {b} in the topology: the atoms are in another order")


def _one_molecule(arrays, groups, bonds, box):
    """Arrays of frames of one molecule, from frames of several copies, each made whole."""
    result = {}
    for name, values in arrays.items():
        parts = [values[..., members, :] for members in groups]
        if name == "positions" and box is not None:
            parts = [molecules.whole(part, bonds, box) for part in parts]
        stacked = np.stack(parts, axis=1)
        result[name] = np.ascontiguousarray(stacked.reshape(-1, *stacked.shape[2:]))
    return result


def _checked(path, arrays, molecule, bonds, z_matrix):
    """Frames that a flow can learn from; a few others are left out."""
    count = len(arrays["positions"])
    finite = np.all([np.isfinite(values).reshape(count, -1).all(axis=1) for values in arrays.values()], axis=0)
    arrays = _without(path, arrays, ~finite, "positions or forces that are not finite",
                      "the simulation has exploded; use the part before that")
    positions = arrays["positions"]
    if all(atom.element is not None for atom in molecule.atoms()) and len(positions):
        names = [f"{atom.name} of {atom.residue.name}" for atom in molecule.atoms()]
        for i, j in bonds:
            length = np.median(np.linalg.norm(positions[:, i] - positions[:, j], axis=-1))
            if not BOND_LENGTHS[0] < length < BOND_LENGTHS[1]:
                raise ValueError(f"{path}: the bond of atoms {i} ({names[i]}) and {j} ({names[j]}) has a median length of {length:.3g} nm. Are the "
                                 "atoms in the order of the topology, positions in nm, and molecules whole?")
    return _without(path, arrays, ~builder.describable(positions, z_matrix), "overlapping or collinear atoms",
                    "their Z-matrix has no coordinates there; give another Z-matrix, without angles that become linear")


def _without(path, arrays, bad, what, advice):
    count = int(bad.sum())
    if not count:
        return arrays
    if count > REPAIRABLE * len(bad):
        raise ValueError(f"{path}: {count} of {len(bad)} frames have {what}: {advice}")
    warnings.warn(f"{Path(path).name}: {count} of {len(bad)} frames have {what} and are left out", DataWarning, stacklevel=4)
    return {name: values[~bad] for name, values in arrays.items()}


def split_by_time(datasets: list[Frames], validation: float, test: float) -> tuple[Frames, Frames, Frames]:
    """Training, validation and test frames: the last part of each data set is its test, the part before its validation."""
    parts = ([], [], [])
    for frames in datasets:
        end = len(frames) - round(test * len(frames))
        middle = end - round(validation * len(frames))
        for part, block in zip(parts, (slice(0, middle), slice(middle, end), slice(end, None))):
            part.append(frames[block])
    return tuple(Frames.concatenated(part) for part in parts)


def cyclic_symmetries(bonds, elements) -> list[torch.Tensor]:
    """Rotations of groups of three equal atoms on one atom, methyl groups above all: particle permutations.

    The density of a force field does not change when the three hydrogens of a methyl group are turned, so each frame stands for
    three of them. (The exchange of two hydrogens is another matter: it inverts the group, and simulations never get there.)
    """
    neighbours = {}
    for i, j in bonds:
        neighbours.setdefault(i, set()).add(j)
        neighbours.setdefault(j, set()).add(i)
    permutations = []
    for atom in sorted(neighbours):
        leaves = {}
        for other in sorted(neighbours[atom]):
            if len(neighbours[other]) == 1:
                leaves.setdefault(elements[other], []).append(other)
        for group in leaves.values():
            if len(group) == 3 and len(neighbours[atom]) == 4:
                permutation = torch.arange(len(elements))
                permutation[group] = torch.tensor(group[1:] + group[:1])
                permutations.append(permutation)
    return permutations


def turn_symmetric_groups(frames: Frames, permutations, generator: torch.Generator) -> Frames:
    """Each frame with each group turned by a random number of places."""
    count, particles = frames.positions.shape[:2]
    index = torch.arange(particles).repeat(count, 1)
    for permutation in permutations:
        turns = torch.randint(3, (count,), generator=generator)
        for turn in (1, 2):
            chosen = turns >= turn
            index[chosen] = index[chosen][:, permutation]
    index = index.unsqueeze(-1).expand(-1, -1, 3)
    return frames.map(lambda tensor: tensor.gather(-2, index if tensor.dim() == 3 else index.unsqueeze(1).expand(tensor.shape)))
