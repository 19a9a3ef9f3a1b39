# SPDX-License-Identifier: MIT
"""Conservation of energy on the CPU platform, next to Reference from the same starts."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import openmm
from openmm import unit
from tqdm import tqdm

from .. import analysis
from . import models, systems

STEPS_PER_SAMPLE = 5
LARGEST_DIFFERENCE = 0.05
"""Of the ratio of fluctuations from 1."""


@dataclass(frozen=True)
class Conservation:
    """Means over starts on one platform, per degree of freedom."""

    fluctuation: float
    """kJ/mol"""
    drift: float
    """kJ/mol/ps"""
    fluctuation_error: float
    """Standard error of the mean fluctuation, kJ/mol; NaN for one start."""


@dataclass(frozen=True)
class Comparison:
    """Fluctuations on a platform over those on Reference from the same starts."""

    ratio: float
    error: float
    """Standard error of the ratio of means, from the differences of each start; NaN for one start."""
    verdict: str


def measure(model, *, starts: int, picoseconds: float, threads: int = 1,
            progress: bool = True) -> tuple[dict[str, Conservation], Comparison]:
    """NVE dynamics, 1 fs, of one molecule on CPU and Reference from the same positions and velocities at 300 K.

    Trajectories on the two platforms part within some picoseconds, by rounding alone. Many starts of a few picoseconds therefore tell
    far more about a difference of fluctuations than few long runs do: what differs from start to start is common to both platforms.

    Parameters
    ----------
    model : a path or a FlowModel.
    starts : frames of Langevin dynamics in the model's own potential, 1 ps apart.
    """
    system = systems.flow_system(model)
    degrees = analysis.degrees_of_freedom(system)
    phase_space = equilibrated(system, starts)
    values = {platform: [] for platform in ("CPU", "Reference")}
    for positions, velocities in tqdm(phase_space, desc="NVE", unit="start", disable=not progress):
        for platform, figures in values.items():
            figures.append(_energy_conservation(system, platform, positions, velocities, picoseconds, threads, degrees))
    fluctuations = {platform: np.array([figure.fluctuation for figure in figures]) for platform, figures in values.items()}
    return {platform: Conservation(
        fluctuation=float(fluctuations[platform].mean()), drift=float(np.mean([figure.drift for figure in figures])),
        fluctuation_error=_standard_error(fluctuations[platform])) for platform, figures in values.items()
    }, compare(fluctuations["CPU"], fluctuations["Reference"])


def compare(values: np.ndarray, reference: np.ndarray, platform: str = "CPU", largest_difference: float = LARGEST_DIFFERENCE) -> Comparison:
    """The ratio of the means of paired fluctuations (starts), and whether it is 1 within a difference at two standard errors."""
    ratio = float(values.mean() / reference.mean())
    # The delta method for a ratio of means of pairs.
    error = _standard_error(values - ratio * reference) / float(reference.mean())
    difference = abs(ratio - 1)
    if difference + 2 * error <= largest_difference:
        verdict = "met"
    elif difference - 2 * error > largest_difference:
        verdict = "NOT met"
    else:
        verdict = "not settled by this many starts"
    return Comparison(ratio, error, f"Fluctuation on {platform} over that on Reference: {ratio:.4f} ± {error:.4f}; "
                                    f"|ratio - 1| at most {largest_difference:g} at two standard errors: {verdict}.")


def _standard_error(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def _energy_conservation(system: openmm.System, platform: str, positions, velocities, picoseconds: float, threads: int, degrees: int):
    samples = round(1000 * picoseconds / STEPS_PER_SAMPLE)
    context = systems.context(system, platform, positions, threads=threads, integrator=openmm.VerletIntegrator(0.001))
    context.setVelocities(velocities)
    times, energies = np.empty(samples), np.empty(samples)
    for sample in range(samples):
        context.getIntegrator().step(STEPS_PER_SAMPLE)
        state = context.getState(energy=True)
        times[sample] = state.getTime().value_in_unit(unit.picosecond)
        energies[sample] = (state.getPotentialEnergy() + state.getKineticEnergy()).value_in_unit(unit.kilojoule_per_mole)
    return analysis.energy_conservation(times, energies, degrees)


def equilibrated(system: openmm.System, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Positions (nm) and velocities (nm/ps) along Langevin dynamics, 5 ps after its beginning and then every picosecond."""
    integrator = openmm.LangevinMiddleIntegrator(systems.TEMPERATURE, 10.0, 0.001)
    integrator.setRandomNumberSeed(1)
    context = systems.context(system, "CPU", models.conformations(1, stride=1000), threads=1, integrator=integrator)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, 100)
    context.setVelocitiesToTemperature(systems.TEMPERATURE, 1)
    integrator.step(5000)
    frames = []
    for _ in range(count):
        state = context.getState(positions=True, velocities=True)
        frames.append((state.getPositions(asNumpy=True)._value, state.getVelocities(asNumpy=True)._value))
        integrator.step(1000)
    return frames
