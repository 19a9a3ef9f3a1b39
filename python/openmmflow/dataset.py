# SPDX-License-Identifier: MIT
"""Training data from replica-exchange molecular dynamics.

Where a flow of the molecule is at hand, a first one trained on a short run for instance, it can propose conformations to the coldest
replica (:class:`openmmflow.monte_carlo.FlowMonteCarlo`). The data remain those of the force field, whatever the flow is, and populations of
basins that dynamics seldom goes between converge within minutes.

A data set is one HDF5 file: ``positions`` (frames, particles, 3) in nm, ``forces`` (frames, particles, 3) in kJ/mol/nm,
``energies`` (frames,) in kJ/mol, ``system``, the XML of the System, and the attribute ``description``, a JSON document that says what was
simulated. The file also carries the state of every replica, so that a run that was interrupted goes on where it stopped, and, if they were added, forces a time
step ahead and behind (:func:`add_displaced_forces`).
"""
from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import openmm
from openmm import app, unit
from tqdm import tqdm

from .molecules import copies

MOLAR_GAS_CONSTANT = unit.MOLAR_GAS_CONSTANT_R.value_in_unit(unit.kilojoule_per_mole / unit.kelvin)

ALANINE_DIPEPTIDE_FORCE_FIELD = ("amber99sbildn.xml", "amber99_obc.xml")


def alanine_dipeptide() -> app.PDBFile:
    """The topology and one conformation of ACE-ALA-NME (22 atoms) that ship with the package."""
    return app.PDBFile(str(Path(__file__).parent / "data" / "alanine_dipeptide.pdb"))


def implicit_solvent_system(topology: app.Topology) -> openmm.System:
    """amber99sbildn with OBC implicit solvent, no cutoff, no constraints: the force field of the shipped model."""
    return app.ForceField(*ALANINE_DIPEPTIDE_FORCE_FIELD).createSystem(
        topology, nonbondedMethod=app.NoCutoff, constraints=None, rigidWater=False)


def molecular_system(topology: app.Topology, force_field, *, constraints: str = "none") -> openmm.System:
    """A System of molecules without cutoff or box.

    Parameters
    ----------
    force_field : names of OpenMM's force field files.
    constraints : "none", "HBonds", "AllBonds" or "HAngles".

    Raises
    ------
    ValueError : what OpenMM says when the force field does not know the molecule; unknown constraints.
    """
    known = {"none": None, "HBonds": app.HBonds, "AllBonds": app.AllBonds, "HAngles": app.HAngles}
    if constraints not in known:
        raise ValueError(f"constraints are one of {', '.join(known)}, got {constraints!r}")
    return app.ForceField(*force_field).createSystem(topology, nonbondedMethod=app.NoCutoff, constraints=known[constraints], rigidWater=False)


def temperature_ladder(lowest: float, highest: float, replicas: int) -> np.ndarray:
    """Temperatures of replicas in geometric progression, K."""
    if not 0 < lowest <= highest or replicas < 1 or (replicas > 1 and lowest == highest):
        raise ValueError(f"{replicas} replicas from {lowest} to {highest} K make no ladder of ascending temperatures")
    return np.array([lowest]) if replicas == 1 else lowest * (highest / lowest) ** (np.arange(replicas) / (replicas - 1))


