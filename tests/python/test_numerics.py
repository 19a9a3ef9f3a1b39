# SPDX-License-Identifier: MIT
"""Properties that every model has, whatever its architecture and weights: hypothesis draws them; the extremes are named."""
import numpy as np
import openmm
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import openmmflow
from openmmflow import FlowModel, model_file
from openmmflow.check import Potential
from random_architecture import ACTIVATIONS, CLOSED_FORMS, DISTRIBUTIONS, EXPONENTS, HEADS, TRANSFORMERS, RandomArchitecture

MODELS = settings(max_examples=40, deadline=None, derandomize=True)

architectures = st.fixed_dictionaries({
    "seed": st.integers(0, 2**31), "particles": st.integers(4, 7), "couplings": st.integers(1, 3),
    "transformer": st.sampled_from(["smoothMixture"] * 4 + list(TRANSFORMERS)), "head": st.sampled_from(HEADS),
    "closed_form": st.sampled_from(CLOSED_FORMS), "exponent": st.sampled_from(EXPONENTS), "activation": st.sampled_from(ACTIVATIONS),
    "distribution": st.sampled_from(DISTRIBUTIONS), "dtype": st.sampled_from([np.float32, np.float64])})


def draw(seed, particles, couplings, distribution, dtype=np.float64, edit=None, transformer="smoothMixture", head=None, exponent=None,
         **coupling):
    """(model, positions inside its support) of a random architecture; ``edit`` changes architecture and tensors."""
    parts = RandomArchitecture(seed, particles)
    if transformer != "affine":    # which is of what no marginal maps to an interval
        parts.add_marginals(distribution)
    if transformer == "smoothMixture":
        coupling |= {"head": head, "exponent": exponent}
    for _ in range(couplings):
        parts.add_coupling(transformer, **coupling)
    architecture, tensors = parts.model()
    tensors = {name: tensor.astype(dtype) if ".networks." in name else tensor for name, tensor in tensors.items()}
    if edit:
        edit(architecture, tensors)
    return FlowModel.from_bytes(model_file.pack(architecture, tensors)), parts.positions


def internal_coordinates(model, positions):
    from reference_flow import ReferenceFlow

    architecture = model.architecture
    reference = ReferenceFlow(architecture, {})
    return reference._internal_coordinates(architecture["layers"][0], torch.from_numpy(positions))[0].numpy()


def distances(positions):
    return np.linalg.norm(positions[:, :, None] - positions[:, None], axis=-1)


@MODELS
@given(architectures)
def test_latents_lead_back_and_the_density_is_positive(drawn):
    model, positions = draw(**drawn)
    latent, log_prob = model.to_latent(positions, log_prob=True)
    assert np.all(np.isfinite(log_prob)), "positive everywhere in the support"
    back, log_prob_back = model.to_positions(latent)
    assert np.allclose(distances(back), distances(positions), rtol=0, atol=1e-8)
    assert np.allclose(log_prob_back, log_prob, rtol=1e-6, atol=1e-6)


@MODELS
@given(architectures, st.integers(0, 1000))
def test_each_coordinate_rises_with_its_latent(drawn, which):
    """With one coupling, a latent that it transforms moves its own coordinate alone, and upwards."""
    if drawn["transformer"] == "affine":    # latents on the real line have no ends to walk between
        drawn = {**drawn, "transformer": "smoothMixture"}
    model, positions = draw(**{**drawn, "couplings": 1, "distribution": "uniform"})
    transformed = model.architecture["layers"][-1]["transformed"]
    coordinate = transformed[which % len(transformed)]
    latent = np.repeat(model.to_latent(positions[0])[None], 200, axis=0)
    latent[:, coordinate] = np.linspace(0.001, 0.999, 200)
    found = internal_coordinates(model, model.to_positions(latent)[0])
    circular = coordinate >= 2 * model.num_particles - 3
    steps = np.diff(found[:, coordinate])
    if circular:    # it may begin elsewhere on the circle and winds around less than once
        steps = (steps + 0.5) % 1 - 0.5
        assert steps.sum() < 1
    assert np.all(steps > 0)
    others = np.delete(found, coordinate, axis=1)
    angles = np.delete(np.arange(found.shape[1]), coordinate) >= 2 * model.num_particles - 3
    moved = others - others[0]
    moved[:, angles] = (moved[:, angles] + 0.5) % 1 - 0.5
    assert np.abs(moved).max() < 1e-7


