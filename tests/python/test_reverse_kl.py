# SPDX-License-Identifier: MIT
"""The sampling direction as a differentiable function, and training on the energies of its samples."""
import copy
from dataclasses import replace

import numpy as np
import openmm
import pytest
from harmonic_molecule import SMALL, write_dataset
from harmonic_molecule import topology as chain_topology
from random_flow import conformations, random_flow

import openmmflow
from openmmflow import builder, dataset, model_file

torch = pytest.importorskip("torch", reason="training needs PyTorch")
pytest.importorskip("openmmflow_training", exc_type=ImportError, reason="the training component is not installed")

from openmmflow_training import FlowModule, OpenMMPotential, Schedule, TrainingConfig, train  # noqa: E402
from openmmflow_training.data import MOLAR_GAS_CONSTANT  # noqa: E402
from openmmflow_training.losses import evaluate_samples, reverse_kl_loss  # noqa: E402
from openmmflow_training.sampling_direction import Placement, quantile  # noqa: E402
from torch.autograd import gradcheck, gradgradcheck  # noqa: E402


@pytest.fixture(autouse=True)
def repeatable():
    torch.manual_seed(1)


def flows():
    """Random flows that have their closed form in either direction, in both measures: name, (architecture, tensors)."""
    yield "density", random_flow(1, 6)
    yield "frame", random_flow(2, 6, measure="frame")
    architecture, tensors = copy.deepcopy(random_flow(3, 6))
    for layer in architecture["layers"]:
        if layer["type"] == "coupling":
            layer["transformer"]["closedForm"] = "sampling"
    yield "sampling", (architecture, tensors)
    architecture, tensors = copy.deepcopy(random_flow(4, 6))
    intervals, circles = list(range(9)), list(range(9, 12))
    architecture["base"] = [{"distribution": "truncatedNormal", "coordinates": intervals}, {"distribution": "uniform", "coordinates": circles}]
    tensors |= {"base.0.mean": np.full(9, 0.45), "base.0.std": np.full(9, 0.3)}
    yield "normal base", (architecture, tensors)


FLOWS = dict(flows())


@pytest.mark.parametrize("name", FLOWS)
def test_both_directions_are_inverse_to_each_other(name):
    module = FlowModule(FLOWS[name]).double()
    latent, log_prob = module.to_latent(torch.from_numpy(conformations(5, 20)))
    positions, log_prob_sampled = module.to_positions(latent)
    back, log_prob_back = module.to_latent(positions)
    assert (back - latent).abs().max() < 1e-10
    assert (log_prob_sampled - log_prob).abs().max() < 1e-8 and (log_prob_back - log_prob).abs().max() < 1e-8
    # and the engine places the atoms at the same places
    expected, _ = openmmflow.FlowModel.from_bytes(model_file.pack(*FLOWS[name])).to_positions(latent.detach().numpy())
    assert np.abs(positions.detach().numpy() - expected).max() < 1e-10


@pytest.mark.parametrize("name", FLOWS)
def test_derivatives_of_both_directions(name):
    """First and second derivatives with respect to inputs, by finite differences."""
    module = FlowModule(FLOWS[name]).double()
    latent = (0.1 + 0.8 * torch.rand(1, 12, dtype=torch.float64)).requires_grad_()
    assert gradcheck(module.to_positions, (latent,))
    assert gradgradcheck(module.to_positions, (latent,))
    positions = module.to_positions(latent)[0].detach().requires_grad_()
    assert gradcheck(module.to_latent, (positions,))
    assert gradgradcheck(module.to_latent, (positions,))


@pytest.mark.parametrize("name", ["density", "sampling"])
def test_second_derivatives_with_respect_to_weights(name):
    """gradgradcheck of positions and ln p of fixed latents as functions of the last layer's biases of every coupling."""
    module = FlowModule(FLOWS[name]).double()
    latent = 0.1 + 0.8 * torch.rand(1, 12, dtype=torch.float64)
    biases = {key: value.detach()[:6].clone().requires_grad_() for key, value in module.named_parameters() if key.endswith("1.bias")}

    def function(*values):
        whole = {key: torch.cat([value, dict(module.named_parameters())[key].detach()[6:]]) for key, value in zip(biases, values)}
        return torch.func.functional_call(module, whole, (latent, "to_positions"))

    assert len(biases) == 2
    assert gradcheck(function, tuple(biases.values()))
    assert gradgradcheck(function, tuple(biases.values()))


