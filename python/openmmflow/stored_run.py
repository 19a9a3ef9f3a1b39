# SPDX-License-Identifier: MIT
"""Dynamics that lives in a folder: it stops at any time and goes on as if it had not.

The folder holds ``settings.json`` (what is simulated and how), ``trajectory.dcd``, ``energies.csv`` and
``checkpoint.bin``, OpenMM's checkpoint with the state of the random number generator. A run goes on from its checkpoint; what
the other two files hold beyond it is cut off first, so no frame is there twice.
"""
from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Callable, Optional

import numpy as np
import openmm
from openmm import app, unit
from tqdm import tqdm

from . import atomic, trajectory

ENSEMBLES = ("nvt", "nve")

SETTINGS, CHECKPOINT, TRAJECTORY, ENERGIES = "settings.json", "checkpoint.bin", "trajectory.dcd", "energies.csv"


class SimulationError(RuntimeError):
    """Dynamics that cannot start, go on or be trusted. The message says why and what to do."""


@dataclass(frozen=True)
class Settings:
    """How a run is integrated and reported. Raises ValueError when a value makes no sense."""

    ensemble: str = "nvt"
    """``nvt``: LangevinMiddleIntegrator; ``nve``: VerletIntegrator."""
    step_size: float = 1.0
    """fs"""
    temperature: float = 300.0
    """K; of the thermostat, and of the velocities that a run starts with."""
    friction: float = 1.0
    """1/ps; of the thermostat."""
    seed: int = 1
    """Of everything random."""
    report_interval: int = 100
    """Steps between lines of energies.csv."""
    trajectory_interval: int = 1000
    """Steps between frames of trajectory.dcd."""
    platform: str = "Reference"
    precision: Optional[str] = None
    """``single``, ``mixed`` or ``double`` on platforms that have the choice."""

    def __post_init__(self):
        if self.ensemble not in ENSEMBLES:
            raise ValueError(f"ensemble must be one of {', '.join(ENSEMBLES)}, got {self.ensemble!r}")
        for name in ("step_size", "temperature"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.friction < np.inf:
            raise ValueError(f"friction must not be negative, got {self.friction}")
        for name in ("report_interval", "trajectory_interval"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1 step, got {getattr(self, name)}")
        if not 0 < self.seed < 2 ** 31:
            raise ValueError(f"seed must be between 1 and {2 ** 31 - 1}, got {self.seed}")

    def integrator(self) -> openmm.Integrator:
        if self.ensemble == "nve":
            return openmm.VerletIntegrator(self.step_size * unit.femtosecond)
        integrator = openmm.LangevinMiddleIntegrator(
            self.temperature * unit.kelvin, self.friction / unit.picosecond, self.step_size * unit.femtosecond)
        integrator.setRandomNumberSeed(self.seed)
        return integrator

    def platform_and_properties(self) -> tuple[openmm.Platform, dict]:
        """The OpenMM platform. Raises SimulationError, with what OpenMM has, when it is not there."""
        names = [openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())]
        if self.platform not in names:
            # Of the libraries that then do not load the platform's own has the cause.
            failures = [line for line in openmm.Platform.getPluginLoadFailures() if f"libOpenMM{self.platform}.so:" in line]
            reasons = [f". Its library did not load; usually the driver is missing. {line}" for line in failures]
            raise SimulationError(f"OpenMM has no platform {self.platform!r}; it has {', '.join(names)}"
                                  + ("".join(reasons) or "; `openmmflow info --platforms` says what others need"))
        platform = openmm.Platform.getPlatformByName(self.platform)
        if self.precision is None:
            return platform, {}
        if "Precision" not in platform.getPropertyNames():
            raise SimulationError(f"platform {self.platform} has no choice of precision; leave it out")
        return platform, {"Precision": self.precision}


def discard(directory):
    """Delete the files of a run from its folder, if it holds one, and nothing else."""
    directory = Path(directory)
    if (directory / SETTINGS).exists():
        # The settings go last: until then a folder that was half emptied is still known as one of a run.
        for name in (CHECKPOINT, TRAJECTORY, ENERGIES, SETTINGS):
            (directory / name).unlink(missing_ok=True)


def maxwell_velocities(system: openmm.System, temperature: float, random: np.random.Generator) -> np.ndarray:
    """Velocities (particles, 3) in nm/ps from the Maxwell-Boltzmann distribution at ``temperature`` (K), without constraints."""
    masses = np.array([system.getParticleMass(i)._value for i in range(system.getNumParticles())])
    thermal = unit.MOLAR_GAS_CONSTANT_R.value_in_unit(unit.kilojoule_per_mole / unit.kelvin) * temperature
    width = np.sqrt(np.divide(thermal, masses, out=np.zeros_like(masses), where=masses > 0))
    return random.standard_normal((len(masses), 3)) * width[:, None]


class StoredRun:
    """One run in one folder.

    Parameters
    ----------
    directory : made if it is not there.
    topology, system : what is simulated.
    settings : how.
    description : JSON document of names and values that says what is simulated, to be read by people.
    start : called without arguments when the run begins and not when it goes on; returns positions (nm) and velocities (nm/ps)
        of one instant, both (particles, 3).

    Raises SimulationError when the folder holds a run of something else, or files that do not belong together.
    """

    def __init__(self, directory, topology: app.Topology, system: openmm.System, settings: Settings, *, description: dict,
                 start: Callable[[], tuple[np.ndarray, np.ndarray]]):
        self.directory = Path(directory)
        self.topology = topology
        self.system = system
        self.settings = settings
        self.energies_path = self.directory / ENERGIES
        self.trajectory_path = self.directory / TRAJECTORY
        self._settings_path = self.directory / SETTINGS
        self._checkpoint_path = self.directory / CHECKPOINT
        identity = {
            "description": description, "settings": asdict(settings), "openmm": openmm.version.version,
            "system": hashlib.sha256(openmm.XmlSerializer.serialize(system).encode()).hexdigest()}
        self._check(identity)
        platform, properties = settings.platform_and_properties()
        try:
            self.simulation = app.Simulation(topology, system, settings.integrator(), platform, properties)
        except openmm.OpenMMException as error:
            raise SimulationError(f"OpenMM cannot set up the simulation on platform {settings.platform}: {error}") from error
        if self._checkpoint_path.exists():
            self._resume()
        else:
            self._begin(*start())
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            atomic.write_json(self._settings_path, identity)
            self._add_reporters()
        except OSError as error:
            raise self._unwritable(error) from error
        self.first_step = self.step
        """The step at which this object took over: 0, or that of the checkpoint."""

    @property
    def step(self) -> int:
        return self.simulation.currentStep

    def advance(self, steps: int, *, progress: bool = True, label: str = "", stop: Callable[[], bool] = lambda: False,
                checkpoint_seconds: float = 10.0) -> bool:
        """Run until the folder holds ``steps`` steps in all, or until ``stop`` returns True; whether they are all there.

        Raises SimulationError when the energy is no longer finite. The last checkpoint stays.
        """
        interval = self.settings.report_interval
        last_checkpoint = time.monotonic()
        with tqdm(total=steps, initial=self.step, desc=label or self.directory.name, unit="step", unit_scale=True,
                  disable=not progress) as bar:
            while self.step < steps and not stop():
                chunk = min(interval - self.step % interval, steps - self.step)
                try:
                    self.simulation.step(chunk)
                except (openmm.OpenMMException, ValueError) as error:
                    raise SimulationError(f"the run in {self.directory} failed after step {self.step}: {error}") from error
                except OSError as error:
                    raise self._unwritable(error) from error
                bar.update(chunk)
                if time.monotonic() - last_checkpoint > checkpoint_seconds:
                    self.write_checkpoint()
                    last_checkpoint = time.monotonic()
        self.write_checkpoint()
        return self.step >= steps

    def write_checkpoint(self):
        """Store the present state; the frames and energies up to it reach the disk first.

        Raises SimulationError when they cannot be written; the last checkpoint stays.
        """
        try:
            for file in (self._energies_file, self._trajectory_reporter._out):
                file.flush()
                os.fsync(file.fileno())
            atomic.write_bytes(self._checkpoint_path, self.simulation.context.createCheckpoint())
        except OSError as error:
            raise self._unwritable(error) from error

    def close(self):
        """Close the files and free the Context."""
        self.simulation.reporters.clear()
        for file in (self._energies_file, self._trajectory_reporter._out):
            # What a full disk did not take was reported when it was written; beyond the last checkpoint nothing is needed.
            with contextlib.suppress(OSError):
                file.close()
        del self.simulation

    def _unwritable(self, error: OSError) -> SimulationError:
        return SimulationError(f"the files of the run in {self.directory} cannot be written ({error.strerror or error}). Make room for "
                               "them and give the same command again: it goes on from the last checkpoint")

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def energies(self) -> trajectory.Energies:
        return trajectory.read_energies(self.energies_path)

    def positions(self) -> np.ndarray:
        """The frames stored so far, (frames, particles, 3) in nm."""
        return trajectory.read_positions(self.trajectory_path)

    def _check(self, identity):
        """Raise unless the folder is free or holds a run of this very identity."""
        if self._settings_path.exists():
            try:
                stored = json.loads(self._settings_path.read_text())
            except ValueError as error:
                raise SimulationError(f"{self._settings_path} cannot be read ({error}); use another folder") from error
            differences = _differences(stored, json.loads(json.dumps(identity)))
            if differences:
                raise SimulationError(f"{self.directory} holds a run with other settings: {'; '.join(differences)}. "
                                      "Give the same settings to go on with it, or use another folder")
            return
        present = [path.name for path in (self._checkpoint_path, self.trajectory_path, self.energies_path) if path.exists()]
        if present:
            raise SimulationError(f"{self.directory} holds {', '.join(present)} but no {SETTINGS}; use another folder")

    def _begin(self, positions, velocities):
        context = self.simulation.context
        context.setPositions(positions)
        if self.settings.ensemble == "nve":
            # The leapfrog integrator keeps velocities half a step behind the positions.
            forces = context.getState(forces=True).getForces(asNumpy=True)._value
            masses = np.array([self.system.getParticleMass(i)._value for i in range(self.system.getNumParticles())])[:, None]
            kick = np.divide(forces, masses, out=np.zeros_like(forces), where=masses > 0)
            velocities = velocities - 0.5 * self.settings.step_size * 1e-3 * kick
        context.setVelocities(velocities)
        if self.system.getNumConstraints():
            context.applyVelocityConstraints(self.simulation.integrator.getConstraintTolerance())

    def _resume(self):
        try:
            self.simulation.context.loadCheckpoint(self._checkpoint_path.read_bytes())
        except Exception as error:
            raise SimulationError(f"{self._checkpoint_path} cannot be loaded ({error}); start again in another folder") from error
        lines, frames = self.step // self.settings.report_interval, self.step // self.settings.trajectory_interval
        try:
            if lines:
                trajectory.truncate_csv(self.energies_path, lines)
            if frames:
                trajectory.truncate_dcd(self.trajectory_path, frames)
        except (OSError, ValueError) as error:
            raise SimulationError(f"the files in {self.directory} do not belong together: {error}; "
                                  "start again in another folder") from error

    def _add_reporters(self):
        """Append to files that hold something at this step, and begin the others: their headers come with the first report."""
        append = self.step >= self.settings.report_interval
        self._energies_file = open(self.energies_path, "a" if append else "w")
        energy_reporter = app.StateDataReporter(
            self._energies_file, self.settings.report_interval, step=True, time=True, potentialEnergy=True, kineticEnergy=True,
            totalEnergy=True, temperature=True, append=append)
        self._trajectory_reporter = app.DCDReporter(
            str(self.trajectory_path), self.settings.trajectory_interval,
            append=self.step >= self.settings.trajectory_interval, enforcePeriodicBox=False)
        self.simulation.reporters += [energy_reporter, self._trajectory_reporter]


def _differences(stored, given, path=()):
    """What two JSON documents differ in, as sentences."""
    if isinstance(stored, dict) and isinstance(given, dict):
        return [line for key in sorted(stored.keys() | given.keys())
                for line in _differences(stored.get(key), given.get(key), (*path, key))]
    if stored == given:
        return []
    name = ".".join(path)
    if name == "system":
        return ["the System (potential, masses or constraints) is another one"]
    return [f"{name} is {json.dumps(stored)} there and {json.dumps(given)} now"]
