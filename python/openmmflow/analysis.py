# SPDX-License-Identifier: MIT
"""Figures that say how good a potential and the dynamics in it are. docs/theory.md, "How figures are defined", has the definitions.

Arrays of positions have shape (frames, particles, 3) and are in nm, times in ps, energies in kJ/mol unless k_BT is said.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import openmm

ALPHA_L_EDGES = np.radians([0.0, 140.0])
"""The φ-basin of positive φ of alanine dipeptide lies between these barriers, in radian; all else is the other basin."""


# --- Energy conservation -----------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class EnergyConservation:
    """How well a trajectory conserves its energy, per degree of freedom."""

    fluctuation: float
    """Standard deviation of the total energy about its linear trend, kJ/mol."""
    slope: float
    """That of this trend, kJ/mol/ps."""

    @property
    def drift(self) -> float:
        """Its size, kJ/mol/ps. Chance makes it larger the shorter a run is; the mean slope of many runs has no such part."""
        return abs(self.slope)


def degrees_of_freedom(system: openmm.System) -> int:
    """3 for each particle that has mass, less one for each constraint: 66 for alanine dipeptide without constraints.

    The centre of mass counts, as its motion is part of the total energy that a constant-energy run conserves.
    """
    massive = sum(system.getParticleMass(i)._value > 0 for i in range(system.getNumParticles()))
    return 3 * massive - system.getNumConstraints()


def energy_conservation(time, total_energy, num_degrees_of_freedom: int) -> EnergyConservation:
    """Fluctuation and drift of ``total_energy`` (samples,), kJ/mol, at ``time`` (samples,), ps.

    The total energy must belong to one instant. OpenMM's leapfrog ``VerletIntegrator`` stores velocities half a step behind the
    positions, but the kinetic energy of a ``State``, and so that of ``StateDataReporter``, is computed from velocities that were
    brought forward by half a step: it is the one to use.

    Raises ValueError with fewer than three samples, or when a value is not finite.
    """
    time, total_energy = np.asarray(time, dtype=float), np.asarray(total_energy, dtype=float)
    if time.shape != total_energy.shape or time.ndim != 1 or len(time) < 3:
        raise ValueError("energy conservation needs equally many times and energies, at least three, "
                         f"got shapes {time.shape} and {total_energy.shape}")
    if not (np.all(np.isfinite(time)) and np.all(np.isfinite(total_energy))):
        raise ValueError("the total energy is not finite everywhere: the run has exploded")
    centred = time - time.mean()
    slope = centred @ total_energy / (centred @ centred)
    residual = total_energy - total_energy.mean() - slope * centred
    return EnergyConservation(fluctuation=float(residual.std() / num_degrees_of_freedom),
                              slope=float(slope / num_degrees_of_freedom))


def step_size_exponent(step_sizes, fluctuations, *, resamples=2000, seed=0) -> tuple[float, float]:
    """The exponent n in fluctuation ~ step size^n, with its standard error.

    Parameters
    ----------
    step_sizes : (sizes,)
    fluctuations : (starts, sizes), one row for each start; the fit is to the mean over starts, as the definition of the
        fluctuation has it, and the error comes from resampling starts.
    """
    log_steps = np.log(np.asarray(step_sizes, dtype=float))
    fluctuations = np.asarray(fluctuations, dtype=float)
    if fluctuations.ndim != 2 or fluctuations.shape[1] != len(log_steps) or len(log_steps) < 2:
        raise ValueError(f"expected fluctuations of shape (starts, {len(log_steps)}) and at least two step sizes, "
                         f"got {fluctuations.shape}")

    def fit(rows):
        return np.polyfit(log_steps, np.log(rows.mean(axis=0)), 1)[0]

    random = np.random.default_rng(seed)
    starts = len(fluctuations)
    samples = [fit(fluctuations[random.integers(starts, size=starts)]) for _ in range(resamples)]
    return float(fit(fluctuations)), float(np.std(samples))


# --- Conformations -----------------------------------------------------------------------------------------------------------

def torsion_angles(positions, atoms) -> np.ndarray:
    """Torsions of the four particles ``atoms`` with the IUPAC sign, radian in (-π, π], for ``positions`` (..., particles, 3)."""
    i, j, k, l = (np.asarray(positions)[..., atom, :] for atom in atoms)
    axis = k - j
    axis = axis / np.linalg.norm(axis, axis=-1, keepdims=True)
    first, last = i - j, l - k
    first = first - np.sum(first * axis, axis=-1, keepdims=True) * axis
    last = last - np.sum(last * axis, axis=-1, keepdims=True) * axis
    return np.arctan2(np.sum(np.cross(axis, first) * last, axis=-1), np.sum(first * last, axis=-1))


def backbone_torsions(topology) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The particles of (φ, ψ) for every residue of an ``openmm.app.Topology`` that has both, caps included as neighbours."""
    found = []
    for chain in topology.chains():
        residues = [{atom.name: atom.index for atom in residue.atoms()} for residue in chain.residues()]
        for before, here, after in zip(residues, residues[1:], residues[2:]):
            if "C" in before and {"N", "CA", "C"} <= here.keys() and "N" in after:
                backbone = (before["C"], here["N"], here["CA"], here["C"], after["N"])
                found.append((backbone[:4], backbone[1:]))
    return found


