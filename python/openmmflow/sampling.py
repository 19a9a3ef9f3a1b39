# SPDX-License-Identifier: MIT
"""Samples of a flow in a file, with the weights that turn them into a force field's ensemble: ``openmmflow sample``.

Samples stream through memory in batches. While a file is made, its finished batches lie in a hidden folder beside it; the same
call goes on with them, and the file itself appears complete or not at all. Sample i depends on the seed and on i alone, so a
file that was made in pieces equals one that was made at once.

An HDF5 file is one that MDTraj reads (``mdtraj.load``). Besides ``coordinates`` (nm, single precision) and ``topology`` it
holds ``log_prob``, ``potentialEnergy`` (kJ/mol), ``log_weights`` and, on request, ``log_prob_gradient`` (per nm). With the
suffix ``.dcd`` the positions go to a DCD file and all else to an NPZ file of the same name. ln p is in measure "cartesian"
whatever the model's: it is the density that the samples are drawn from.
"""
from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

import h5py
import mdtraj
import numpy as np
import openmm
from openmm import app
from tqdm import tqdm

from . import FlowModel, atomic
from .analysis import cartesian_log_prob
from .reweighting import log_weights
from .stored_run import Settings

BATCH = 10_000
"""Samples in memory at a time."""


@dataclass(frozen=True)
class Samples:
    """What a file of samples holds besides the positions; what it has not is None."""

    log_prob: np.ndarray
    """(samples,) ln p in measure "cartesian"."""
    energies: Optional[np.ndarray]
    """(samples,) kJ/mol"""
    log_weights: Optional[np.ndarray]
    """(samples,) -U/k_BT - ln p"""
    temperature: Optional[float]
    """K, of the weights"""


class PotentialEnergy:
    """The potential energy of a System at many conformations.

    Parameters
    ----------
    system : of exactly the molecule, without constraints.
    num_particles : of the molecule.
    platform : OpenMM platform.

    Raises ValueError for a System that is not one of the molecule alone, SimulationError for a platform that is not there.
    """

    def __init__(self, system: openmm.System, num_particles: int, platform: str = "Reference"):
        if system.getNumParticles() != num_particles:
            raise ValueError(f"the System has {system.getNumParticles()} particles, the model {num_particles}; reweighting needs a System "
                             "of exactly the molecule (FlowMonteCarlo samples molecules within a larger one)")
        if system.getNumConstraints():
            raise ValueError(f"the System has {system.getNumConstraints()} constraints, which samples do not obey; "
                             "make it with constraints=None, rigidWater=False")
        self._platform, _ = Settings(platform=platform).platform_and_properties()
        self._context = openmm.Context(system, openmm.VerletIntegrator(0.001), self._platform)

    def __call__(self, positions) -> np.ndarray:
        """Energies (samples,) in kJ/mol of positions (samples, particles, 3) in nm; infinite where OpenMM finds no number."""
        energies = np.empty(len(positions))
        for index, frame in enumerate(positions):
            self._context.setPositions(frame)
            try:
                energies[index] = self._context.getState(energy=True).getPotentialEnergy()._value
            except openmm.OpenMMException:
                energies[index] = np.inf
        energies[~np.isfinite(energies)] = np.inf
        return energies


