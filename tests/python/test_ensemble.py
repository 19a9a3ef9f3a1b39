# SPDX-License-Identifier: MIT
"""Figures of a flow against a force field, where the force field is the flow itself or a known other one."""
import numpy as np
import openmm
import pytest

from conftest import MOLAR_GAS_CONSTANT
from openmmflow import FlowForce, ensemble, reweighting, sampling
from random_flow import MASS

TORSION = (0, 1, 2, 3)


def flow_energies(model, positions, scale=1.0):
    system = openmm.System()
    for _ in range(model.num_particles):
        system.addParticle(MASS)
    force = FlowForce(model)
    force.setDefaultScale(scale)
    system.addForce(force)
    return sampling.PotentialEnergy(system, model.num_particles)(positions)


def test_a_flow_against_itself(small_model):
    """ln p is normalized: -ln Z and the divergence are 0 to rounding, whatever the samples."""
    positions, log_prob = small_model.sample(600, seed=1)
    data = [small_model.sample(400, seed=seed)[0] for seed in (2, 3)]
    figures = ensemble.ensemble_figures(small_model, positions, log_prob, flow_energies(small_model, positions), data,
                                        [flow_energies(small_model, x) for x in data], TORSION, temperature=small_model.temperature, block=10)
    print(ensemble.describe(figures))
    assert figures["effectiveFraction"] == pytest.approx(1, abs=1e-6)
    for name in ("freeEnergy", "freeEnergyBar", "divergence", "freeEnergyError", "freeEnergyBarError", "divergenceError"):
        assert abs(figures[name]) < 1e-6, name
    assert figures["overlap"] == pytest.approx(1, abs=1e-6)
    assert figures["state"]["standardErrors"] < 4 and figures["frames"] == 800


def test_a_flow_against_its_power(small_model):
    """The force field -0.9 k_BT ln p: -ln Z and the divergence follow from the samples' own energies, two ways that must agree."""
    positions, log_prob = small_model.sample(4000, seed=1)
    candidates, candidate_log_prob = small_model.sample(20_000, seed=2)
    # Data by rejection: p^0.9 / p <= exp(0.1 * max(-ln p)).
    keep = np.random.default_rng(1).random(len(candidates)) < np.exp(-0.1 * (candidate_log_prob - candidate_log_prob.min()))
    thermal = MOLAR_GAS_CONSTANT * small_model.temperature
    data, data_log_prob = candidates[keep], candidate_log_prob[keep]
    figures = ensemble.ensemble_figures(small_model, positions, log_prob, -0.9 * thermal * log_prob, [data], [-0.9 * thermal * data_log_prob],
                                        TORSION, temperature=small_model.temperature, block=1)
    expected = -np.log(np.mean(np.exp(-0.1 * candidate_log_prob)))
    own = reweighting.quality(-0.1 * log_prob)
    print(ensemble.describe(figures), f"\nexpected -ln Z {expected:.4f}")
    assert figures["freeEnergy"] == pytest.approx(own.free_energy, abs=1e-9)
    assert abs(figures["freeEnergyBar"] - expected) < 5 * np.hypot(figures["freeEnergyBarError"], 0.1 * log_prob.std() / np.sqrt(20_000))
    assert figures["divergence"] > 0
    assert figures["divergence"] == pytest.approx(np.mean(-0.1 * data_log_prob) + expected, abs=5 * figures["divergenceError"])


def test_energies_are_infinite_where_there_are_none(small_model):
    system = openmm.System()
    force = openmm.CustomExternalForce("sqrt(x)")
    for particle in range(6):
        system.addParticle(MASS)
        force.addParticle(particle, [])
    system.addForce(force)
    energies = sampling.PotentialEnergy(system, 6)(np.stack([np.ones((6, 3)), -np.ones((6, 3))]))
    assert energies.tolist() == [6.0, np.inf]