@pytest.mark.parametrize("distribution", ["uniform", "normal", "truncatedNormal"])
def test_quantiles(distribution):
    from openmmflow_training import operators

    numbers = {"uniform": (torch.tensor([-1.0]), torch.tensor([3.0]), None, None),
               "normal": (None, None, torch.tensor([0.3]), torch.tensor([0.8])),
               "truncatedNormal": (torch.tensor([-7.0]), torch.tensor([6.0]), torch.tensor([0.3]), torch.tensor([0.8]))}[distribution]
    numbers = [None if n is None else n.double() for n in numbers]
    y = torch.tensor([[1e-6, 0.2, 0.5, 0.7, 1 - 1e-6]], dtype=torch.float64).requires_grad_()
    x, log_density = quantile(y, distribution, *numbers)
    back, expected = operators.marginal(x, distribution, *numbers)
    assert torch.allclose(back, y, rtol=1e-9, atol=1e-14) and torch.allclose(log_density, expected, rtol=1e-9)
    assert gradcheck(lambda y: quantile(y, distribution, *numbers), (y[:, 1:4].detach().requires_grad_(),))


def test_potential_is_that_of_openmm():
    """Batches in parallel give OpenMM's energies and forces in their order, and gradients are negative forces."""
    pdb = dataset.alanine_dipeptide()
    system = dataset.implicit_solvent_system(pdb.topology)
    positions = pdb.getPositions(asNumpy=True)._value + np.random.default_rng(0).normal(0, 0.003, (7, 22, 3))
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    x = torch.from_numpy(positions).requires_grad_()
    energies = OpenMMPotential(system, 310.0, workers=3)(x)
    (energies * torch.arange(7)).sum().backward()
    for frame in range(7):
        context.setPositions(positions[frame])
        state = context.getState(energy=True, forces=True)
        scale = 1 / (MOLAR_GAS_CONSTANT * 310.0)
        assert energies[frame].item() == pytest.approx(state.getPotentialEnergy()._value * scale, rel=1e-12)
        assert np.allclose(x.grad[frame], -frame * scale * state.getForces(asNumpy=True)._value, rtol=1e-10, atol=1e-10)


def test_extreme_energies_are_regularized():
    system = openmm.System()
    force = openmm.CustomBondForce("1/r^12")
    for _ in range(2):
        system.addParticle(1.0)
    force.addBond(0, 1)
    system.addForce(force)
    potential = OpenMMPotential(system, 1 / MOLAR_GAS_CONSTANT, energy_cut=100.0, workers=2)    # k_BT = 1 kJ/mol
    distances = torch.tensor([1.0, 0.5, 0.01, 0.0, torch.nan], dtype=torch.float64)
    x = torch.zeros(5, 2, 3, dtype=torch.float64)
    x[:, 1, 0] = distances
    x.requires_grad_()
    energies = potential(x)
    energies.sum().backward()
    assert energies[0].item() == pytest.approx(1.0)
    for frame, r in ((1, 0.5), (2, 0.01)):
        excess = r**-12 - 100
        assert energies[frame].item() == pytest.approx(100 + np.log1p(excess), rel=1e-12)
        assert x.grad[frame, 1, 0].item() == pytest.approx(-12 * r**-13 / (1 + excess), rel=1e-9)
    assert torch.isfinite(energies).all() and energies[3] == energies[4] > energies[2]
    assert not x.grad[3:].any()


def test_gradient_of_the_reverse_kl():
    """With respect to weights, through samples and System, against finite differences."""
    module = FlowModule(FLOWS["density"]).double()
    system = openmm.System()
    force = openmm.HarmonicBondForce()
    for i in range(6):
        system.addParticle(12.0)
        for j in range(i):
            force.addBond(i, j, 0.15 * (i - j), 500.0)
    system.addForce(force)
    potential = OpenMMPotential(system, 300.0)
    latent = module.sample_latents(20)
    parameters = list(module.parameters())
    gradients = torch.autograd.grad(reverse_kl_loss(module, latent, potential), parameters)
    direction = [torch.randn_like(p) for p in parameters]

    def displaced(step):
        with torch.no_grad():
            for p, d in zip(parameters, direction):
                p.add_(d, alpha=step)
            value = reverse_kl_loss(module, latent, potential).item()
            for p, d in zip(parameters, direction):
                p.sub_(d, alpha=step)
        return value

    step = 1e-5
    numerical = (8 * (displaced(step) - displaced(-step)) - (displaced(2 * step) - displaced(-2 * step))) / (12 * step)
    assert sum((g * d).sum() for g, d in zip(gradients, direction)).item() == pytest.approx(numerical, rel=1e-6)


