# SPDX-License-Identifier: MIT
"""From samples of a flow to the Boltzmann distribution of a force field: weights, what they are worth, and what they give.

Samples x of the density p get the weights w = exp(-U(x)/k_BT) / p(x), at any temperature T. ln p is in measure "cartesian": a
density per nm³ of the molecule's origin, uniform in orientation. Then the mean of w is an unbiased estimate of

    Z = ∫ exp(-U/k_BT) dx  (nm to the power of 3·particles - 3, over all conformations and orientations, per nm³ of origin),

and -ln Z is what is called the free energy here, in k_BT. Nothing is clipped. Formulas: Owen, *Monte Carlo theory, methods and
examples* (2013), chapter 9; Kish, *Survey Sampling* (1965); Bennett, J. Comput. Phys. 22, 245 (1976); Vehtari et al., *Pareto
smoothed importance sampling*, J. Mach. Learn. Res. 25, 72 (2024); Zhang and Stephens, Technometrics 51, 316 (2009).
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logsumexp

from .analysis import effective_samples
from .dataset import MOLAR_GAS_CONSTANT

TRUSTED_PARETO_K = 0.7
"""Above it, means over weights converge so slowly that they, and their errors, cannot be trusted."""


def log_weights(log_prob, energies, temperature: float) -> np.ndarray:
    """Logarithms of the weights, (samples,).

    Parameters
    ----------
    log_prob : (samples,), ln p in measure "cartesian".
    energies : (samples,), kJ/mol; where they are not finite, as for overlapping atoms, the weight is 0.
    temperature : of the distribution to come to, K.
    """
    log_prob, energies = np.asarray(log_prob, dtype=float), np.asarray(energies, dtype=float)
    if log_prob.shape != energies.shape or log_prob.ndim != 1:
        raise ValueError(f"ln p and energies must have one value for each sample, got shapes {log_prob.shape} and {energies.shape}")
    if not temperature > 0:
        raise ValueError(f"the temperature must be positive, got {temperature}")
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(energies), -energies / (MOLAR_GAS_CONSTANT * temperature) - log_prob, -np.inf)


@dataclass(frozen=True)
class Quality:
    """What weights are worth."""

    samples: int
    effective_samples: float
    """Kish's (Σw)²/Σw²."""
    largest_share: float
    """Of the largest weight in the sum of all."""
    pareto_k: float
    """Shape of the tail of the weights; they have 1/k moments. Means are to be trusted up to 0.7."""
    free_energy: float
    """-ln Z, k_BT."""
    free_energy_error: float
    """Its standard error, k_BT."""

    def __str__(self):
        trusted = "" if self.pareto_k <= TRUSTED_PARETO_K else ": too heavy a tail, errors cannot be trusted"
        return (f"effective samples {self.effective_samples:,.1f} of {self.samples:,} ({100 * self.effective_samples / self.samples:.2f} %), "
                f"largest weight {100 * self.largest_share:.2f} % of the sum, Pareto k {self.pareto_k:.2f}{trusted}\n"
                f"free energy -ln Z = {self.free_energy:.3f} ± {self.free_energy_error:.3f} k_BT")


def quality(log_weights) -> Quality:
    """What weights are worth. Raises ValueError when all are 0 or one is not a number."""
    weights, offset = _relative(log_weights)
    effective = effective_samples(weights)
    return Quality(len(weights), effective, float(weights.max() / weights.sum()), pareto_k(log_weights),
                   float(-offset - np.log(weights.mean())), float(np.sqrt(max(1 / effective - 1 / len(weights), 0.0))))


def expectation(log_weights, values) -> tuple[np.ndarray, np.ndarray]:
    """Mean of observables in the distribution that the samples are reweighted to, and its standard error.

    Parameters
    ----------
    log_weights : (samples,).
    values : (samples,) or (samples, ...) of one or more observables; where the weight is 0 they may be anything.

    Returns
    -------
    mean, error : of shape values.shape[1:].

    Raises ValueError for shapes that do not fit, and when all weights are 0.
    """
    weights, _ = _relative(log_weights)
    values = np.asarray(values, dtype=float)
    if values.shape[:1] != weights.shape:
        raise ValueError(f"expected values for {len(weights)} samples, got shape {values.shape}")
    used = weights > 0
    share = weights[used] / weights[used].sum()
    mean = np.tensordot(share, values[used], axes=1)
    variance = np.tensordot(share ** 2, (values[used] - mean) ** 2, axes=1)
    return mean, np.sqrt(variance)


def free_energy_difference(log_weights, in_state) -> tuple[float, float]:
    """Free energy of a state less that of everything else, -ln(P/(1-P)), and its standard error, both in k_BT.

    ``in_state`` (samples,) says which samples are in it. Raises ValueError when either side has no weight.
    """
    probability, error = expectation(log_weights, np.asarray(in_state, dtype=bool))
    if not 0 < probability < 1:
        raise ValueError("a free energy difference needs samples in the state and outside of it")
    return float(np.log((1 - probability) / probability)), float(error / (probability * (1 - probability)))