def sample(output, model: FlowModel, count: int, *, system: Optional[openmm.System] = None, temperature: Optional[float] = None,
           topology: Optional[app.Topology] = None, gradients: bool = False, seed: int = 0, platform: str = "Reference", batch: int = BATCH,
           progress: bool = True, stop: Callable[[], bool] = lambda: False) -> bool:
    """Write samples of a flow to a file, or go on with it until it holds ``count``; whether it does.

    Parameters
    ----------
    output : the file, with suffix .h5 or .dcd (with an .npz beside it).
    model : the flow.
    count : samples in all, with those of a finished HDF5 file of the same settings.
    system : of exactly the molecule, for energies and weights; an ``openmm.System``.
    temperature : of the weights, K; the model's if not given.
    topology : names of the atoms; without it, elements are guessed from the System's masses.
    gradients : store d ln p/dx (measure of the model), too.
    seed : from 0 to 2^64 - 1.
    platform : of the energies.
    stop : called between batches; True interrupts.

    Raises ValueError for arguments that make no sense, and when the file or the batches beside it are of other settings.
    """
    output = Path(output)
    if output.suffix not in (".h5", ".hdf5", ".dcd"):
        raise ValueError(f"samples go to a file with suffix .h5 or .dcd, got {output.name}")
    if count < 1 or batch < 1:
        raise ValueError(f"expected at least one sample and a batch of at least one, got {count} and {batch}")
    if temperature is not None and system is None:
        raise ValueError("a temperature is of weights, and they need a System")
    if topology is not None and topology.getNumAtoms() != model.num_particles:
        raise ValueError(f"the topology has {topology.getNumAtoms()} atoms, the model is of {model.num_particles} particles")
    temperature = model.temperature if temperature is None else float(temperature)
    identity = json.dumps({
        "model": model.checksum, "seed": seed, "gradients": gradients,
        "system": None if system is None else hashlib.sha256(openmm.XmlSerializer.serialize(system).encode()).hexdigest(),
        "temperature": None if system is None else temperature, "platform": None if system is None else platform}, sort_keys=True)
    present = _finished(output, identity)
    if present >= count:
        return True
    if present and output.suffix == ".dcd":
        raise ValueError(f"{output} is complete with {present} samples, and a DCD file is not prolonged; use another name, or the suffix .h5")
    energy = None if system is None else PotentialEnergy(system, model.num_particles, platform)
    parts = _Parts(output, identity, present)
    with tqdm(total=count, initial=parts.end, unit="sample", unit_scale=True, desc=output.name, disable=not progress) as bar:
        while parts.end < count:
            if stop():
                return False
            size = min(batch, count - parts.end)
            positions, log_prob, *slope = model.sample(size, seed, first=parts.end, gradient=gradients)
            arrays = {"coordinates": positions.astype(np.float32), "log_prob": cartesian_log_prob(model, positions, log_prob)}
            if gradients:
                arrays["log_prob_gradient"] = slope[0].astype(np.float32)
            if energy is not None:
                arrays["potentialEnergy"] = energy(positions)
                arrays["log_weights"] = log_weights(arrays["log_prob"], arrays["potentialEnergy"], temperature)
            parts.append(arrays)
            bar.update(size)
    names = topology if topology is not None else _guessed_topology(model, system)
    if output.suffix == ".dcd":
        _write_dcd(output, parts, identity)
    else:
        _write_hdf5(output, parts, identity, mdtraj.Topology.from_openmm(names))
    parts.remove()
    return True


def read(path) -> Samples:
    """What a finished file holds besides the positions (``mdtraj.load`` reads those); of a DCD file its NPZ."""
    path = Path(path)
    names = ("log_prob", "potentialEnergy", "log_weights")
    if path.suffix in (".h5", ".hdf5"):
        with h5py.File(path, "r") as file:
            arrays = {name: file[name][:] for name in names if name in file}
            identity = json.loads(file.attrs["openmmflow"])
    else:
        with np.load(path.with_suffix(".npz")) as file:
            arrays = {name: file[name] for name in names if name in file}
            identity = json.loads(str(file["openmmflow"]))
    return Samples(*(arrays.get(name) for name in names), identity["temperature"])


class _Parts:
    """Finished batches beside the output: files named after their first sample."""

    def __init__(self, output: Path, identity: str, first: int):
        self.first = self.end = first
        self.folder = output.with_name(f".{output.name}.parts")
        settings = self.folder / "settings.json"
        if settings.exists() and settings.read_text() != identity:
            raise ValueError(f"{self.folder} holds samples that were begun with other settings ({_difference(settings.read_text(), identity)}); "
                             "give the same settings to go on, or delete it")
        self.folder.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(settings, identity.encode())
        self.paths: list[Path] = []
        while (path := self._path(self.end)).exists():
            with np.load(path) as arrays:
                self.end += len(arrays["log_prob"])
            self.paths.append(path)

    def _path(self, first: int) -> Path:
        return self.folder / f"{first}.npz"

    def append(self, arrays: dict):
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        path = self._path(self.end)
        atomic.write_bytes(path, buffer.getvalue())
        self.paths.append(path)
        self.end += len(arrays["log_prob"])

    def __iter__(self):
        for path in self.paths:
            with np.load(path) as arrays:
                yield {name: arrays[name] for name in arrays.files}

    def remove(self):
        shutil.rmtree(self.folder)


