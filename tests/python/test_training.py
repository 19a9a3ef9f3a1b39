# SPDX-License-Identifier: MIT
"""The training component: operators, FlowModule, losses, trainer."""
import copy
import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest

import openmmflow
from openmmflow import builder, dataset, model_file
from harmonic_molecule import SMALL
from random_flow import conformations, random_flow

torch = pytest.importorskip("torch", reason="training needs PyTorch")
training = pytest.importorskip("openmmflow_training", exc_type=ImportError, reason="the training component is not installed")
h5py = pytest.importorskip("h5py")

from openmmflow_training import FlowModule, TrainingConfig, operators, train  # noqa: E402
from openmmflow_training.data import Frames, cyclic_symmetries, split_by_time, turn_symmetric_groups  # noqa: E402
from openmmflow_training.losses import evaluate, step_loss  # noqa: E402
from torch.autograd import gradcheck, gradgradcheck  # noqa: E402

ACTIVATIONS = ("silu", "tanh", "sin", "gelu", "softplus")


@pytest.fixture(autouse=True)
def repeatable():
    torch.manual_seed(1)


def mixture(x, raw, *, circular, inverse=False, published=False, exponent=1):
    return operators.smooth_mixture(x, raw, [int(circular)] * len(x), inverse, published, exponent, 0.8660254037844386, 3.0, 1.0, 0.01)


def mixture_inputs(samples=3, components=3, coordinates=2):
    x = (0.05 + 0.9 * torch.rand(coordinates, samples, dtype=torch.float64)).requires_grad_()
    raw = (0.7 * torch.randn(5, coordinates, components, samples, dtype=torch.float64)).requires_grad_()
    return x, raw


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("circular", [False, True])
@pytest.mark.parametrize("exponent", [1, 2])
@pytest.mark.parametrize("published", [False, True])
def test_derivatives_of_the_smooth_mixture(published, exponent, circular, inverse):
    def function(x, raw):
        return mixture(x, raw, circular=circular, inverse=inverse, published=published, exponent=exponent)
    assert gradcheck(function, mixture_inputs())
    assert gradgradcheck(function, mixture_inputs())


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 2e-14), (torch.float32, 3e-6)])
@pytest.mark.parametrize("circular", [False, True])
def test_inverse_of_the_smooth_mixture(circular, dtype, tolerance):
    x, raw = (t.detach().to(dtype) for t in mixture_inputs(samples=50))
    y, log_slope = mixture(x, raw, circular=circular)
    back, log_inverse = mixture(y, raw, circular=circular, inverse=True)
    assert (back - x).abs().max() < tolerance * log_slope.exp().reciprocal().max().clamp(min=1)
    assert (log_slope + log_inverse).abs().max() < 1e3 * tolerance