def in_alpha_l(phi) -> np.ndarray:
    """Whether each φ (radian) is in the φ-basin of positive φ."""
    return (np.asarray(phi) > ALPHA_L_EDGES[0]) & (np.asarray(phi) < ALPHA_L_EDGES[1])


# --- Populations -------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class BasinFreeEnergy:
    """Populations of two states."""

    population: float
    """Of the basin."""
    free_energy: float
    """Of the basin less that of everything else, k_BT: -ln(p/(1-p))."""
    error: float
    """Standard error of ``free_energy``, k_BT, by block bootstrap."""
    effective_samples: float
    """Kish's effective sample size, (Σw)²/Σw²: the number of frames if no weights are given."""


def basin_free_energy(in_basin, log_weights=None, *, block: int = 1000) -> BasinFreeEnergy:
    """Free energy of being in a basin.

    Parameters
    ----------
    in_basin : list of bool arrays (frames,) in order of time, one for each independent trajectory.
    log_weights : list of arrays likewise, logarithms of the frames' weights up to a constant, to reweight to another density.
    block : length in frames of the blocks that are resampled for the error: longer than the correlation time.

    Raises ValueError when either state was never visited.
    """
    weights = _weights(in_basin, log_weights)
    columns = [np.stack([w * s, w * ~s], axis=1) for s, w in zip(in_basin, weights)]
    inside, outside = np.concatenate(columns).sum(axis=0)
    if not (inside > 0 and outside > 0):
        raise ValueError("a free energy difference needs frames in the basin and outside of it")
    samples = block_bootstrap(columns, lambda sums: np.log(sums[1] / sums[0]), block=block)
    every = np.concatenate(weights)
    return BasinFreeEnergy(population=float(inside / (inside + outside)), free_energy=float(np.log(outside / inside)),
                           error=float(samples.std()), effective_samples=effective_samples(every))


def basin_shift(in_basin, log_weights, *, block: int = 1000) -> tuple[float, float]:
    """By how much reweighting changes the free energy of a basin, k_BT, and the standard error of that.

    Arguments as for :func:`basin_free_energy`. Both free energies come from the same frames, so what their number in the basin
    is uncertain by cancels.
    """
    weights = _weights(in_basin, log_weights)
    columns = [np.stack([w * s, w * ~s, s, ~s], axis=1) for s, w in zip(in_basin, weights)]

    def shift(sums):
        return np.log(sums[1] / sums[0]) - np.log(sums[3] / sums[2])

    samples = block_bootstrap(columns, shift, block=block)
    return float(shift(np.concatenate(columns).sum(axis=0))), float(samples.std())