def pareto_k(log_weights) -> float:
    """Shape k of the generalized Pareto distribution that the largest min(n/5, 3 sqrt(n)) weights follow; nan with fewer than
    25 samples.

    The estimate of Zhang and Stephens with the weak prior of Vehtari et al., which pulls it towards 0.5 as if by ten further
    values.
    """
    weights, _ = _relative(log_weights)
    count = int(min(0.2 * len(weights), 3 * np.sqrt(len(weights))))
    if count < 5:
        return float("nan")
    tail = np.sort(weights)[-count - 1:]
    excess = tail[1:] - tail[0]
    excess = excess[excess > 0]
    if len(excess) < 5:
        return float("-inf")    # equal weights: no tail at all
    n = len(excess)
    grid = np.arange(1, 31 + int(np.sqrt(n))) - 0.5
    theta = 1 / excess[-1] + (1 - np.sqrt((len(grid)) / grid)) / (3 * excess[int(n / 4 + 0.5) - 1])
    k = np.log1p(-theta[:, None] * excess).mean(axis=1)
    log_likelihood = n * (np.log(-theta / k) - k - 1)
    posterior = np.exp(log_likelihood - logsumexp(log_likelihood))
    estimate = np.log1p(-(posterior @ theta) * excess).mean()
    return float((n * estimate + 10 * 0.5) / (n + 10))


@dataclass(frozen=True)
class DataComparison:
    """A flow next to equilibrium data of a force field, both at one temperature."""

    free_energy: float
    """-ln Z by Bennett's acceptance ratio between samples of the flow and data, k_BT."""
    free_energy_error: float
    divergence: float
    """Kullback-Leibler divergence of the flow from the data, KL(data, flow) = <-ln p - U/k_BT>_data - ln Z, k_BT; at least
    0.
    """
    divergence_error: float
    overlap: float
    """Of both in the space of ln p + U/k_BT: 2 Σ of the acceptance's means, 0 to 1."""


def compare_with_data(flow_log_prob, flow_energies, data_log_prob, data_energies, temperature: float, *, block: int = 1000) -> DataComparison:
    """Bennett's acceptance ratio between samples of a flow and data, and the divergence that follows.

    pymbar's BAR, which this agrees with, takes all data as independent; here standard errors come from blocks of consecutive
    frames, and that of the divergence counts what it shares with the free energy.

    Parameters
    ----------
    flow_log_prob, flow_energies : (samples,) of independent samples; ln p in measure "cartesian", kJ/mol.
    data_log_prob, data_energies : lists of arrays (frames,), one for each trajectory, in order of time.
    temperature : of the data, K.
    block : length in frames of blocks that are nearly independent.
    """
    thermal = MOLAR_GAS_CONSTANT * temperature
    flow = -log_weights(flow_log_prob, flow_energies, temperature)                       # U/k_BT + ln p
    trajectories = [np.asarray(u) / thermal + np.asarray(p) for u, p in zip(data_energies, data_log_prob, strict=True)]
    data = np.concatenate(trajectories)
    if len(flow) < 2 or len(data) < 2 or np.isnan(flow).any() or np.isnan(data).any():
        raise ValueError("a comparison needs at least two samples and two frames, and numbers")
    offset = np.log(len(flow) / len(data))

    def unbalanced(f):
        return expit(f - offset - flow).sum() - expit(offset + data - f).sum()

    finite = np.concatenate([flow[np.isfinite(flow)], data[np.isfinite(data)]])
    f = brentq(unbalanced, finite.min() - abs(offset) - 50, finite.max() + abs(offset) + 50, xtol=1e-12)
    accept_flow, accept_data = expit(f - offset - flow), expit(offset + data - f)
    slope = (accept_flow * (1 - accept_flow)).sum() + (accept_data * (1 - accept_data)).sum()
    # What each sample and frame contributes to f - E(f), to first order.
    of_flow = -(accept_flow - accept_flow.mean()) / slope
    of_data = (accept_data - accept_data.mean()) / slope
    own = -(data - data.mean()) / len(data) if np.isfinite(data).all() else np.full(len(data), np.inf)
    lengths = [len(t) for t in trajectories]
    from_flow = len(flow) * of_flow.var()
    return DataComparison(
        free_energy=float(f), free_energy_error=float(np.sqrt(from_flow + _blocked(of_data, lengths, block))),
        divergence=float(f - data.mean()), divergence_error=float(np.sqrt(from_flow + _blocked(of_data + own, lengths, block))),
        overlap=float(accept_flow.mean() + accept_data.mean()))


def _blocked(contributions, lengths, block: int) -> float:
    """Variance of the sum of correlated contributions, from sums over blocks of consecutive ones; trajectories are
    independent.
    """
    sums = []
    start = 0
    for length in lengths:
        edges = np.linspace(0, length, max(1, round(length / block)) + 1).astype(int)
        sums += [contributions[start + a:start + b].sum() for a, b in zip(edges[:-1], edges[1:])]
        start += length
    sums = np.array(sums)
    if len(sums) < 2:
        raise ValueError(f"errors need at least two blocks of data; use a block shorter than {block} frames")
    return float(((sums - sums.mean()) ** 2).sum() * len(sums) / (len(sums) - 1))


def _relative(log_weights) -> tuple[np.ndarray, float]:
    """Weights, the largest being 1, and the logarithm of what they were divided by."""
    values = np.asarray(log_weights, dtype=float)
    if values.ndim != 1 or len(values) == 0 or np.isnan(values).any():
        raise ValueError(f"expected a log weight for each sample, all of them numbers, got an array of shape {values.shape}")
    largest = values.max()
    if not np.isfinite(largest):
        raise ValueError("all weights are 0: no sample has a finite energy")
    return np.exp(values - largest), float(largest)
