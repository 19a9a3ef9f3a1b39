# SPDX-License-Identifier: MIT
"""Dynamics keeps a flow's distribution with measure "cartesian", and changes it by the predicted amount with measure "frame".

A short version of ``python -m openmmflow.stationarity``, with tests/data/alanine_dipeptide_small.safetensors: 50,704 weights,
trained by ``openmmflow train`` (nine minutes; its ``data`` has all settings), because the shipped model would take fifteen
times as long.
"""
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import openmm
import pytest
from scipy import stats

from openmmflow import FlowForce, FlowModel, builder, model_file, shipped, stationarity
from openmmflow.simulate import read_pdb
from openmmflow.velocities import maxwell_velocities
from random_flow import MASS

SMALL_MODEL = Path(__file__).parents[1] / "data" / "alanine_dipeptide_small.safetensors"


@pytest.fixture(scope="module")
def model():
    return FlowModel.load(SMALL_MODEL)


@pytest.mark.parametrize("measure", ["cartesian", "frame"])
def test_distribution_of_copies(tmp_path, model, measure):
    masses = [max(8.0, atom.element.mass._value) for atom in read_pdb(shipped.STRUCTURE).topology.atoms()]
    settings = stationarity.Settings(copies=600, length=1.0, step_size=0.002, friction=40.0, relaxation=0.2, interval=0.02, reference=120_000, seed=3)
    copies = stationarity.Copies(tmp_path, stationarity.with_measure(model, measure), masses, settings)
    assert copies.advance(progress=False)
    result = stationarity.figures(copies, model)
    print(stationarity.describe(result))
    assert result["end"]["tests"] == 60 + 79 + 60
    for name in ("d01", "d12"):
        bond = result["frame"][name]
        assert bond["predicted"] == pytest.approx(bond["predictedByWidth"], rel=0.1)
        if measure == "cartesian":
            assert abs(bond["sigmas"]) < 4
        else:
            assert abs(bond["shift"] - bond["predicted"]) < 4 * bond["error"]
    if measure == "cartesian":
        assert result["end"]["stationary"] and result["timeMeans"]["correctedP"] > stationarity.SIGNIFICANCE
    else:
        # So few copies show it in the mean over time alone; strong friction gives each more independent times.
        assert result["frame"]["d01"]["sigmas"] > 2.5
    assert result["end"]["outsideOfSupport"] == 0


def test_committed_figures():
    """What the long run showed: see docs/sampling.md."""
    figures = json.loads((Path(__file__).parents[2] / "docs" / "sampling" / "stationarity.json").read_text())
    small = FlowModel.load(SMALL_MODEL)
    for measure, result in figures.items():
        print(stationarity.describe(result))
        assert result["model"] == stationarity.with_measure(small, measure).checksum
    cartesian, frame = figures["cartesian"], figures["frame"]
    assert cartesian["settings"]["copies"] >= 20_000 and cartesian["settings"]["length"] >= 5.0
    assert cartesian["end"]["stationary"] and cartesian["timeMeans"]["correctedP"] > stationarity.SIGNIFICANCE
    assert frame["timeMeans"]["correctedP"] < 1e-6
    for name in ("d01", "d12"):
        bond = frame["frame"][name]
        assert bond["sigmas"] >= 5 and abs(bond["shift"] - bond["predicted"]) < 4 * bond["error"]


def test_an_interrupted_run_goes_on(tmp_path, small_model):
    settings = stationarity.Settings(copies=20, length=0.1, step_size=0.001, relaxation=0.02, interval=0.01, reference=100, seed=3)
    whole = stationarity.Copies(tmp_path / "whole", small_model, [MASS] * 6, settings)
    assert whole.advance(progress=False)
    calls = []
    first = stationarity.Copies(tmp_path / "pieces", small_model, [MASS] * 6, settings)
    assert not first.advance(progress=False, stop=lambda: calls.append(0) or len(calls) > 4)
    assert first.intervals == 4
    second = stationarity.Copies(tmp_path / "pieces", small_model, [MASS] * 6, settings)
    assert second.intervals == 4 and second.advance(progress=False)

    assert second.time_means().shape == whole.time_means().shape == (20, 12)
    np.testing.assert_array_equal(second.time_means(), whole.time_means())
    with pytest.raises(ValueError, match="other settings"):
        stationarity.Copies(tmp_path / "pieces", small_model, [MASS] * 6, replace(settings, seed=4))