def _finished(output: Path, identity: str) -> int:
    """Samples of a finished file of these very settings; 0 if there is no file."""
    if not output.exists():
        return 0
    try:
        if output.suffix == ".dcd":
            with np.load(output.with_suffix(".npz")) as file:
                stored, count = str(file["openmmflow"]), len(file["log_prob"])
        else:
            with h5py.File(output, "r") as file:
                stored, count = file.attrs["openmmflow"], len(file["log_prob"])
    except (OSError, KeyError) as error:
        raise ValueError(f"{output} is there and no file of samples of this program ({error}); use another name") from error
    if stored != identity:
        raise ValueError(f"{output} holds samples with other settings ({_difference(stored, identity)}); use another name")
    return count


def _difference(stored: str, given: str) -> str:
    stored, given = json.loads(stored), json.loads(given)
    return ", ".join(f"{name} {stored.get(name)} there and {given.get(name)} now" for name in sorted(given) if stored.get(name) != given.get(name))


_UNITS = {"coordinates": "nanometers", "potentialEnergy": "kilojoules_per_mole"}


def _write_hdf5(output: Path, parts: _Parts, identity: str, topology: mdtraj.Topology):
    """All samples, those of an earlier output first; the layout is that of mdtraj.formats.HDF5TrajectoryFile."""
    temporary = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        with h5py.File(temporary, "w") as file:
            for name, value in (("conventions", "Pande"), ("conventionVersion", "1.1"), ("program", "openmmflow"),
                                ("programVersion", "1"), ("application", "openmmflow"), ("title", "samples of a normalizing flow")):
                file.attrs[name] = np.bytes_(value)
            file.attrs["openmmflow"] = identity
            description = mdtraj.formats.HDF5TrajectoryFile.convert_topology_to_dict(topology)
            file.create_dataset("topology", data=np.array([json.dumps(description).encode()]))
            if parts.first:
                with h5py.File(output, "r") as earlier:
                    for begin in range(0, parts.first, BATCH):
                        _append(file, {name: earlier[name][begin:begin + BATCH] for name in earlier if name != "topology"})
            for arrays in parts:
                _append(file, arrays)
        os.replace(temporary, output)
    finally:
        temporary.unlink(missing_ok=True)


def _append(file: h5py.File, arrays: dict):
    for name, values in arrays.items():
        if name not in file:
            dataset = file.create_dataset(name, (0, *values.shape[1:]), maxshape=(None, *values.shape[1:]), dtype=values.dtype,
                                          chunks=(1000, *values.shape[1:]))
            if name in _UNITS:
                dataset.attrs["units"] = np.bytes_(_UNITS[name])
        dataset = file[name]
        dataset.resize(len(dataset) + len(values), axis=0)
        dataset[-len(values):] = values


def _write_dcd(output: Path, parts: _Parts, identity: str):
    temporary = output.with_name(f".{output.stem}.{os.getpid()}.dcd")
    scalars: dict[str, list] = {}
    try:
        with mdtraj.formats.DCDTrajectoryFile(str(temporary), "w") as file:
            for arrays in parts:
                file.write(10 * arrays.pop("coordinates"))    # Å
                for name, values in arrays.items():
                    scalars.setdefault(name, []).append(values)
        buffer = io.BytesIO()
        np.savez(buffer, openmmflow=identity, **{name: np.concatenate(values) for name, values in scalars.items()})
        # The DCD file goes last: it is what tells a finished output.
        atomic.write_bytes(output.with_suffix(".npz"), buffer.getvalue())
        os.replace(temporary, output)
    finally:
        temporary.unlink(missing_ok=True)


def _guessed_topology(model: FlowModel, system: Optional[openmm.System]) -> app.Topology:
    """One residue of atoms whose elements are those of the System's masses, or unknown."""
    topology = app.Topology()
    residue = topology.addResidue("MOL", topology.addChain())
    atoms = []
    for particle in range(model.num_particles):
        element = None if system is None else app.Element.getByMass(system.getParticleMass(particle))
        atoms.append(topology.addAtom(f"{'X' if element is None else element.symbol}{particle + 1}", element, residue))
    for first, second in model.bonds:
        topology.addBond(atoms[first], atoms[second])
    return topology
