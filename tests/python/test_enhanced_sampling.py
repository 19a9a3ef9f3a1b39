# SPDX-License-Identifier: MIT
"""Collective variables of a flow, alone and in OpenMM's Metadynamics; replica exchange over λ."""
import sys
from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app

from conftest import MOLAR_GAS_CONSTANT
from openmmflow import FlowForce, FlowModel, check, collective_variables, model_file, shipped
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


def finite_differences(value, t, h=2e-5):
    """Fourth-order difference of a variable on a circle of period 1."""
    coarse, fine = (((value(t + step) - value(t - step) + 0.5) % 1 - 0.5) / (2 * step) for step in (h, h / 2))
    return (4 * fine - coarse) / 3


@pytest.mark.parametrize("platform, accuracy", [("Reference", 1e-13), ("CPU", 1e-6)])
def test_latents_of_torsions(platform, accuracy, small_model, small_positions):
    """Along full turns of a torsion: the latent, and its slope against differences, at its jump from 1 to 0 as elsewhere."""
    errors, slope_errors, jumps = [], [], []
    walks = [walk for kind, _, walk in check._walks(small_model, small_positions[0]) if kind == "torsion"]
    for coordinate, walk in zip((9, 11), (walks[0], walks[2])):
        context = context_of(collective_variables.latent(small_model, range(6), coordinate), platform=platform)

        def value_and_slope(t):
            x, velocity = walk(t)
            value, gradient = value_and_gradient(context, x)
            return value, np.sum(gradient * velocity)

        def expected(t):
            return small_model.to_latent(walk(t)[0])[coordinate]

        grid = np.linspace(-np.pi, np.pi, 41)
        latents = np.array([expected(t) for t in grid])
        start = np.abs(np.diff(latents)).argmax()
        left, right = grid[start:start + 2]
        for _ in range(45):
            middle = (left + right) / 2
            left, right = (middle, right) if abs(expected(middle) - latents[start]) < 0.5 else (left, middle)
        for t in [*grid, left, right]:
            value, slope = value_and_slope(t)
            errors.append(abs((value - expected(t) + 0.5) % 1 - 0.5))
            slope_errors.append(abs(slope / finite_differences(expected, t) - 1))
            assert 0 <= value <= 1
        (before, slope), (after, slope_after) = value_and_slope(left - 1e-6), value_and_slope(right + 1e-6)
        jumps.append(abs(slope_after / slope - 1))
        assert abs(after - before) > 0.99, "the latent has not jumped where it should"
    print(f"\nlatents of torsions on {platform}: off by {max(errors):.1e}, their slopes by {max(slope_errors):.1e}; "
          f"jump of the slope where they jump: {max(jumps):.1e}")
    assert max(errors) <= accuracy
    assert max(slope_errors) <= 1e-7 + 1e2 * accuracy
    assert max(jumps) <= 1e-4


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_metadynamics_over_a_latent_of_a_torsion(platform, small_model, small_positions):
    """A hill at the jump from 1 to 0 acts on both sides, and its forces are minus the gradient of its energy."""
    variable = collective_variables.latent(small_model, range(6), 9)
    system = openmm.System()
    for _ in range(6):
        system.addParticle(MASS)
    bias = app.Metadynamics(system, [app.BiasVariable(variable, 0, 1, 0.08, periodic=True, gridWidth=101)], 300, 5, 4.0, 50)
    topology = app.Topology()
    residue = topology.addResidue("MOL", topology.addChain())
    for _ in range(6):
        topology.addAtom("C", app.element.carbon, residue)
    simulation = app.Simulation(topology, system, openmm.VerletIntegrator(1e-6), openmm.Platform.getPlatformByName(platform))
    _, _, walk = [walk for walk in check._walks(small_model, small_positions[0]) if walk[0] == "torsion"][0]
    grid = np.linspace(-np.pi, np.pi, 2001)
    latents = np.array([small_model.to_latent(walk(t)[0])[9] for t in grid])
    jump = grid[np.abs(np.diff(latents)).argmax()]
    simulation.context.setPositions(walk(jump)[0])
    bias.step(simulation, 51)     # one hill
    energies, errors = [], []
    for t in jump + np.linspace(-0.3, 0.3, 25):
        (energy, gradient), (_, velocity) = value_and_gradient(simulation.context, walk(t)[0]), walk(t)
        u = [value_and_gradient(simulation.context, walk(t + step)[0])[0] for step in (2e-3, -2e-3)]
        errors.append(abs((u[0] - u[1]) / 4e-3 - np.sum(gradient * velocity)))
        energies.append(energy)
    print(f"\na hill of {max(energies):.2f} kJ/mol over the jump of a latent on {platform}: its forces are off by {max(errors):.1e} kJ/mol/rad")
    assert 3.5 < max(energies) < 4.5 and min(energies) < max(energies) - 0.2
    assert np.abs(np.diff(energies)).max() < 0.5 and max(errors) < 2e-3
    assert 0 <= bias.getCollectiveVariables(simulation)[0] <= 1


def test_latents_that_are_none(small_model):
    with pytest.raises(ValueError, match="no latent 12: the model has 12, from 0 to 11"):
        collective_variables.latent(small_model, range(6), 12)


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


@pytest.mark.parametrize("name", ["energy", "phi"])
def test_metadynamics(name, metadynamics, tmp_path):
    """The example in short form: it biases the variable that it says, and the bias grows."""
    model = FlowModel.load(shipped.MODEL)
    variable = metadynamics.variable_of(name, model, 3000)
    walkers = [metadynamics.run(variable, 1000, equilibration=200, report_interval=25, seed=seed) for seed in (1, 2)]
    result = metadynamics.compare(variable, walkers)
    metadynamics.plot(tmp_path / "metadynamics.png", variable, result, walkers)
    assert (tmp_path / "metadynamics.png").stat().st_size > 10_000
    expected = -model.log_prob(walkers[0]["frames"]) if name == "energy" else walkers[0]["phi"]
    error = np.abs(walkers[0]["values"] - expected).max()
    print(f"\nmetadynamics over {name}: off by {error:.1e}; it went over {np.ptp(walkers[0]['values']):.1f}, {walkers[0]['exits']} support exits; "
          f"{result['difference']:.2f} k_BT from independent samples")
    # OpenMM's torsions come from an arc cosine.
    assert error <= (1e-9 if name == "energy" else 1e-6) and walkers[0]["exits"] == 0
    assert np.ptp(walkers[0]["free_energy"]) > 0.2 and 0 < result["difference"] < 5
    assert np.isfinite(result["free_energy"]).sum() == np.isfinite(result["exact"]).sum() > 5


def test_comparison_of_metadynamics(metadynamics):
    """Free energies that are right up to a constant are found to be right, with the errors of their scatter."""
    random = np.random.default_rng(0)
    variable = metadynamics.Variable("phi", "", None, {}, np.linspace(-np.pi, np.pi, 61), random.vonmises(1.0, 2.0, 200_000))
    centres = (variable.edges[1:] + variable.edges[:-1]) / 2
    walkers = [{"free_energy": -2 * np.cos(centres - 1) + 7 * n + 0.02 * random.normal(size=60)} for n in range(6)]
    result = metadynamics.compare(variable, walkers)
    assert result["difference"] < 0.03 and 0.004 < np.nanmean(result["free_energy_error"]) < 0.02
    found = metadynamics.basins(variable, walkers)
    assert abs(found["mean"] - found["samples"]) < 5 * np.hypot(found["error"], found["samples_error"]) + 0.01
