# SPDX-License-Identifier: MIT
"""Dynamics of one molecule in the potential of a model: ``openmmflow simulate``."""
from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np
import openmm
from openmm import app, unit

from . import FlowForce, FlowModel, analysis, plots
from .hashes import sha256
from .inner_support import support_exits
from .stored_run import ENERGIES, Settings, SimulationError, StoredRun
from .trajectory import read_energies

EQUILIBRATION_FRICTION = 10.0
"""1/ps: relaxes every degree of freedom of a small molecule within a picosecond."""
HOTTEST_START = 4.0
"""Times the temperature: the kinetic energy of even three particles goes beyond it in 1 of 20,000 starts."""


@dataclass(frozen=True)
class Molecule:
    """A molecule in some potential, ready to be simulated."""

    topology: app.Topology
    system: openmm.System
    positions: np.ndarray
    """(particles, 3), nm"""
    description: dict
    """What it is, for settings.json."""


def read_pdb(path) -> app.PDBFile:
    """Read a PDB file. Raises SimulationError when that fails, or when there are no atoms in it."""
    try:
        if not any(line.startswith(("ATOM", "HETATM")) for line in Path(path).read_text(errors="replace").splitlines()):
            raise SimulationError(f"{path} is no PDB file: it has no ATOM or HETATM records")
        return app.PDBFile(str(path))
    except SimulationError:
        raise
    except FileNotFoundError:
        raise SimulationError(f"there is no file {path}") from None
    except Exception as error:
        raise SimulationError(f"{path} cannot be read as a PDB file: {error}") from error


def flow_molecule(model_path, pdb_path, *, scale: float = 1.0) -> Molecule:
    """The molecule of a PDB file in the potential of a model file, with the constraints that the model was trained with.

    Parameters
    ----------
    model_path : the model file.
    pdb_path : exactly the particles of the model, in its order; any box is ignored, the molecule is alone.
    scale : λ in U = -λ k_BT ln p.

    Raises SimulationError when the structure cannot be one of the model, and what ``FlowModel.load`` raises.
    """
    model = FlowModel.load(model_path)
    pdb = read_pdb(pdb_path)
    topology = pdb.topology
    topology.setPeriodicBoxVectors(None)
    if topology.getNumAtoms() != model.num_particles:
        raise SimulationError(f"{pdb_path} has {topology.getNumAtoms()} atoms, the model is of {model.num_particles} particles; "
                              "give a PDB file of exactly the model's particles, in the model's order")
    positions = pdb.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    system = openmm.System()
    for atom in topology.atoms():
        if atom.element is None:
            raise SimulationError(f"{pdb_path}: atom {atom.index + 1} ({atom.name}) has no element, so its mass is unknown; "
                                  "fill the element column (77-78)")
        system.addParticle(atom.element.mass)
    for first, second, distance in model.constraints:
        system.addConstraint(first, second, distance)
    force = FlowForce(model)
    force.setDefaultScale(scale)
    system.addForce(force)
    return Molecule(topology, system, positions, {
        "potential": "flow", "model": Path(model_path).name, "modelSha256": sha256(model_path), "scale": scale,
        "structure": Path(pdb_path).name, "structureSha256": sha256(pdb_path)})


def bonds_disagree(model: FlowModel, topology: app.Topology) -> str:
    """Empty if the bonds that a topology knows are bonds of the model, otherwise what disagrees: a sign of another atom order."""
    known = {frozenset(pair) for pair in model.bonds}
    names = [f"{atom.residue.name}:{atom.name}" for atom in topology.atoms()]
    strange = [f"{names[a.index]}-{names[b.index]}" for a, b in topology.bonds() if frozenset((a.index, b.index)) not in known]
    return f"the structure has {len(strange)} bonds that the model has not, {strange[0]} for one" if strange else ""