@MODELS
@given(architectures)
def test_the_gradient_is_that_of_the_density(drawn):
    model, positions = draw(**drawn)
    random = np.random.default_rng(drawn["seed"])
    x, gradient = positions[0], model.log_prob_and_gradient(positions[0])[1]
    direction = random.standard_normal(x.shape)
    direction /= np.linalg.norm(direction)
    expected, errors = np.sum(gradient * direction), []
    for h in (1e-5, 1e-6, 1e-7):
        u = model.log_prob(np.array([x + k * h * direction for k in (-2, -1, 1, 2)]))
        errors.append(abs((8 * (u[2] - u[1]) - (u[3] - u[0])) / (12 * h) - expected))
    assert min(errors) < 1e-5 * (abs(expected) + np.linalg.norm(gradient) / np.sqrt(gradient.size))


@settings(MODELS, max_examples=15)
@given(architectures)
def test_platforms_agree(drawn):
    model, positions = draw(**drawn)
    platforms = [openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())]
    platforms = [name for name in platforms if not openmmflow.why_not_supported(name) and name in ("Reference", "CPU")]
    assert platforms == ["Reference", "CPU"]
    (energies, gradients), (others, other_gradients) = (
        map(np.array, zip(*map(Potential(model, name).energy_and_gradient, positions))) for name in platforms)
    size = np.sqrt(np.mean(gradients ** 2))
    assert np.abs(others - energies).max() < 1e-3 * (1 + np.abs(energies).max() / 100)
    assert np.sqrt(np.mean((other_gradients - gradients) ** 2)) < 1e-3 * size


# --- Extremes ----------------------------------------------------------------------------------------------------------------

def scale_weights(factor):
    def edit(architecture, tensors):
        for name in tensors:
            if ".networks." in name:
                tensors[name] = tensors[name] * tensors[name].dtype.type(factor)
    return edit


def steep(architecture, tensors):
    """As steep as the format allows, with the smallest floor that matters."""
    for layer in architecture["layers"]:
        if layer["type"] == "coupling":
            layer["transformer"].update(logSteepnessBound=10.0, alphaRange=100.0, minimumFloor=1e-6)


def centres_at_the_seam(architecture, tensors):
    """Networks give 0 but for the centres of circular components, of which one lies exactly at 0."""
    for index, layer in enumerate(architecture["layers"]):
        if layer["type"] == "coupling":
            components = layer["transformer"]["components"]
            for name in tensors:
                if name.startswith(f"layers.{index}.networks."):
                    tensors[name] = np.zeros_like(tensors[name])
                    if name.endswith(".bias"):
                        tensors[name][:] = -0.5 / components


EXTREMES = {"weights of 1e6": scale_weights(1e6), "weights of 1e-6": scale_weights(1e-6), "denormal weights": scale_weights(1e-40),
            "steep components": steep, "centres at the seam": centres_at_the_seam}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("extreme", EXTREMES)
def test_extremes_are_finite_and_invertible(extreme, head, dtype):
    worst = 0
    for seed, closed_form in enumerate(CLOSED_FORMS):
        model, positions = draw(seed, 5, 2, "truncatedNormal", dtype, EXTREMES[extreme], head=head, closed_form=closed_form)
        latent, log_prob = model.to_latent(positions, log_prob=True)
        assert np.all(np.isfinite(log_prob)) and np.all(np.isfinite(latent))
        assert np.all(np.isfinite(model.log_prob_and_gradient(positions)[1]))
        back, _ = model.to_positions(latent)
        worst = max(worst, np.abs(distances(back) - distances(positions)).max())
        for platform in ("Reference", "CPU"):
            potential = Potential(model, platform)
            for x in (*positions, np.random.default_rng(seed).uniform(0, 0.5, (5, 3))):
                energy, gradient = potential.energy_and_gradient(x)
                assert np.isfinite(energy) and np.all(np.isfinite(gradient))
    print(f"{extreme}: largest difference of a distance after latents and back {worst:.1e} nm")
    # Layer by layer, weights of 1e6 blow the last bit of a condition up to anything: no inverse can find back.
    assert worst < 1e-7 or extreme == "weights of 1e6"