def test_comparison_sees_what_it_should(model):
    """Samples of the flow pass; a bond that is longer by a seventh of its spread, a joint distribution without its correlations
    do not.
    """
    z_matrix = model.architecture["layers"][0]["zMatrix"]
    positions, reference_positions = model.sample(4000, seed=1)[0], model.sample(20_000, seed=2)[0]
    coordinates, reference = (builder.internal_coordinates(x, z_matrix) for x in (positions, reference_positions))
    latents = stationarity.base_cdf(model, model.to_latent(positions))
    assert stationarity.compare(coordinates, reference, latents, 22)["stationary"]
    longer = coordinates.copy()
    longer[:, 3] += reference[:, 3].std() / 7
    assert not stationarity.compare(longer, reference, latents, 22)["stationary"]
    # Marginals as they were, but coordinates of one molecule from several: only the latents see it.
    shuffled = np.stack([np.random.default_rng(i).permutation(column) for i, column in enumerate(latents.T)], axis=1)
    mixed = model.to_positions(np.clip(0.3 * shuffled + 0.35, 0, 1))[0]
    assert not stationarity.compare(coordinates, reference, stationarity.base_cdf(model, model.to_latent(mixed)), 22)["stationary"]
    names = stationarity.coordinate_names(z_matrix)
    assert len(names) == 60 and names[0] == "bond 8-6" and names[21].startswith("angle") and names[41].startswith("torsion")


def test_base_cdf_and_scores():
    architecture, tensors = model_file.read(SMALL_MODEL)
    architecture["base"] = [{"distribution": "uniform", "coordinates": list(range(40))},
                            {"distribution": "truncatedNormal", "coordinates": list(range(40, 41))},
                            {"distribution": "uniform", "coordinates": list(range(41, 60))}]
    tensors.update({"base.1.mean": np.array([0.4]), "base.1.std": np.array([0.3])})
    model = FlowModel.from_bytes(model_file.pack(architecture, tensors))
    random = np.random.default_rng(1)
    draws = stats.truncnorm((0 - 0.4) / 0.3, (1 - 0.4) / 0.3, 0.4, 0.3).rvs(4000, random_state=random)
    latents = np.full((4000, 60), 0.25)
    latents[:, 40] = draws
    uniform = stationarity.base_cdf(model, latents)
    assert stats.kstest(uniform[:, 40], "uniform").pvalue > 1e-3 and (uniform[:, 0] == 0.25).all()
    first, second = random.standard_normal((500, 3)), random.standard_normal((4000, 3))
    assert np.abs(stationarity.z_scores(first, second)).max() < 4
    # Weights exp(x/2) shift the mean of a normal distribution by 1/2.
    assert abs(stationarity.z_scores(first + 0.5, second, np.exp(0.5 * second[:, 0]))[0]) < 4


def test_bad_input():
    with pytest.raises(ValueError, match="two copies"):
        stationarity.Settings(copies=1)
    with pytest.raises(ValueError, match="relaxation < length"):
        stationarity.Settings(length=1.0, relaxation=1.0)


def test_other_temperatures(small_model):
    """At T dynamics samples p^(T_model/T), volume element included: means and spreads of all coordinates, from reweighted
    samples.
    """
    temperature, copies = 450.0, 500
    z_matrix = small_model.architecture["layers"][0]["zMatrix"]
    positions, log_prob = small_model.sample(60_000, seed=1)
    weights = np.exp((small_model.temperature / temperature - 1) * (log_prob - log_prob.min()))
    random = np.random.default_rng(2)
    starts = positions[random.choice(len(positions), copies, replace=False, p=weights / weights.sum())]
    system, force = openmm.System(), FlowForce(small_model)
    for copy in range(copies):
        for _ in range(6):
            system.addParticle(MASS)
        force.addMolecule(range(6 * copy, 6 * copy + 6))
    system.addForce(force)
    integrator = openmm.LangevinMiddleIntegrator(temperature, 20.0, 0.001)
    integrator.setRandomNumberSeed(5)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"), {"Threads": "1"})
    context.setPositions(starts.reshape(-1, 3))
    context.setVelocities(maxwell_velocities(system, temperature, random))
    reference = builder.internal_coordinates(positions, z_matrix)
    centre = weights @ reference / weights.sum()

    def observables(coordinates):
        turn = 2 * np.pi * coordinates[:, 9:]
        return np.hstack([coordinates[:, :9], (coordinates[:, :9] - centre[:9]) ** 2, np.cos(turn), np.sin(turn)])

    integrator.step(200)
    means = np.zeros((copies, 24))
    for _ in range(40):
        integrator.step(10)
        x = context.getState(positions=True).getPositions(asNumpy=True)._value.reshape(copies, 6, 3)
        means += observables(builder.internal_coordinates(x, z_matrix)) / 40
    at_temperature = stationarity.z_scores(means, observables(reference), weights)
    at_model = stationarity.z_scores(means, observables(reference))
    print(f"T = 450 K: largest deviation from p^(T_model/T) {np.abs(at_temperature).max():.1f} standard errors, from p {np.abs(at_model).max():.1f}")
    assert np.abs(at_temperature).max() < 4.5
    assert np.abs(at_model).max() > 8