def thermal_start(molecule: Molecule, *, temperature: float, seed: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Minimize the energy, then run ``steps`` steps of 1 fs of strongly coupled Langevin dynamics.

    Returns positions (nm) and velocities (nm/ps), (particles, 3) both. Runs on the Reference platform.

    Raises SimulationError when the molecule does not come to the temperature. A flow knows nothing about conformations unlike those
    that it was trained on: atoms in another order, exchanged hydrogens of a methyl group, the other enantiomer.
    """
    integrator = openmm.LangevinMiddleIntegrator(temperature, EQUILIBRATION_FRICTION, 0.001)
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(molecule.system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(molecule.positions)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, 100)
    context.setVelocitiesToTemperature(temperature, seed)
    try:
        integrator.step(steps)
        state = context.getState(positions=True, velocities=True, energy=True)
        reached = 2 * state.getKineticEnergy() / (unit.MOLAR_GAS_CONSTANT_R * analysis.degrees_of_freedom(molecule.system))
    except openmm.OpenMMException as error:
        raise SimulationError(f"equilibration failed: {error}. {_UNLIKE}") from error
    if not reached < HOTTEST_START * temperature * unit.kelvin:
        raise SimulationError(f"after equilibration at {temperature:g} K the temperature is {reached._value:.3g} K. {_UNLIKE}")
    return state.getPositions(asNumpy=True)._value, state.getVelocities(asNumpy=True)._value


_UNLIKE = ("The structure seems to be unlike what the model was trained on: are its atoms, down to the hydrogens of each methyl "
           "group, in the model's order, and is it the same enantiomer?")


class InterruptFlag:
    """Within ``with``, the first Ctrl-C or SIGTERM sets a flag instead of raising; the second acts as always."""

    def __init__(self):
        self.raised = False

    def __call__(self) -> bool:
        return self.raised

    def __enter__(self):
        self._previous = {number: signal.signal(number, self._set) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _set(self, number, frame):
        self.raised = True
        signal.signal(number, self._previous[number])


def simulate(directory, molecule: Molecule, settings: Settings, steps: int, *, equilibration_steps: int = 5000,
             progress: bool = True, stop: Callable[[], bool] = lambda: False, label: str = "",
             checkpoint_seconds: float = 10.0, at_end: Callable[[StoredRun], None] = lambda run: None) -> bool:
    """Run, or go on with, dynamics of a molecule in a folder until it holds ``steps`` steps, and plot it.

    ``at_end`` is called with the run before it closes. Returns whether all steps are there; they are not when ``stop`` returned True. Raises SimulationError, see StoredRun.
    """
    description = {**molecule.description, "equilibrationSteps": equilibration_steps}

    def start():
        return thermal_start(molecule, temperature=settings.temperature, seed=settings.seed, steps=equilibration_steps)

    with StoredRun(directory, molecule.topology, molecule.system, settings, description=description, start=start) as run:
        complete = run.advance(steps, progress=progress, stop=stop, label=label, checkpoint_seconds=checkpoint_seconds)
        plot(run)
        at_end(run)
        return complete


def describe_support_exits(run: StoredRun) -> str:
    """How often the present session of a run was outside of the inner support, as a sentence."""
    exits, steps = support_exits(run.simulation.context), run.step - run.first_step
    if not exits:
        return f"within the inner support of the model in all of these {steps:,} steps"
    return (f"outside of the inner support of the model in {exits:,} evaluations of these {steps:,} steps: there the potential is "
            "not that of the flow, but continued (docs/theory.md)")


def plot(run: StoredRun):
    """Write energies.png and, for a molecule with backbone torsions, ramachandran.png into the folder of a run.

    A run that is shorter than its report intervals leaves nothing to plot, and nothing is written.
    """
    if run.step >= run.settings.report_interval:
        plots.save(plots.energies({run.settings.ensemble.upper(): run.energies()}), run.directory / "energies.png")
    torsions = analysis.backbone_torsions(run.topology)
    if torsions and run.step >= run.settings.trajectory_interval:
        positions = run.positions()
        phi, psi = (np.concatenate([analysis.torsion_angles(positions, pair[i]) for pair in torsions]) for i in (0, 1))
        plots.save(plots.ramachandran({run.directory.name: (phi, psi)}), run.directory / "ramachandran.png")


def summary(run_directory, system: openmm.System, settings: Settings) -> str:
    """Mean temperature and energies of a run, and how well it conserves its energy, in a few lines."""
    energies = read_energies(Path(run_directory) / ENERGIES)
    lines = [f"{len(energies.step)} samples: temperature {energies.temperature.mean():.1f} K, "
             f"potential energy {energies.potential.mean():.3f} kJ/mol, kinetic energy {energies.kinetic.mean():.3f} kJ/mol"]
    if settings.ensemble == "nve" and len(energies.time) >= 3:
        count = analysis.degrees_of_freedom(system)
        conservation = analysis.energy_conservation(energies.time, energies.total, count)
        lines.append(f"total energy per degree of freedom ({count}): fluctuation {conservation.fluctuation:.5f} kJ/mol, "
                     f"drift {conservation.drift:.2e} kJ/mol/ps")
    return "\n".join(lines)