@pytest.mark.parametrize("samples", [1, 7, 8, 9, 16, 33])
def test_results_do_not_depend_on_the_number_of_samples(samples):
    """Full SIMD vectors and the remainder agree."""
    x, raw = (t.detach() for t in mixture_inputs(samples=40))
    whole = mixture(x, raw, circular=True)
    part = mixture(x[:, :samples], raw[..., :samples], circular=True)
    for a, b in zip(whole, part):
        assert torch.allclose(a[:, :samples], b, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_derivatives_of_activations(activation):
    x = (3 * torch.randn(4, 5, dtype=torch.float64)).requires_grad_()
    assert gradcheck(lambda x: operators.activation(x, activation), (x,))
    assert gradgradcheck(lambda x: operators.activation(x, activation), (x,))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_are_those_of_torch(activation):
    x = torch.linspace(-30, 30, 1001, dtype=torch.float64)
    expected = torch.sin(x) if activation == "sin" else getattr(torch.nn.functional, activation)(x)
    if activation == "softplus":
        expected = torch.logaddexp(x, torch.zeros_like(x))
    assert torch.allclose(operators.activation(x, activation), expected, rtol=1e-13, atol=3e-14)


@pytest.mark.parametrize("distribution", ["uniform", "normal", "truncatedNormal"])
def test_derivatives_of_marginals(distribution):
    x = torch.randn(2, 11, dtype=torch.float64).requires_grad_()
    numbers = {"lower": [-5.0, -6.0], "upper": [4.0, 7.0], "mean": [0.1, -0.2], "std": [0.8, 1.3]}
    tensors = [torch.tensor(v, dtype=torch.float64) for v in numbers.values()]
    assert gradcheck(lambda x: operators.marginal(x, distribution, *tensors), (x,))
    assert gradgradcheck(lambda x: operators.marginal(x, distribution, *tensors), (x,))


@pytest.mark.parametrize("frame", [False, True])
def test_derivatives_of_internal_coordinates(frame):
    z_matrix = [4, 3, 1, 0, 3, 2, 1, 0, 2, 1, 0, -1, 1, 0, -1, -1, 0, -1, -1, -1]
    x = torch.randn(2, 5, 3, dtype=torch.float64).requires_grad_()
    assert gradcheck(lambda x: operators.internal_coordinates(x, z_matrix, frame), (x,))
    assert gradgradcheck(lambda x: operators.internal_coordinates(x, z_matrix, frame), (x,))


def test_third_derivatives_are_refused():
    x = torch.randn(4, dtype=torch.float64).requires_grad_()
    derivative = operators.activation(x, "silu").sum()
    for _ in range(2):
        derivative = torch.autograd.grad(derivative, x, create_graph=True)[0].sum()
    with pytest.raises(RuntimeError, match="third derivatives are not implemented"):
        derivative.backward()


def test_bad_arguments_of_operators():
    x, raw = mixture_inputs()
    with pytest.raises(RuntimeError, match=r"raw \(5, D, K, N\)"):
        mixture(x, raw[:, :1], circular=False)
    with pytest.raises(RuntimeError, match="one type"):
        mixture(x.float(), raw, circular=False)
    with pytest.raises(RuntimeError, match="Unknown activation"):
        operators.activation(x, "relu")
    with pytest.raises(RuntimeError, match="unknown distribution"):
        operators.marginal(x, "cauchy", None, None, None, None)
    with pytest.raises(RuntimeError, match="needs mean"):
        operators.marginal(x, "normal", None, None, None, None)
    with pytest.raises(RuntimeError, match=r"shape \(N, 3, 3\)"):
        operators.internal_coordinates(torch.zeros(2, 4, 3, dtype=torch.float64), [0, -1, -1, -1, 1, 0, -1, -1, 2, 1, 0, -1], False)


def with_closed_form(model, direction):
    architecture, tensors = copy.deepcopy(model)
    for layer in architecture["layers"]:
        if layer["type"] == "coupling":
            layer["transformer"]["closedForm"] = direction
    return architecture, tensors


def random_models():
    """Random architectures: (name, (architecture, tensors), positions)."""
    for seed, particles in enumerate((6, 9)):
        yield f"chain{particles}", random_flow(seed, particles), conformations(seed, 25, particles)
    yield "frame", random_flow(7, measure="frame"), conformations(7, 25)
    yield "sampling", with_closed_form(random_flow(8), "sampling"), conformations(8, 25)
    positions = np.random.default_rng(5).normal(0, 0.003, (400, 7, 3)) + np.array(
        [[0.12 * i, 0.06 * (i % 2), 0.04 * (i % 3)] for i in range(7)])
    for activation in ACTIVATIONS:
        for exponent in (1, 2):
            options = builder.FlowOptions(width=9, depth=2, activation=activation, components=3, exponent=exponent)
            architecture, tensors = builder.build([(0, 1), (1, 2), (2, 3), (3, 4), (1, 5), (4, 6)], positions, temperature=300.0,
                                                  options=options)
            random = np.random.default_rng(exponent)
            tensors = {name: (t + random.normal(0, 0.3, t.shape) if ".networks." in name else t).astype(np.float64)
                       for name, t in tensors.items()}
            yield f"built-{activation}-{exponent}", (architecture, tensors), positions[:25]


RANDOM_MODELS = {name: (model, positions) for name, model, positions in random_models()}


@pytest.mark.parametrize("name", RANDOM_MODELS)
def test_engine_against_double_autograd(name):
    """Forces of the engine's hand-written reverse mode and of autograd through the training operators: 1e-10 relative."""
    model, positions = RANDOM_MODELS[name]
    log_prob, gradient = (t.numpy() for t in FlowModule(model).log_prob_and_gradient(torch.from_numpy(positions)))
    engine_log_prob, engine_gradient = openmmflow.FlowModel.from_bytes(model_file.pack(*model)).log_prob_and_gradient(positions)
    assert np.isfinite(log_prob).all()
    error = np.abs(gradient - engine_gradient).max() / np.abs(gradient).max()
    print(f"{name}: d ln p/dx {error:.1e} relative, ln p {np.abs(log_prob - engine_log_prob).max():.1e}")
    assert error <= 1e-10
    assert np.abs(log_prob - engine_log_prob).max() <= 1e-9


@pytest.mark.parametrize("name", ["chain6", "sampling", "built-silu-1"])
def test_gradient_with_respect_to_weights(name):
    """Force matching differentiates d ln p/dx with respect to weights: against finite differences."""
    model, positions = RANDOM_MODELS[name]
    module = FlowModule(model).double()
    frames = Frames(torch.from_numpy(positions[:3]), torch.zeros(3, *positions.shape[1:], dtype=torch.float64))

    def loss():
        log_prob, gradient = module.log_prob_and_gradient(frames.positions, create_graph=True)
        return 1e-4 * gradient.square().sum() - log_prob.sum()

    parameters = list(module.parameters())
    gradients = torch.autograd.grad(loss(), parameters)
    generator = torch.Generator().manual_seed(3)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    expected = sum((g * d).sum() for g, d in zip(gradients, direction)).item()

    def displaced(step):
        with torch.no_grad():
            for p, d in zip(parameters, direction):
                p.add_(d, alpha=step)
        value = loss().item()
        with torch.no_grad():
            for p, d in zip(parameters, direction):
                p.sub_(d, alpha=step)
        return value

    step = 1e-5
    numerical = (8 * (displaced(step) - displaced(-step)) - (displaced(2 * step) - displaced(-2 * step))) / (12 * step)
    assert expected == pytest.approx(numerical, rel=1e-6)


def test_module_against_published_energies(shared_data, published_model):
    reference = np.load(shared_data / "published_ala2_smooth_reference.npz")
    module = FlowModule(published_model.to_bytes()).double()
    log_prob, gradient = module.log_prob_and_gradient(torch.from_numpy(reference["positions"]))
    assert np.abs(-log_prob.numpy() - reference["u"]).max() < 1e-8
    assert np.abs(-gradient.numpy() - reference["gradient"]).max() < 1e-9 * np.abs(reference["gradient"]).max()


def test_outside_of_the_support():
    model, positions = RANDOM_MODELS["chain6"]
    stretched = torch.from_numpy(np.concatenate([positions[:1], 2 * positions[:1]]))
    log_prob, gradient = FlowModule(model).log_prob_and_gradient(stretched)
    assert torch.isfinite(log_prob[0]) and log_prob[1] == -torch.inf
    assert torch.isfinite(gradient[0]).all() and gradient[1].isnan().all()


def test_names_round_trip_and_copies():
    model, positions = RANDOM_MODELS["chain6"]
    contents = model_file.pack(*model)
    module = FlowModule(contents)
    assert module.to_bytes() == contents
    assert set(module.state_dict()) == set(model[1])
    x = torch.from_numpy(positions)
    expected = module.log_prob(x)
    copies = {"deepcopy": copy.deepcopy(module), "pickle": pickle.loads(pickle.dumps(module)),
              "state_dict": FlowModule(random_flow(3, 6))}
    copies["state_dict"].load_state_dict(module.state_dict())
    for name, other in copies.items():
        assert torch.equal(other.log_prob(x), expected), name
        assert all(a is not b for a, b in zip(other.parameters(), module.parameters())), name
    assert (module.float().log_prob(x) - expected).abs().max() < 1e-3


def test_distributed_data_parallel(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model, positions = RANDOM_MODELS["chain6"]
        module = FlowModule(model)
        parallel = torch.nn.parallel.DistributedDataParallel(module)
        parallel(torch.from_numpy(positions)).mean().backward()
        assert all(torch.isfinite(p.grad).all() for p in module.parameters())
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("damage, message", [
    (lambda b: b[:len(b) // 2], "cut short"),
    (lambda b: b"", "no safetensors file"),
    (lambda b: b.replace(b'numParticles\\":6', b'numParticles\\":7'), "damaged"),
])
def test_bad_model_files(damage, message):
    with pytest.raises(ValueError, match=message):
        FlowModule(damage(model_file.pack(*RANDOM_MODELS["chain6"][0])))


def test_wrong_shape_of_positions():
    with pytest.raises(ValueError, match=r"positions must have shape \(batch, 6, 3\)"):
        FlowModule(RANDOM_MODELS["chain6"][0]).log_prob(torch.zeros(2, 5, 3))


# --- data ----------------------------------------------------------------------------------------------------------------------

def frames_of(count, particles=4):
    positions = torch.arange(count * particles * 3, dtype=torch.float64).reshape(count, particles, 3)
    return Frames(positions, -positions)


def test_held_out_blocks_are_at_the_end_of_each_data_set():
    first, second = frames_of(100), frames_of(40)
    training_part, validation, test = split_by_time([first, second], 0.05, 0.10)
    assert [len(part) for part in (training_part, validation, test)] == [85 + 34, 5 + 2, 10 + 4]
    assert torch.equal(test.positions, torch.cat([first.positions[90:], second.positions[36:]]))
    assert torch.equal(validation.forces, torch.cat([first.forces[85:90], second.forces[34:36]]))


def test_methyl_groups_are_found_and_turned():
    # ethane: carbons 0 and 4
    bonds = [(0, 1), (0, 2), (0, 3), (0, 4), (4, 5), (4, 6), (4, 7)]
    symmetries = cyclic_symmetries(bonds, "CHHHCHHH")
    assert [s.tolist() for s in symmetries] == [[0, 2, 3, 1, 4, 5, 6, 7], [0, 1, 2, 3, 4, 6, 7, 5]]
    frames = frames_of(600, 8)
    frames.displacements = 2 * frames.positions
    frames.displaced_forces = torch.stack([3 * frames.positions, 4 * frames.positions], dim=1)
    turned = turn_symmetric_groups(frames, symmetries, torch.Generator().manual_seed(0))
    assert torch.equal(turned.forces, -turned.positions)
    assert torch.equal(turned.displacements, 2 * turned.positions)
    assert torch.equal(turned.displaced_forces, torch.stack([3 * turned.positions, 4 * turned.positions], dim=1))
    assert torch.equal(turned.positions[:, [0, 4]], frames.positions[:, [0, 4]])
    first = (turned.positions[:, 1, 0] - frames.positions[:, 0, 0]) / 3
    second = (turned.positions[:, 2, 0] - frames.positions[:, 0, 0]) / 3
    assert set(zip(first.tolist(), second.tolist())) == {(1, 2), (2, 3), (3, 1)}     # rotations only
    assert all((first == place).sum() > 150 for place in (1, 2, 3))


def test_cyclic_symmetry_keeps_the_energy():
    """The symmetry that the trainer relies on is one of the force field."""
    import openmm
    from openmm import unit

    pdb = dataset.alanine_dipeptide()
    system = dataset.implicit_solvent_system(pdb.topology)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    bonds = [(b[0].index, b[1].index) for b in pdb.topology.bonds()]
    symmetries = cyclic_symmetries(bonds, [a.element.symbol for a in pdb.topology.atoms()])
    assert len(symmetries) == 3
    positions = pdb.getPositions(asNumpy=True)._value + np.random.default_rng(0).normal(0, 0.005, (22, 3))

    def energy(x):
        context.setPositions(x)
        return context.getState(energy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)

    for permutation in symmetries:
        assert energy(positions[permutation.numpy()]) == pytest.approx(energy(positions), abs=1e-9)


# --- trainer -------------------------------------------------------------------------------------------------------------------

def read_frames(paths, topology):
    return training.data.read_data(paths, topology)[0]


def records_of(output):
    return [json.loads(line) for line in output.with_suffix(".jsonl").read_text().splitlines()]


def test_training_lowers_both_losses(harmonic_molecule, tmp_path):
    topology, paths, _ = harmonic_molecule
    config = TrainingConfig(steps=300, batch=64, learning_rate=1e-2, force_start=0.1, ema=0.95, flow=SMALL, validate_seconds=1e9)
    output = train(topology, paths, tmp_path / "model.safetensors", config, progress=False, command="test")
    architecture, tensors = model_file.read(output)
    data = architecture["data"]
    assert data["forceField"] == ["harmonic bonds"] and data["command"] == "test" and data["frames"] == 1700
    untrained = FlowModule(builder.build(topology, np.array(h5py.File(paths[0])["positions"][:1700]), temperature=300.0, options=SMALL))
    datasets = read_frames(paths, topology)
    test = split_by_time(datasets, config.validation, config.test)[2]
    before, after = evaluate(untrained, test), evaluate(FlowModule(output), test)
    print(f"held out: before {before}, after {after}")
    assert after == pytest.approx(data["test"])
    assert after["nll"] < before["nll"] - 0.5
    assert after["force_rmse"] < 0.75 * before["force_rmse"]
    assert openmmflow.FlowModel.load(str(output)).num_particles == 4
    assert output.with_suffix(".html").stat().st_size > 10_000
    assert records_of(output)[-1]["test"] == data["test"]


def test_a_run_can_start_from_a_model(harmonic_molecule, tmp_path):
    topology, paths, _ = harmonic_molecule
    first = train(topology, paths, tmp_path / "first.safetensors", TrainingConfig(steps=5, batch=32, flow=SMALL), progress=False)
    # A learning rate of nothing: the weights are those of the first run.
    config = TrainingConfig(steps=1, batch=32, learning_rate=1e-30, start_from=str(first))
    second = train(topology, paths, tmp_path / "second.safetensors", config, progress=False)
    (old, old_tensors), (new, new_tensors) = model_file.read(first), model_file.read(second)
    for name, tensor in old_tensors.items():
        assert np.allclose(tensor, new_tensors[name], atol=1e-12), name
    assert new["data"]["startedFrom"]["data"] == old["data"]
    assert new["data"]["training"]["start_from"] == "first.safetensors"

    from openmm import app
    other = app.Topology()
    residue = other.addResidue("MOL", other.addChain())
    atoms = [other.addAtom(f"C{i}", app.element.carbon, residue) for i in range(4)]
    for atom in atoms[1:]:
        other.addBond(atoms[0], atom)
    with pytest.raises(ValueError, match="another molecule"):
        train(other, paths, tmp_path / "third.safetensors", config, progress=False)


def test_interrupted_training_ends_as_if_it_was_not(harmonic_molecule, tmp_path, monkeypatch):
    topology, paths, _ = harmonic_molecule
    config = TrainingConfig(steps=24, batch=32, force_start=0.5, flow=SMALL, validate_seconds=0.0)
    whole = train(topology, paths, tmp_path / "whole.safetensors", config, progress=False)

    step = training.trainer.Trainer.train_step

    def interrupted(self):
        if self.step == 15:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(training.trainer.Trainer, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(topology, paths, tmp_path / "resumed.safetensors", config, progress=False)
    monkeypatch.undo()
    resumed = train(topology, paths, tmp_path / "resumed.safetensors", config, progress=False)
    first, second = model_file.read(whole), model_file.read(resumed)
    for name, tensor in first[1].items():
        assert np.array_equal(tensor, second[1][name]), name
    assert first[0]["data"]["test"] == second[0]["data"]["test"]


@pytest.fixture(scope="module")
def displaced_data(harmonic_molecule, tmp_path_factory):
    """The same data with forces a time step ahead and behind: (path, frames)."""
    topology, paths, system = harmonic_molecule
    path = shutil.copy(paths[0], tmp_path_factory.mktemp("data") / "displaced.h5")
    dataset.add_displaced_forces(path, system, step_size=0.004, progress=False)
    return path, read_frames([path], topology)[0]


def test_displaced_forces(displaced_data, harmonic_molecule):
    _, frames = displaced_data
    assert frames.displaced_forces.shape == (len(frames), 2, 4, 3)
    velocities = frames.displacements / 0.004
    assert velocities.square().mean().item() == pytest.approx(0.00831446 * 300 / 12, rel=0.03)
    # The forces change along the way, to first order by opposite amounts.
    first = (frames.displaced_forces[:, 0] - frames.displaced_forces[:, 1]).square().mean()
    second = (frames.displaced_forces.sum(dim=1) - 2 * frames.forces).square().mean()
    assert 0 < second < 0.1 * first


def test_step_loss_of_known_forces(displaced_data):
    """Forces with a constant error have that error and no roughness."""
    frames = displaced_data[1][:10]

    class Shifted:
        @staticmethod
        def log_prob_and_gradient(x, create_graph):
            forces = torch.cat([frames.forces, frames.displaced_forces[:, 0], frames.displaced_forces[:, 1]])
            assert torch.allclose(x[20:], 2 * x[:10] - x[10:20])
            return x[:, 0, 0], forces + 2.0

    nll, force, roughness = step_loss(Shifted(), frames, create_graph=False)
    assert force.item() == pytest.approx(4.0) and roughness.item() < 1e-20
    assert nll.item() == pytest.approx(-frames.positions[:, 0, 0].mean().item())


def test_roughness_is_lowered(displaced_data, harmonic_molecule, tmp_path):
    topology, paths, _ = harmonic_molecule
    path, frames = displaced_data
    options = {"steps": 200, "batch": 96, "learning_rate": 1e-2, "force_start": 0.1, "ema": 0.95, "flow": SMALL, "validate_seconds": 1e9}
    outputs = {weight: train(topology, [path], tmp_path / f"{weight}.safetensors", TrainingConfig(
        **options, roughness_weight=weight), progress=False) for weight in (0.0, 1.0)}
    held_out = split_by_time([frames], 0.05, 0.10)[2]
    without, with_loss = (evaluate(FlowModule(output), held_out)["roughness"] for output in outputs.values())
    print(f"roughness of held-out frames: {without:.3f} without, {with_loss:.3f} k_BT/nm with the loss")
    assert with_loss < 0.8 * without
    assert model_file.read(outputs[1.0])[0]["data"]["test"]["roughness"] == pytest.approx(with_loss)
    with pytest.raises(ValueError, match="add_displaced_forces"):
        train(topology, [path, *paths], tmp_path / "m.safetensors", TrainingConfig(**options, roughness_weight=1.0), progress=False)


@pytest.mark.parametrize("options, message", [
    ({}, "either `steps` or `minutes`"),
    ({"steps": 10, "minutes": 1.0}, "either `steps` or `minutes`"),
    ({"steps": 0}, "steps must be positive"),
    ({"steps": 10, "roughness_weight": -1.0}, "must not be negative"),
    ({"steps": 10, "batch": 0}, "batch must be positive"),
    ({"steps": 10, "validation": 0.6, "test": 0.6}, "leave nothing to train on"),
])
def test_bad_configurations(options, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**options)


def test_bad_data(harmonic_molecule, tmp_path):
    topology, paths, _ = harmonic_molecule
    with h5py.File(tmp_path / "empty.h5", "w") as file:
        file["positions"] = np.zeros((10, 4, 3))
    config = TrainingConfig(steps=1, batch=8, flow=SMALL)
    with pytest.raises(ValueError, match="it has no forces"):
        train(topology, [tmp_path / "empty.h5"], tmp_path / "m.safetensors", config, progress=False)
    with pytest.raises(ValueError, match="do not suffice"):
        train(topology, paths, tmp_path / "m.safetensors", TrainingConfig(steps=1, batch=5000, flow=SMALL), progress=False)
    with pytest.raises(ValueError, match="no data set"):
        train(topology, [], tmp_path / "m.safetensors", config, progress=False)
    assert not (tmp_path / "m.safetensors").exists()


def test_command_line(harmonic_molecule, tmp_path):
    from openmm import app

    topology, paths, _ = harmonic_molecule
    with open(tmp_path / "molecule.pdb", "w") as file:
        app.PDBFile.writeFile(topology, 1 * np.ones((4, 3)) * np.arange(4)[:, None], file)
    result = subprocess.run(
        [sys.executable, "-m", "openmmflow_training", str(tmp_path / "molecule.pdb"), str(paths[0]), "-o", str(tmp_path / "m.safetensors"),
         "--steps", "3", "--batch", "16", "--width", "8", "--depth", "1", "--no-symmetric"],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert result.returncode == 0, result.stderr
    data = model_file.read(tmp_path / "m.safetensors")[0]["data"]
    assert data["training"]["steps"] == 3 and data["training"]["symmetric"] is False and data["training"]["flow"]["width"] == 8
    result = subprocess.run([sys.executable, "-m", "openmmflow_training", str(tmp_path / "molecule.pdb"), str(paths[0]), "-o",
                             str(tmp_path / "m.safetensors")], capture_output=True, text=True)
    assert result.returncode == 1 and "either `steps` or `minutes`" in result.stderr and "Traceback" not in result.stderr
