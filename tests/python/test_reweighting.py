# SPDX-License-Identifier: MIT
"""Weights and what follows from them, against distributions whose answers are known."""
import numpy as np
import pytest

from openmmflow import reweighting
from openmmflow.dataset import MOLAR_GAS_CONSTANT


def gaussians(random, count, *, shift=0.5, width=1.2):
    """Log weights of samples of N(0, width²) for the unnormalized target exp(-(x-shift)²/2), and the samples."""
    x = width * random.standard_normal(count)
    log_prob = -0.5 * (x / width) ** 2 - np.log(width * np.sqrt(2 * np.pi))
    return -0.5 * (x - shift) ** 2 - log_prob, x


def test_known_free_energy_and_means_with_honest_errors():
    random = np.random.default_rng(1)
    errors = []
    for _ in range(200):
        log_weights, x = gaussians(random, 2000)
        found = reweighting.quality(log_weights)
        mean, error = reweighting.expectation(log_weights, x)
        state, state_error = reweighting.free_energy_difference(log_weights, x > 0.5)
        errors.append([(found.free_energy + 0.5 * np.log(2 * np.pi)) / found.free_energy_error, (mean - 0.5) / error, state / state_error])
    errors = np.array(errors)
    print("errors in standard errors, mean and spread:", errors.mean(axis=0).round(2), errors.std(axis=0).round(2))
    assert np.abs(errors.mean(axis=0)).max() < 4 / np.sqrt(200)
    assert np.abs(errors.std(axis=0) - 1).max() < 0.2


def test_pareto_k_of_tails_that_are_known():
    random = np.random.default_rng(2)
    for k in (0.2, 0.5, 0.9):
        # Weights u^-k have a Pareto tail of shape k.
        estimates = [reweighting.pareto_k(-k * np.log(random.random(20_000))) for _ in range(20)]
        print(f"Pareto k {k}: {np.mean(estimates):.3f} ± {np.std(estimates):.3f}")
        assert abs(np.mean(estimates) - k) < 0.05
    assert reweighting.pareto_k(np.zeros(1000)) == -np.inf
    assert np.isnan(reweighting.pareto_k(np.zeros(10)))
    bounded = [reweighting.pareto_k(np.log(random.random(20_000))) for _ in range(5)]
    assert np.mean(bounded) < 0


def test_quality_of_equal_and_of_single_weights():
    equal = reweighting.quality(np.full(100, -3.0))
    assert equal.effective_samples == pytest.approx(100) and equal.largest_share == pytest.approx(0.01)
    assert equal.free_energy == pytest.approx(3.0) and equal.free_energy_error == 0
    single = reweighting.quality(np.r_[0.0, np.full(99, -np.inf)])
    assert single.effective_samples == pytest.approx(1) and single.largest_share == 1
    assert "effective samples 1.0 of 100" in str(single)


def two_states(random, samples, frames, correlation=0.0):
    """A flow N(0, 1.1²) and data N(0.3, 1) in one dimension: ln p and U/k_BT of both, U off by a constant."""
    def energy(x):
        return 0.5 * (x - 0.3) ** 2 + 2.0

    def log_prob(x):
        return -0.5 * (x / 1.1) ** 2 - np.log(1.1 * np.sqrt(2 * np.pi))

    flow = 1.1 * random.standard_normal(samples)
    noise = random.standard_normal(frames)
    data = np.empty(frames)
    data[0] = noise[0]
    for i in range(1, frames):
        data[i] = correlation * data[i - 1] + np.sqrt(1 - correlation ** 2) * noise[i]
    data = 0.3 + data
    return log_prob(flow), energy(flow), log_prob(data), energy(data)


def test_acceptance_ratio_agrees_with_pymbar():
    pymbar = pytest.importorskip("pymbar", reason="the other implementation")
    flow_log_prob, flow_energy, data_log_prob, data_energy = two_states(np.random.default_rng(3), 3000, 2000)
    thermal = MOLAR_GAS_CONSTANT * 300
    found = reweighting.compare_with_data(flow_log_prob, thermal * flow_energy, [data_log_prob], [thermal * data_energy], 300, block=1)
    other = pymbar.bar(flow_energy + flow_log_prob, -(data_energy + data_log_prob))
    assert found.free_energy == pytest.approx(other["Delta_f"], abs=1e-6)
    assert found.free_energy_error == pytest.approx(other["dDelta_f"], rel=0.05)


def test_divergence_and_errors_of_correlated_data():
    random = np.random.default_rng(4)
    # KL(N(0.3,1), N(0,1.1²))
    expected = np.log(1.1) + (1 + 0.3 ** 2) / (2 * 1.1 ** 2) - 0.5
    z = []
    for _ in range(60):
        p, u, q, v = two_states(random, 2000, 8000, correlation=0.9)
        thermal = MOLAR_GAS_CONSTANT * 300
        halves = [q[:4000], q[4000:]], [thermal * v[:4000], thermal * v[4000:]]
        found = reweighting.compare_with_data(p, thermal * u, *halves, 300, block=200)
        z.append([(found.free_energy - (2.0 - 0.5 * np.log(2 * np.pi))) / found.free_energy_error,
                  (found.divergence - expected) / found.divergence_error])
    z = np.array(z)
    print("free energy and divergence, errors in standard errors: mean", z.mean(axis=0).round(2), "spread", z.std(axis=0).round(2))
    assert np.abs(z.mean(axis=0)).max() < 4 / np.sqrt(60)
    assert ((z.std(axis=0) > 0.7) & (z.std(axis=0) < 1.35)).all()


def test_other_temperatures():
    energies = np.array([1.0, np.inf, np.nan, 4.0])
    weights = reweighting.log_weights(np.zeros(4), energies, 450.0)
    np.testing.assert_allclose(weights[[0, 3]], -energies[[0, 3]] / (MOLAR_GAS_CONSTANT * 450))
    assert (weights[1:3] == -np.inf).all()


def test_bad_input():
    with pytest.raises(ValueError, match="one value for each sample"):
        reweighting.log_weights(np.zeros(3), np.zeros(4), 300)
    with pytest.raises(ValueError, match="all weights are 0"):
        reweighting.quality(np.full(3, -np.inf))
    with pytest.raises(ValueError, match="all of them numbers"):
        reweighting.quality(np.array([0.0, np.nan]))
    with pytest.raises(ValueError, match="values for 2 samples"):
        reweighting.expectation(np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="in the state and outside"):
        reweighting.free_energy_difference(np.zeros(5), np.ones(5, bool))
    with pytest.raises(ValueError, match="two blocks"):
        reweighting.compare_with_data(np.zeros(5), np.zeros(5), [np.zeros(5)], [np.zeros(5)], 300)
