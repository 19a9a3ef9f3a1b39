# SPDX-License-Identifier: MIT
"""Collective variables of a flow, alone and in OpenMM's Metadynamics; replica exchange over λ."""
import sys
from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import unit

from conftest import MOLAR_GAS_CONSTANT
from openmmflow import FlowForce, FlowModel, collective_variables, model_file, shipped
from openmmflow.parameter_exchange import ParameterExchange
from random_flow import MASS, conformations, random_flow

EXAMPLES = Path(__file__).parents[2] / "examples"


def context_of(*forces, particles=6, platform="Reference"):
    system = openmm.System()
    for _ in range(particles):
        system.addParticle(MASS)
    for force in forces:
        system.addForce(force)
    return openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName(platform))


def value_and_gradient(context, positions):
    context.setPositions(positions)
    state = context.getState(energy=True, forces=True)
    return state.getPotentialEnergy()._value, -state.getForces(asNumpy=True)._value


def test_negative_log_prob(small_model, small_positions):
    context = context_of(collective_variables.negative_log_prob(small_model, range(6)), FlowForce(small_model))
    context.setParameter("FlowScale", 0.0)    # of the potential; the variable has its own
    for x in small_positions[:3]:
        value, gradient = value_and_gradient(context, x)
        log_prob, expected = small_model.log_prob_and_gradient(x)
        assert abs(value + log_prob) <= 1e-11 * abs(log_prob)
        np.testing.assert_allclose(gradient, -expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("base", ["uniform", "truncatedNormal"])
@pytest.mark.parametrize("platform, accuracy", [("Reference", 1e-11), ("CPU", 1e-6)])
def test_latents(platform, accuracy, base, small_positions):
    """A latent and its gradient, which is compared with finite differences of FlowModel.to_latent."""
    architecture, tensors = random_flow()
    if base == "truncatedNormal":
        architecture["base"] = [{"distribution": "truncatedNormal", "coordinates": [3, 8, 0]},
                                {"distribution": "uniform", "coordinates": [1, 2, 4, 5, 6, 7, 9, 10, 11]}]
        tensors |= {"base.0.mean": np.array([0.3, 0.5, 0.6]), "base.0.std": np.array([0.4, 0.5, 0.9])}
    model = FlowModel.from_bytes(model_file.pack(architecture, tensors))
    x, errors, gradient_errors = small_positions[0], [], []
    for coordinate in (0, 8):
        context = context_of(collective_variables.latent(model, range(6), coordinate), platform=platform)
        value, gradient = value_and_gradient(context, x)
        directions = np.eye(18).reshape(18, 6, 3)
        coarse, fine = ((model.to_latent(x + h * directions) - model.to_latent(x - h * directions))[:, coordinate] / (2 * h)
                        for h in (2e-5, 1e-5))
        expected = (4 * fine - coarse) / 3
        errors.append(abs(value - model.to_latent(x)[coordinate]))
        gradient_errors.append(np.abs(gradient.ravel() - expected).max() / np.abs(expected).max())
    print(f"\nlatents on {platform}: off by {max(errors):.1e}, their gradients by {max(gradient_errors):.1e}")
    assert max(errors) <= accuracy
    assert max(gradient_errors) <= 1e3 * accuracy


def test_latents_that_are_none(small_model):
    with pytest.raises(ValueError, match="no latent 12: the model has 12, from 0 to 11"):
        collective_variables.latent(small_model, range(6), 12)
    with pytest.raises(ValueError, match="latent 9 is no collective variable: .*CustomTorsionForce"):
        collective_variables.latent(small_model, range(6), 9)


def test_a_flow_in_a_collective_variable(small_model, small_positions):
    """FlowForce in an expression of CustomCVForce, with its parameter and derivative."""
    flow = FlowForce(small_model)
    flow.addEnergyParameterDerivative("FlowScale")
    bias = openmm.CustomCVForce("0.5*k*(u-u0)^2")
    bias.addCollectiveVariable("u", flow)
    bias.addGlobalParameter("k", 0.01)
    bias.addGlobalParameter("u0", 5.0)
    bias.addGlobalParameter("FlowScale", 1.0)
    bias.addEnergyParameterDerivative("FlowScale")
    context = context_of(bias)
    context.setParameter("FlowScale", 0.8)
    value, gradient = value_and_gradient(context, small_positions[1])
    log_prob, slope = small_model.log_prob_and_gradient(small_positions[1])
    u = -0.8 * MOLAR_GAS_CONSTANT * 300 * log_prob
    assert abs(value - 0.005 * (u - 5)**2) <= 1e-9 * value
    np.testing.assert_allclose(gradient, 0.01 * (u - 5) * -0.8 * MOLAR_GAS_CONSTANT * 300 * slope, rtol=1e-9, atol=1e-7)
    derivative = context.getState(parameterDerivatives=True).getEnergyParameterDerivatives()["FlowScale"]
    assert abs(derivative - 0.01 * (u - 5) * u / 0.8) <= 1e-9 * abs(derivative)


# Replica exchange

def test_exchange_samples_every_state():
    """An oscillator of which the stiffness is the parameter: its variance in each state is k_BT/k."""
    system = openmm.System()
    system.addParticle(10.0)
    force = openmm.CustomExternalForce("0.5*k*(x^2+y^2+z^2)")
    force.addGlobalParameter("k", 100.0)
    force.addParticle(0)
    system.addForce(force)
    stiffness = [400.0, 200.0, 100.0]
    run = ParameterExchange(system, np.zeros((1, 3)), [{"k": k} for k in stiffness], temperature=300, friction=5, step_size=0.004, seed=3,
                            platform="Reference")
    samples = []
    for _ in range(4000):
        run.advance(10)
        samples.append([run.context(i).getState(positions=True).getPositions(asNumpy=True)._value[0] for i in range(3)])
    variance = np.array(samples)[200:].var(axis=(0, 2))
    expected = MOLAR_GAS_CONSTANT * 300 / np.array(stiffness)
    print(f"\nvariance over k_BT/k: {np.round(variance / expected, 3)}, exchanges accepted: {np.round(run.acceptance, 2)}")
    np.testing.assert_allclose(variance, expected, rtol=0.12)
    assert np.all(run.acceptance > 0.5) and run.attempted.sum() == 4000
    assert sorted(run.state_of) == [0, 1, 2]
    for index, k in enumerate(stiffness):
        assert run.context(index).getParameter("k") == k


def test_exchange_over_the_scale_of_a_flow(small_model):
    """With λ nearly equal all exchanges are accepted, with very different ones next to none."""
    system = openmm.System()
    for _ in range(6):
        system.addParticle(MASS)
    system.addForce(FlowForce(small_model))
    run = ParameterExchange(system, conformations()[0], [{"FlowScale": s} for s in (1.0, 0.999, 0.05)], temperature=300, platform="Reference")
    for _ in range(40):
        run.advance(10)
    print(f"\nexchanges of λ = 1, 0.999, 0.05: {run.accepted} of {run.attempted}")
    assert run.accepted[0] >= 19 and run.accepted[1] < run.accepted[0]


def test_exchange_refuses_nonsense(small_model):
    with pytest.raises(ValueError, match="same Context parameters"):
        ParameterExchange(openmm.System(), [], [{"a": 1.0}, {"b": 1.0}], temperature=300)
    with pytest.raises(ValueError, match="same Context parameters"):
        ParameterExchange(openmm.System(), [], [], temperature=300)


# Metadynamics

@pytest.fixture
def metadynamics(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import metadynamics

    yield metadynamics
    del sys.modules["metadynamics"]


def test_metadynamics(metadynamics, tmp_path):
    """The example in short form: it biases the variable that FlowModel computes, and the bias grows."""
    result = metadynamics.run(2000, report_interval=20)
    metadynamics.plot(tmp_path / "metadynamics.png", result)
    assert (tmp_path / "metadynamics.png").stat().st_size > 10_000
    error = np.abs(result["values"] + FlowModel.load(shipped.MODEL).log_prob(result["frames"])).max()
    print(f"\nmetadynamics over -ln p: off by {error:.1e}; it went over {np.ptp(result['values']):.1f}, {result['exits']} support exits; "
          f"free energies from {result['free_energy'].min():.2f} to {result['free_energy'].max():.2f} k_BT")
    assert error <= 1e-9 and result["exits"] == 0
    assert np.ptp(result["free_energy"]) > 0.2