BONDS = [(0, 1), (1, 2), (2, 3)]
BOND_CONSTANT, ANGLE_CONSTANT, TORSION_CONSTANT = 20_000.0, 100.0, 6.0    # kJ/mol/nm^2, kJ/mol/rad^2, kJ/mol


class Chain:
    """Four atoms with three harmonic bonds, two harmonic angles and a torsion: a target whose integral and exact samples are known."""

    def __init__(self, bond=0.15, angle=1.9, torsion=1.0):
        self.system = openmm.System()
        bonds, angles, torsions = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce(), openmm.PeriodicTorsionForce()
        for i in range(4):
            self.system.addParticle(12.0)
        for i, j in BONDS:
            bonds.addBond(i, j, bond, BOND_CONSTANT)
        for i in range(2):
            angles.addAngle(i, i + 1, i + 2, angle, ANGLE_CONSTANT)
        torsions.addTorsion(0, 1, 2, 3, 1, torsion + np.pi, TORSION_CONSTANT)    # k(1 + cos(phi - phi0)): the minimum is at phi0 + pi
        for force in (bonds, angles, torsions):
            self.system.addForce(force)
        beta = 1 / (MOLAR_GAS_CONSTANT * 300.0)
        r, theta, phi = np.linspace(0.05, 0.3, 20_001), np.linspace(1e-6, np.pi - 1e-6, 20_001), np.linspace(-np.pi, np.pi, 20_001)
        self.grids = [(r, r**2 * np.exp(-beta * BOND_CONSTANT / 2 * (r - bond)**2))] * 3
        self.grids += [(theta / np.pi, np.sin(theta) * np.exp(-beta * ANGLE_CONSTANT / 2 * (theta - angle)**2))] * 2
        self.grids += [(phi / (2 * np.pi) + 0.5, np.exp(-beta * TORSION_CONSTANT * (1 - np.cos(phi - torsion))))]
        widths = [1.0] * 3 + [np.pi] * 2 + [2 * np.pi]
        # With fixed origin, dx = 8 pi^2 r1^2 r2^2 r3^2 sin(theta1) sin(theta2) dr dtheta dphi.
        self.log_integral = np.log(8 * np.pi**2) + sum(np.log(np.trapezoid(y, x) * width) for (x, y), width in zip(self.grids, widths))
        self.potential = OpenMMPotential(self.system, 300.0)

    def sample(self, count, seed):
        """Independent conformations (count, 4, 3)."""
        random = np.random.default_rng(seed)
        coordinates = np.stack([np.interp(random.random(count), np.cumsum(y) / y.sum(), x) for x, y in self.grids])
        return Placement(builder.make_z_matrix(BONDS, 4), 4, "cartesian")(torch.from_numpy(coordinates))[0].numpy()

    def figures(self, module) -> dict[str, float]:
        """KL(flow, target) and -ln p of the target's samples less its entropy, i.e. KL(target, flow), k_BT; Kish's effective samples."""
        with torch.no_grad():
            positions, log_prob = module.to_positions(module.sample_latents(4000, torch.Generator().manual_seed(5)))
            reverse = (log_prob + self.potential(positions)).mean().item() + self.log_integral
            exact = torch.from_numpy(self.sample(4000, seed=99))
            forward = (-module.log_prob(exact) - self.potential(exact)).mean().item() - self.log_integral
        return {"KL(flow, target)": reverse, "KL(target, flow)": forward, **evaluate_samples(module, self.potential, 4000)}


def show(name, figures):
    print(f"{name}: KL(flow, target) {figures['KL(flow, target)']:.3f}, KL(target, flow) {figures['KL(target, flow)']:.3f} k_BT, "
          f"effective samples {figures['effective_samples']:.1%}")


