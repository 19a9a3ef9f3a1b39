# SPDX-License-Identifier: MIT
"""The engine against an independent implementation with autograd in double precision: every layer alone, and composed."""
import numpy as np
import pytest
from openmmflow import FlowModel, model_file
from random_architecture import ACTIVATIONS, CLOSED_FORMS, DISTRIBUTIONS, EXPONENTS, HEADS, TRANSFORMERS, RandomArchitecture

torch = pytest.importorskip("torch", reason="the independent implementation is PyTorch's")

VALUE_BOUND = 1e-10       # k_BT
GRADIENT_BOUND = 1e-10    # relative
LATENT_BOUND = 1e-11


def check(drawn):
    """Compare ln p, its gradient and the latents; returns the largest errors."""
    from reference_flow import ReferenceFlow

    contents = drawn.model()
    model, reference = FlowModel.from_bytes(model_file.pack(*contents)), ReferenceFlow(*contents)
    log_prob, gradient = model.log_prob_and_gradient(drawn.positions)
    expected_log_prob, expected_gradient = reference.log_prob_and_gradient(drawn.positions)
    assert np.all(np.isfinite(expected_log_prob))
    latent = model.to_latent(drawn.positions)
    expected_latent = reference.to_latent(torch.from_numpy(drawn.positions))[0].detach().numpy()
    norms = np.linalg.norm(expected_gradient, axis=(1, 2))
    errors = (np.abs(log_prob - expected_log_prob).max(),
              (np.linalg.norm(gradient - expected_gradient, axis=(1, 2)) / norms).max(), np.abs(latent - expected_latent).max())
    assert errors[0] <= VALUE_BOUND
    assert errors[1] <= GRADIENT_BOUND
    assert errors[2] <= LATENT_BOUND
    return errors


@pytest.mark.parametrize("measure", ["cartesian", "frame"])
@pytest.mark.parametrize("particles", [3, 4, 8])
def test_internal_coordinates(measure, particles):
    check(RandomArchitecture(1, particles, measure=measure))


@pytest.mark.parametrize("measure", ["cartesian", "frame"])
@pytest.mark.parametrize("particles, block", [(3, 3), (4, 3), (8, 3), (8, 5), (6, 6)])
def test_mixed_coordinates(particles, block, measure):
    """A block of Cartesians, the rest placed from it; couplings of all of these coordinates."""
    for seed in range(4):
        check(RandomArchitecture(seed, particles, measure=measure, block=block))
        drawn = RandomArchitecture(seed, particles, measure=measure, block=block)
        drawn.add_marginals()
        drawn.add_coupling()
        check(drawn)


@pytest.mark.parametrize("kind", ["permutation", "affineNormalization", "circularShift", "logit", "logistic"])
def test_elementwise_layer(kind):
    for seed in range(4):
        drawn = RandomArchitecture(seed)
        if kind in ("permutation", "circularShift", "logit"):
            drawn.add_marginals()
        drawn.add_elementwise(kind)
        drawn.add_coupling()
        check(drawn)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_marginals(distribution):
    drawn = RandomArchitecture(2)
    drawn.add_marginals(distribution)
    check(drawn)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize("closed_form", CLOSED_FORMS)
@pytest.mark.parametrize("head", HEADS)
def test_coupling(head, closed_form, exponent, activation):
    drawn = RandomArchitecture(3)
    drawn.add_marginals()
    drawn.add_coupling(head=head, closed_form=closed_form, exponent=exponent, activation=activation)
    check(drawn)


@pytest.mark.parametrize("closed_form", CLOSED_FORMS)
@pytest.mark.parametrize("transformer", TRANSFORMERS)
def test_transformer(transformer, closed_form):
    errors = []
    for seed in range(5):
        drawn = RandomArchitecture(10 + seed)
        if transformer != "affine":    # which is of what no marginal maps to an interval
            drawn.add_marginals()
        drawn.add_coupling(transformer, closed_form=closed_form)
        assert drawn.layers[-1]["transformer"]["type"] == transformer
        errors.append(check(drawn))
    value, gradient, latent = np.max(errors, axis=0)
    print(f"\n{transformer}: |d ln p| <= {value:.1e}, gradient {gradient:.1e} relative, latents {latent:.1e}")


@pytest.mark.parametrize("networks", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("hidden_layers", [0, 1, 2, 3])
def test_conditioner(networks, hidden_layers):
    drawn = RandomArchitecture(4)
    drawn.add_marginals()
    drawn.add_coupling("smoothMixture", networks=networks, hidden_layers=hidden_layers)
    check(drawn)


def test_composed():
    """Random stacks of layers; prints the largest errors over all of them."""
    errors = []
    for seed in range(60):
        drawn = RandomArchitecture(100 + seed)
        drawn.add_marginals(all_coordinates=seed % 3 > 0)
        for _ in range(1 + seed % 5):
            drawn.add_coupling()
        errors.append(check(drawn))
    value, gradient, latent = np.max(errors, axis=0)
    print(f"\n60 random flows against autograd: |d ln p| <= {value:.1e}, gradient {gradient:.1e} relative, latents {latent:.1e}")