def block_bootstrap(columns, statistic, *, block: int, resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """Samples (resamples,) of a statistic of sums over frames, from blocks of consecutive frames drawn with replacement.

    Parameters
    ----------
    columns : list of arrays (frames, quantities), one for each independent trajectory.
    statistic : from the sums over all frames, (quantities,), to a number. Resamples where it is not finite are left out.
    block : length of the blocks in frames; a shorter trajectory is one block.
    """
    random = np.random.default_rng(seed)
    totals = np.zeros((resamples, columns[0].shape[1]))
    for values in columns:
        length = min(block, len(values))
        cumulative = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0, dtype=float)])
        sums = cumulative[length:] - cumulative[:-length]    # of every block, by its first frame
        count = max(1, round(len(values) / length))
        totals += sums[random.integers(len(sums), size=(resamples, count))].sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        samples = np.array([statistic(sums) for sums in totals])
    return samples[np.isfinite(samples)]


def mean_and_error(values, *, blocks: int = 20) -> tuple[float, float]:
    """Mean of a time series (frames,) and its standard error, from the means of that many blocks of consecutive frames."""
    means = [block.mean() for block in np.array_split(np.asarray(values, dtype=float), blocks)]
    return float(np.mean(values)), float(np.std(means, ddof=1) / np.sqrt(blocks))


def effective_samples(weights) -> float:
    """Kish's effective sample size of weights (frames,): (Σw)²/Σw²."""
    weights = np.asarray(weights)
    return float(weights.sum() ** 2 / (weights @ weights))


def _weights(in_basin, log_weights):
    """Weights of each trajectory, the largest of all being 1."""
    if log_weights is None:
        return [np.ones(len(states)) for states in in_basin]
    if [np.shape(w) for w in log_weights] != [np.shape(s) for s in in_basin]:
        raise ValueError("log_weights must have the shapes of in_basin")
    largest = max(np.max(w) for w in log_weights)
    return [np.exp(np.asarray(w) - largest) for w in log_weights]


# --- The model against its data ----------------------------------------------------------------------------------------------

def force_rmse(forces, reference) -> float:
    """Root mean square difference over frames and Cartesian components, in the unit of the arrays (frames, particles, 3)."""
    return float(np.sqrt(np.mean((np.asarray(forces) - np.asarray(reference)) ** 2)))


def log_frame_over_cartesian(positions, frame_atoms) -> np.ndarray:
    """ln p in measure "frame" less ln p in measure "cartesian" for a frame of the three particles f0, f1, f2.

    ln(d01² d12 sin a012) + ln 8π², with d01 = |f0 f1|, d12 = |f1 f2| and a012 the angle at f1; docs/theory.md, "Measures".
    """
    f0, f1, f2 = (np.asarray(positions)[..., atom, :] for atom in frame_atoms)
    first, second = f0 - f1, f2 - f1
    d01 = np.linalg.norm(first, axis=-1)
    # d01 d12 sin a012 is the length of the cross product.
    return np.log(d01 * np.linalg.norm(np.cross(first, second), axis=-1)) + np.log(8 * np.pi ** 2)


def cartesian_log_prob(model, positions, log_prob) -> np.ndarray:
    """ln p in measure "cartesian", the density of a model's samples in space, from what ``model.log_prob(positions)`` returned.

    Raises ValueError for mixed coordinates in measure "frame".
    """
    if model.measure == "cartesian":
        return np.asarray(log_prob)
    first = model.architecture["layers"][0]
    if "block" in first:
        raise ValueError("the model has mixed coordinates in measure 'frame': its density depends on where the molecule is and how it lies, "
                         "so that it is none of conformations. Import it with measure 'cartesian', or use FlowModel.sample and "
                         "FlowModel.log_prob, which know no other density")
    z_matrix = first["zMatrix"]
    last, centre, end, _ = next(row for row in z_matrix if list(row).count(-1) == 1)
    return log_prob - log_frame_over_cartesian(positions, (end, centre, last))


def in_inner_support(continued_energy, log_prob, *, tolerance=1e-9) -> np.ndarray:
    """Whether each frame is where ``FlowForce`` is exactly -ln p, from the energies of both.

    Parameters
    ----------
    continued_energy : (frames,), of ``FlowForce`` at λ = 1, k_BT of the model.
    log_prob : (frames,), ``FlowModel.log_prob`` of the same positions.
    """
    difference = np.abs(np.asarray(continued_energy) + np.asarray(log_prob))
    return difference <= tolerance * (1 + np.abs(continued_energy))
