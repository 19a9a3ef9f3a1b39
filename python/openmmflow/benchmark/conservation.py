# SPDX-License-Identifier: MIT
"""Conservation of energy on the CPU platform, next to Reference from the same starts."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import openmm
from openmm import unit
from tqdm import tqdm

from .. import analysis
from . import systems

STEPS_PER_SAMPLE = 5


@dataclass(frozen=True)
class Conservation:
    """Means over starts on one platform, per degree of freedom."""

    fluctuation: float
    """kJ/mol"""
    drift: float
    """kJ/mol/ps"""
    fluctuation_error: float
    """Standard error of the mean fluctuation, kJ/mol: trajectories on two platforms part within picoseconds."""


def compare(model, starts, *, picoseconds: float, threads: int = 1, progress: bool = True) -> dict[str, Conservation]:
    """NVE dynamics, 1 fs, of one molecule on CPU and Reference; each start is first brought to 300 K in the model's own potential.

    Parameters
    ----------
    model : a path or a FlowModel.
    starts : (starts, particles, 3), nm.
    """
    system = systems.flow_system(model)
    degrees = analysis.degrees_of_freedom(system)
    phase_space = [_equilibrate(system, start, seed) for seed, start in enumerate(starts, start=1)]
    figures = {}
    samples = round(1000 * picoseconds / STEPS_PER_SAMPLE)
    for platform in ("CPU", "Reference"):
        values = []
        for positions, velocities in tqdm(phase_space, desc=platform, unit="start", disable=not progress):
            context = systems.context(system, platform, positions, threads=threads, integrator=openmm.VerletIntegrator(0.001))
            context.setVelocities(velocities)
            times, energies = np.empty(samples), np.empty(samples)
            for sample in range(samples):
                context.getIntegrator().step(STEPS_PER_SAMPLE)
                state = context.getState(energy=True)
                times[sample] = state.getTime().value_in_unit(unit.picosecond)
                energies[sample] = (state.getPotentialEnergy() + state.getKineticEnergy()).value_in_unit(unit.kilojoule_per_mole)
            values.append(analysis.energy_conservation(times, energies, degrees))
        fluctuations = [value.fluctuation for value in values]
        figures[platform] = Conservation(
            fluctuation=float(np.mean(fluctuations)), drift=float(np.mean([value.drift for value in values])),
            fluctuation_error=float(np.std(fluctuations, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan"))
    return figures


def _equilibrate(system: openmm.System, start, seed: int):
    """Positions (nm) and velocities (nm/ps) after 5 ps of Langevin dynamics."""
    integrator = openmm.LangevinMiddleIntegrator(systems.TEMPERATURE, 10.0, 0.001)
    integrator.setRandomNumberSeed(seed)
    context = systems.context(system, "CPU", start, threads=1, integrator=integrator)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, 100)
    context.setVelocitiesToTemperature(systems.TEMPERATURE, seed)
    integrator.step(5000)
    state = context.getState(positions=True, velocities=True)
    return state.getPositions(asNumpy=True)._value, state.getVelocities(asNumpy=True)._value