def test_integral_and_samples_of_the_target():
    """A flow that is given the target's own marginals is near it, so the integral is right."""
    target = Chain()
    module = FlowModule(builder.build(BONDS, target.sample(20_000, 1), temperature=300.0))
    figures = target.figures(module)
    show("marginals of the target", figures)
    assert 0 < figures["KL(flow, target)"] < 0.5 and 0 < figures["KL(target, flow)"] < 0.5


def test_training_on_energies_alone_approaches_the_target(tmp_path):
    """The flow begins as that of another molecule; the only thing that it learns from is the energies and forces of its own samples."""
    target, other = Chain(), Chain(bond=0.157, angle=1.8, torsion=0.4)
    positions = other.sample(600, 1)
    path = write_dataset(tmp_path / "other.h5", positions, np.zeros_like(positions))
    flow = replace(SMALL, bond_rounds=2, shape_rounds=2, torsion_rounds=2)
    config = TrainingConfig(steps=300, batch=64, learning_rate=1e-2, ema=0.95, flow=flow, validate_seconds=1e9, likelihood_weight=0.0,
                            force_weight=0.0, reverse_start=0.0, reverse_weight=1.0, reverse_batch=128, threads=1, report=False)
    output = train(chain_topology(), [path], tmp_path / "m.safetensors", config, system=target.system, progress=False)
    before = target.figures(FlowModule(builder.build(BONDS, positions, temperature=300.0, options=flow)))
    after = target.figures(FlowModule(output))
    show("before", before)
    show("after 300 steps of reverse KL alone", after)
    assert min(before["KL(flow, target)"], before["KL(target, flow)"]) > 1.0 and before["effective_samples"] < 0.1
    assert max(after["KL(flow, target)"], after["KL(target, flow)"]) < 0.4
    assert after["effective_samples"] > 0.4


def test_energies_help_where_data_is_scarce(tmp_path):
    """Likelihood and reverse KL together are better than the likelihood alone, which overfits 160 frames."""
    target = Chain()
    positions = target.sample(188, 1)
    path = write_dataset(tmp_path / "few.h5", positions, np.zeros_like(positions))
    options = {"steps": 200, "batch": 64, "learning_rate": 1e-2, "ema": 0.95, "flow": SMALL, "validate_seconds": 1e9, "force_weight": 0.0,
               "threads": 1, "report": False}
    figures = {}
    for name, config in {"likelihood": TrainingConfig(**options),
                         "likelihood and energies": TrainingConfig(**options, reverse_weight="0:0, 0.2:0, 0.3:1")}.items():
        output = train(chain_topology(), [path], tmp_path / f"{len(figures)}.safetensors", config, system=target.system, progress=False)
        figures[name] = target.figures(FlowModule(output))
        show(name, figures[name])
    without, with_energies = figures.values()
    for key in ("KL(flow, target)", "KL(target, flow)"):
        assert with_energies[key] < 0.8 * without[key]
    assert with_energies["effective_samples"] > without["effective_samples"]


def test_reverse_kl_needs_a_system(harmonic_molecule, tmp_path):
    topology, paths, system = harmonic_molecule
    config = TrainingConfig(steps=1, batch=32, flow=SMALL, reverse_weight=1.0)
    with pytest.raises(ValueError, match="needs a System that gives"):
        train(topology, paths, tmp_path / "m.safetensors", config, progress=False)
    system = copy.deepcopy(system)
    system.addParticle(1.0)
    with pytest.raises(ValueError, match="of 4 particles; it has 5"):
        train(topology, paths, tmp_path / "m.safetensors", config, system=system, progress=False)


def test_schedules():
    schedule = Schedule("0.1:0, 0.3:2, 0.3:1, 0.5:3")
    assert [schedule(p) for p in (0, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 1.0)] == pytest.approx([0, 0, 1, 1.5, 1, 2, 3, 3])
    assert Schedule(0.5)(0.7) == Schedule("0.5")(0.0) == Schedule([[0, 0.5]])(1.0) == 0.5
    assert schedule.largest == 3
    for wrong, message in (("x", "no schedule"), ([1, 2], "no schedule"), ("0.5:1, 0.2:2", "must ascend"), (-1.0, "must not be negative")):
        with pytest.raises(ValueError, match=message):
            Schedule(wrong)