class ReplicaExchange:
    """Temperature replica exchange of one System on one core; frames are taken at the lowest temperature.

    Parameters
    ----------
    system : the System to simulate.
    positions : start of every replica, a Quantity or an array in nm of shape (particles, 3).
    temperatures : of the replicas, in K, ascending; the data is of the first.
    step_size : of the integrator, in ps.
    friction : in 1/ps. High friction (20/ps) decorrelates bond lengths within a quarter of a picosecond.
    steps_per_frame : integration steps between exchanges; one frame is stored after each.
    seed : of the integrators and of the exchanges.
    platform : name of the OpenMM platform. For a molecule of some twenty atoms Reference is the fastest.
    proposals : FlowModel that proposes conformations of the molecules to the first replica.
    molecules : their particles, see FlowMonteCarlo; the whole System if not given.
    moves : how many are proposed after the steps of each frame.
    """

    def __init__(self, system, positions, temperatures, *, step_size=0.001, friction=20.0, steps_per_frame=250, seed=1,
                 platform="Reference", proposals=None, molecules=None, moves=20):
        self.temperatures = np.asarray(temperatures, dtype=float)
        if len(self.temperatures) < 1 or np.any(self.temperatures <= 0) or np.any(np.diff(self.temperatures) <= 0):
            raise ValueError(f"temperatures must be positive and ascend, got {list(temperatures)}")
        self.steps_per_frame, self.moves = steps_per_frame, moves
        self.mover = None
        if proposals is not None:
            # Only those who have a flow wait for what it imports.
            from .monte_carlo import FlowMonteCarlo

            self.mover = FlowMonteCarlo(proposals, system, molecules, independence=1.0, seed=seed)
        self.random = np.random.default_rng(seed)
        self.accepted = np.zeros(len(self.temperatures) - 1, dtype=int)
        self.attempted = np.zeros(len(self.temperatures) - 1, dtype=int)
        self.contexts = []
        for replica, temperature in enumerate(self.temperatures):
            integrator = openmm.LangevinMiddleIntegrator(temperature, friction, step_size)
            integrator.setRandomNumberSeed(seed * 1000 + replica + 1)
            context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform))
            context.setPositions(positions)
            openmm.LocalEnergyMinimizer.minimize(context, 1.0, 200)
            context.setVelocitiesToTemperature(temperature, seed * 1000 + replica + 1)
            self.contexts.append(context)

    def advance(self):
        """Run every replica for ``steps_per_frame`` steps, try what is proposed to the first, then try to exchange neighbours."""
        for context in self.contexts:
            context.getIntegrator().step(self.steps_per_frame)
        if self.mover is not None:
            self.mover.step(self.contexts[0], self.moves)
        energies = np.array([context.getState(energy=True).getPotentialEnergy()._value for context in self.contexts])
        beta = 1.0 / (MOLAR_GAS_CONSTANT * self.temperatures)
        for low in range(len(self.contexts) - 1):
            high = low + 1
            self.attempted[low] += 1
            if np.log(self.random.random()) < (beta[low] - beta[high]) * (energies[low] - energies[high]):
                self._swap(low, high)
                energies[[low, high]] = energies[[high, low]]
                self.accepted[low] += 1

    def _swap(self, low, high):
        """Exchange positions and velocities; velocities are scaled to their new temperature."""
        states = [self.contexts[i].getState(positions=True, velocities=True) for i in (low, high)]
        scale = np.sqrt(self.temperatures[high] / self.temperatures[low])
        for target, source, factor in ((low, states[1], 1 / scale), (high, states[0], scale)):
            self.contexts[target].setPositions(source.getPositions(asNumpy=True))
            self.contexts[target].setVelocities(source.getVelocities(asNumpy=True) * factor)    # constraints hold for any factor

    def frame(self):
        """Positions (nm), forces (kJ/mol/nm) and potential energy (kJ/mol) at the lowest temperature."""
        state = self.contexts[0].getState(positions=True, forces=True, energy=True)
        return (state.getPositions(asNumpy=True)._value, state.getForces(asNumpy=True)._value,
                state.getPotentialEnergy()._value)

    def acceptance(self) -> dict:
        """Accepted parts, of exchanges of neighbours and of proposals; what there is none of is left out."""
        parts = {"exchanged": np.round(self.accepted / np.maximum(self.attempted, 1), 2)} if len(self.contexts) > 1 else {}
        return parts if self.mover is None else {**parts, "proposals": round(self.mover.statistics["independence"].acceptance, 2)}

    def phase_space(self) -> np.ndarray:
        """Positions and velocities of every replica, (replicas, 2, particles, 3), in nm and nm/ps."""
        states = [context.getState(positions=True, velocities=True) for context in self.contexts]
        return np.array([[s.getPositions(asNumpy=True)._value, s.getVelocities(asNumpy=True)._value] for s in states])

    def set_phase_space(self, phase_space: np.ndarray):
        for context, (positions, velocities) in zip(self.contexts, phase_space):
            context.setPositions(positions)
            context.setVelocities(velocities)


