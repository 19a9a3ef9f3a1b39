# SPDX-License-Identifier: MIT
"""The sampling direction from Python, and what it says about the shipped model."""
import numpy as np
import openmm
import pytest
from openmmflow import FlowModel, FlowModelError, dataset, shipped


@pytest.fixture(scope="module")
def model():
    return FlowModel.load(shipped.MODEL)


def test_samples_have_the_log_prob_that_comes_with_them(model):
    positions, log_prob = model.sample(2000, seed=3)
    assert positions.shape == (2000, model.num_particles, 3)
    assert np.abs(model.log_prob(positions) - log_prob).max() < 1e-8
    np.testing.assert_allclose(positions.mean(axis=1), 0, atol=1e-12)


def test_round_trip(model):
    positions, log_prob = model.sample(1000, seed=5)
    again, log_prob_again = model.to_positions(model.to_latent(positions))

    def distances(x):
        return np.linalg.norm(x[:, :, None] - x[:, None], axis=-1)

    error = np.abs(distances(positions) - distances(again)).max(axis=(1, 2))
    print(f"round trip of the shipped model: 99.9th percentile {np.quantile(error, 0.999):.1e} nm")
    assert np.quantile(error, 0.999) < 1e-10
    assert np.abs(log_prob - log_prob_again).max() < 1e-8
    one, one_log_prob = model.to_positions(model.to_latent(positions[7]))
    assert one.shape == positions[7].shape and abs(one_log_prob - log_prob[7]) < 1e-8


def test_orientation_is_uniform(model):
    positions, _ = model.sample(4000, seed=9)
    axis = positions[:, 1] - positions[:, 0]
    axis /= np.linalg.norm(axis, axis=1)[:, None]
    # Means of cosines have standard error 1/sqrt(3 N), of their squares 1/3 with sqrt(4/45/N).
    assert np.abs(axis.mean(axis=0)).max() < 5 / np.sqrt(3 * 4000)
    assert np.abs((axis**2).mean(axis=0) - 1 / 3).max() < 5 * np.sqrt(4 / 45 / 4000)


def test_seeds(model):
    few, many = model.sample(5, seed=2)[0], model.sample(100, seed=2)[0]
    np.testing.assert_allclose(few, many[:5], atol=1e-9)
    assert np.abs(model.sample(5, seed=4)[0] - few).max() > 1e-3


def test_samples_go_on_where_others_ended(model):
    whole, pieces = model.sample(300, seed=8, gradient=True), [model.sample(100, seed=8, first=first, gradient=True) for first in (0, 100, 200)]
    for index, array in enumerate(whole):
        np.testing.assert_allclose(np.concatenate([piece[index] for piece in pieces]), array, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(whole[2], model.log_prob_and_gradient(whole[0])[1], rtol=1e-9)


def test_bad_input(model):
    with pytest.raises(FlowModelError, match=r"latents have shape \(7,\), expected \(batch, 60\)"):
        model.to_positions(np.zeros(7))
    with pytest.raises(ValueError, match="count >= 0"):
        model.sample(-1)
    with pytest.raises(ValueError, match="a first index >= 0"):
        model.sample(1, first=-1)
    with pytest.raises(FlowModelError, match="not a finite number"):
        model.to_positions(np.full(60, np.nan))


def test_effective_sample_size(model):
    """Kish effective sample size of samples reweighted to the force field, nothing clipped."""
    count = 2000
    positions, log_prob = model.sample(count, seed=1)
    system = dataset.implicit_solvent_system(dataset.alanine_dipeptide().topology)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    energies = np.empty(count)
    for i, x in enumerate(positions):
        context.setPositions(x)
        energies[i] = context.getState(energy=True).getPotentialEnergy()._value
    log_weights = -energies / (dataset.MOLAR_GAS_CONSTANT * model.temperature) - log_prob
    weights = np.exp(log_weights - log_weights.max())
    efficiency = weights.sum() ** 2 / (weights**2).sum() / count
    print(f"Kish effective sample size: {100 * efficiency:.1f} % of {count}; largest weight {weights.max() / weights.sum():.3f}; "
          f"std of log weights {log_weights.std():.2f}")
    assert efficiency > 0.02