def make_dataset(path, system, positions, *, frames, temperatures, seed=1, equilibration_frames=200, description=None,
                 checkpoint_frames=250, progress=True, proposals=None, molecules=None, moves=20, **replica_exchange_options):
    """Run replica exchange until ``path`` holds ``frames`` frames; an existing file is continued.

    ``proposals``, ``molecules``, ``moves`` and the other options are those of :class:`ReplicaExchange`.

    A continued run is statistically, not bitwise, the run that was never interrupted: the state of OpenMM's random number
    generators is not stored, so it goes on with a seed derived from ``seed`` and the number of frames present.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    num_particles = system.getNumParticles()
    with h5py.File(path, "a") as file:
        if "positions" not in file:
            for name, shape in (("positions", (num_particles, 3)), ("forces", (num_particles, 3)), ("energies", ())):
                file.create_dataset(name, (0, *shape), maxshape=(None, *shape), dtype="f8", chunks=(256, *shape))
            file["system"] = openmm.XmlSerializer.serialize(system)
            file.attrs["description"] = json.dumps({
                **(description or {}), "method": _method(temperatures, proposals), "temperature": float(temperatures[0]),
                "temperatures": [float(t) for t in temperatures], "seed": seed, **replica_exchange_options,
                **({} if proposals is None else {"proposals": proposals.checksum, "moves": moves})})
        present = len(file["positions"])
        if file["positions"].shape[1] != num_particles:
            raise ValueError(f"{path} holds frames of {file['positions'].shape[1]} particles, the System has {num_particles}")
        if present >= frames:
            return path
        # Integrators take seeds below 2^31 / 1000.
        run = ReplicaExchange(system, positions, temperatures, seed=(seed + 7919 * present) % 2_000_003, proposals=proposals,
                              molecules=molecules, moves=moves, **replica_exchange_options)
        if present:
            run.set_phase_space(file["phase_space"][:])
        else:
            for _ in tqdm(range(equilibration_frames), desc="equilibration", unit="frame", disable=not progress):
                run.advance()
        with tqdm(total=frames, initial=present, desc=path.name, unit="frame", disable=not progress,
                  mininterval=1.0) as bar:
            while present < frames:
                block = [(run.advance(), run.frame())[1] for _ in range(min(checkpoint_frames, frames - present))]
                present += len(block)
                for name, values in zip(("positions", "forces", "energies"), zip(*block)):
                    file[name].resize(present, axis=0)
                    file[name][-len(block):] = np.array(values)
                if "phase_space" not in file:
                    file.create_dataset("phase_space", data=run.phase_space())
                file["phase_space"][:] = run.phase_space()
                file.flush()
                bar.update(len(block))
                bar.set_postfix(run.acceptance())
    return path


def _method(temperatures, proposals) -> str:
    parts = ["molecular dynamics" if len(temperatures) == 1 else "temperature replica exchange"]
    return " and ".join(parts + ["Monte Carlo moves proposed by a flow"] * (proposals is not None))


def add_displaced_forces(path, system, *, step_size=0.001, seed=1, platform="Reference", progress=True):
    """Add forces a time step ahead and behind to a data set: what the trainer needs to make a flow smooth over a step.

    Each frame x gets a displacement u = v*step_size with thermal velocities v, ``displacements`` (frames, particles, 3) in nm, and the forces
    at x + u and x - u, ``displaced_forces`` (frames, 2, particles, 3) in kJ/mol/nm. Frames that have them already are left alone.

    Parameters
    ----------
    path : the data set.
    system : the System that it was made with.
    step_size : of the dynamics to come, ps.
    """
    with h5py.File(path, "a") as file:
        frames, num_particles = file["positions"].shape[:2]
        if num_particles != system.getNumParticles():
            raise ValueError(f"{path} holds frames of {num_particles} particles, the System has {system.getNumParticles()}")
        temperature = json.loads(file.attrs["description"])["temperature"]
        masses = np.array([system.getParticleMass(i)._value for i in range(num_particles)])
        if system.getNumConstraints():
            raise ValueError("a step along thermal velocities leaves the constraints; displaced forces need a System without any")
        if np.any(masses <= 0):
            raise ValueError("particles without mass have no thermal velocity")
        scale = step_size * np.sqrt(MOLAR_GAS_CONSTANT * temperature / masses)[:, None]
        for name, shape in (("displacements", (num_particles, 3)), ("displaced_forces", (2, num_particles, 3))):
            if name not in file:
                file.create_dataset(name, (0, *shape), maxshape=(None, *shape), dtype="f8", chunks=(256, *shape))
        context = openmm.Context(system, openmm.VerletIntegrator(step_size), openmm.Platform.getPlatformByName(platform))
        present = min(len(file["displacements"]), len(file["displaced_forces"]))
        for start in tqdm(range(present, frames, 1000), desc=f"{Path(path).name}: displaced forces", disable=not progress):
            positions = file["positions"][start:start + 1000]
            displacements = scale * np.random.default_rng((seed, start)).standard_normal(positions.shape)
            forces = np.empty((len(positions), 2, num_particles, 3))
            for frame, (x, u) in enumerate(zip(positions, displacements)):
                for side, sign in enumerate((1, -1)):
                    context.setPositions(x + sign * u)
                    forces[frame, side] = context.getState(forces=True).getForces(asNumpy=True)._value
            for name, values in (("displacements", displacements), ("displaced_forces", forces)):
                file[name].resize(start + len(values), axis=0)
                file[name][start:] = values
    return Path(path)


def make_molecule_dataset(path, pdb: app.PDBFile, *, frames, force_field=ALANINE_DIPEPTIDE_FORCE_FIELD, system: openmm.System | None = None,
                          constraints="none", temperature=300.0, highest_temperature=600.0, replicas=4, seed=1, progress=True,
                          environment=None, proposals=None, **options):
    """A data set of the molecules of a PDB file by temperature replica exchange, with forces a time step ahead and behind where there are
    no constraints.

    Parameters
    ----------
    force_field : names of OpenMM's force field files; not used if a ``system`` is given.
    system : what to simulate.
    constraints : see :func:`molecular_system`.
    temperature, highest_temperature, replicas : of the data and of the hottest replica, K; how many, in geometric progression.
    environment : for the description: "vacuum", "implicit solvent" or "explicit solvent"; None: taken from the names of the force field.
    proposals : FlowModel that proposes conformations of each of the molecules, see :class:`ReplicaExchange`.
    options : of :class:`ReplicaExchange`.

    Raises
    ------
    ValueError : a molecule that the force field does not know, impossible temperatures, a file of something else.
    """
    if system is None:
        system = molecular_system(pdb.topology, force_field, constraints=constraints)
        implicit = any(word in name for name in force_field for word in ("obc", "gbn", "gbvi", "hct", "implicit"))
        environment = environment or ("implicit solvent" if implicit else "vacuum")
        description = {"forceField": list(force_field), "environment": environment}
    else:
        description = {"forceField": ["a given System"], "environment": environment or "not said"}
    description |= {"molecule": "-".join(residue.name for residue in pdb.topology.residues()), "constraints": constraints
                    if system.getNumConstraints() == 0 or constraints != "none" else f"{system.getNumConstraints()} of the given System"}
    make_dataset(path, system, pdb.positions, frames=frames, seed=seed, progress=progress, description=description,
                 temperatures=temperature_ladder(temperature, highest_temperature, replicas), proposals=proposals,
                 molecules=None if proposals is None else copies(pdb.topology), **options)
    if system.getNumConstraints() == 0:
        add_displaced_forces(path, system, step_size=options.get("step_size", 0.001), seed=seed, progress=progress)
    return Path(path)


def make_alanine_dipeptide_dataset(path, *, frames=50_000, seed=1, progress=True):
    """The data of the shipped model: ACE-ALA-NME, amber99sbildn + OBC, 300 K, unconstrained, 1 fs, four replicas to 600 K."""
    pdb = alanine_dipeptide()
    system = implicit_solvent_system(pdb.topology)
    make_dataset(
        path, system, pdb.positions, frames=frames, seed=seed, progress=progress,
        temperatures=300.0 * 2.0 ** (np.arange(4) / 3),
        description={"molecule": "alanine dipeptide", "forceField": list(ALANINE_DIPEPTIDE_FORCE_FIELD),
                     "environment": "implicit solvent (OBC)", "constraints": "none"})
    return add_displaced_forces(path, system, seed=seed, progress=progress)
