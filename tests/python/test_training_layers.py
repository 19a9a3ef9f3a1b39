# SPDX-License-Identifier: MIT
"""The layers without weights in training: mixed coordinates, elementwise layers and permutations, in both directions."""
import json

import h5py
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("openmmflow_training")

from mixed_flow import deformations  # noqa: E402
from openmmflow import FlowModel, builder, model_file, transformers  # noqa: E402
from openmmflow_training import FlowModule, TrainingConfig, operators, train  # noqa: E402
from random_architecture import RandomArchitecture  # noqa: E402
from reference_flow import ReferenceFlow  # noqa: E402
from torch.autograd import gradcheck, gradgradcheck  # noqa: E402

ELEMENTWISE = ("permutation", "affineNormalization", "logit", "logistic", "circularShift")
MEASURES = ("cartesian", "frame")


@pytest.mark.parametrize("kind", ELEMENTWISE[1:])
def test_derivatives_of_elementwise_maps(kind):
    torch.manual_seed(1)
    x = 0.1 + 0.3 * torch.rand(2, 5, dtype=torch.float64)
    if kind == "logistic":
        x = torch.linspace(-4, 4, 10, dtype=torch.float64).reshape(2, 5)
        x[0, 0] = 0    # where its formula changes branches
    x.requires_grad_()
    shift = torch.tensor([0.02, -0.05], dtype=torch.float64) if kind in ("affineNormalization", "circularShift") else None
    scale = torch.tensor([0.3, 2.0], dtype=torch.float64) if kind == "affineNormalization" else None
    assert gradcheck(lambda x: operators.elementwise(x, kind, shift, scale), (x,))
    assert gradgradcheck(lambda x: operators.elementwise(x, kind, shift, scale), (x,))


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("particles, block", [(3, 3), (6, 4)])
def test_derivatives_of_mixed_coordinates(particles, block, measure):
    drawn = RandomArchitecture(4, particles, measure=measure, block=block, count=2)
    layer = drawn.layers[0]
    reference, whitening = (torch.from_numpy(drawn.tensors[f"layers.0.{name}"]) for name in ("reference", "whitening"))

    def mixed(x):
        return operators.mixed_coordinates(x, layer["block"], [i for row in layer["zMatrix"] for i in row], reference, whitening, measure == "frame")

    # Away from the reference, where first derivatives of ln|det| do not vanish.
    x = torch.from_numpy(drawn.positions + 0.01 * np.random.default_rng(1).normal(size=drawn.positions.shape)).requires_grad_()
    assert gradcheck(mixed, (x,), atol=1e-4, eps=1e-7)
    assert gradgradcheck(mixed, (x,), atol=1e-3, rtol=1e-4, eps=1e-7)


def random_flows():
    """Mixed coordinates of both measures, each elementwise layer by itself, and all of it together."""
    for measure in MEASURES:
        drawn = RandomArchitecture(20, 7, measure=measure, block=4)
        drawn.add_marginals("normal", all_coordinates=False)
        for _ in range(2):
            drawn.add_coupling(closed_form="density")
        yield f"mixed, {measure}", drawn
    for kind in ELEMENTWISE:
        drawn = RandomArchitecture(30)
        if kind == "logit":
            drawn.add_marginals()
        drawn.add_coupling(closed_form="density")
        drawn.add_elementwise(kind)
        drawn.add_coupling(closed_form="density")
        yield kind, drawn
    for seed in range(4):
        drawn = RandomArchitecture(40 + seed, 8, block=4 if seed % 2 else None)
        drawn.add_elementwise("permutation")
        drawn.add_marginals(all_coordinates=False)
        for kind in drawn.random.permutation(ELEMENTWISE):
            drawn.add_elementwise(kind)
            drawn.add_coupling(closed_form="density")
        yield f"all, {seed}", drawn


@pytest.mark.parametrize("drawn", [pytest.param(drawn, id=name) for name, drawn in random_flows()])
def test_module_is_the_model(drawn):
    """FlowModule against FlowModel in ln p, gradients and latents, and back; against autograd in the loss of force matching."""
    architecture, tensors = drawn.model()
    module = FlowModule((architecture, tensors))
    model = FlowModel.from_bytes(module.to_bytes())
    positions = torch.from_numpy(drawn.positions)
    log_prob, gradient = module.log_prob_and_gradient(positions, create_graph=True)
    expected, expected_gradient = model.log_prob_and_gradient(drawn.positions)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(log_prob.detach(), expected, rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(gradient.detach(), expected_gradient, rtol=0, atol=1e-9 * np.abs(expected_gradient).max())

    latent, _ = module.to_latent(positions)
    np.testing.assert_allclose(latent.detach(), model.to_latent(drawn.positions), rtol=1e-9, atol=1e-9)
    own, own_log_prob = module.to_positions(latent.detach())
    of_model, log_prob_of_model = model.to_positions(latent.detach().numpy())
    np.testing.assert_allclose(own.detach(), of_model, rtol=0, atol=1e-7)
    np.testing.assert_allclose(own_log_prob.detach(), log_prob_of_model, rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(own_log_prob.detach(), expected, rtol=1e-9, atol=1e-5)

    # The loss of force matching, differentiated by other code.
    parameters = dict(module.named_parameters())
    loss = log_prob.sum() + 1e-3 * gradient.square().sum()
    own = torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)
    reference = ReferenceFlow(architecture, tensors)
    weights = {name: torch.from_numpy(tensors[name]).requires_grad_() for name in parameters}
    reference.tensors.update(weights)
    x = positions.clone().requires_grad_()
    other_log_prob = reference.log_prob(x)
    other_gradient, = torch.autograd.grad(other_log_prob.sum(), x, create_graph=True)
    other = torch.autograd.grad(other_log_prob.sum() + 1e-3 * other_gradient.square().sum(), list(weights.values()), materialize_grads=True)
    scale = max(b.abs().max() for b in other if b.numel())
    error = max((a - b).abs().max() for a, b in zip(own, other) if b.numel()) / scale
    print(f"{json.dumps([layer['type'] for layer in architecture['layers']])}: gradient of the loss {error:.1e} off")
    assert error < 1e-7


def test_training_of_mixed_coordinates(harmonic_molecule, tmp_path):
    """Three atoms in Cartesians, the fourth placed from them; affine couplings of real coordinates, and a torsion: `openmmflow train` makes it better."""
    topology, paths, _ = harmonic_molecule
    with h5py.File(paths[0]) as file:
        positions = file["positions"][:400]
    row = [3, 2, 1, 0]
    reference = positions[0, :3]
    tensors = {"layers.0.reference": reference, "layers.0.whitening": deformations(reference) / 0.005}
    layers = [{"type": "mixedCoordinates", "block": [0, 1, 2], "blockDimensions": 3, "zMatrix": [row]},
              {"type": "affineNormalization", "coordinates": [0, 1]}]
    samples = builder.internal_coordinates(positions, [row])
    tensors |= {"layers.1.shift": samples[:, :2].mean(0), "layers.1.scale": samples[:, :2].std(0)}
    random = np.random.default_rng(1)
    for kind, transformed, given in (("affine", [0, 1], [2, 3, 4, 5]), ("affine", [3, 4, 5], [2]), ("moebius", [2], [3, 4, 5])):
        transformer = transformers.describe(kind, 6)
        biases = transformers.initial_raw(transformer, [kind == "moebius"] * len(transformed), [samples[:, 2] if kind == "moebius" else None] * len(transformed))
        sizes = [len(given) + (2 in given), 16, len(biases)]
        for m in range(2):
            name = f"layers.{len(layers)}.networks.0.{m}"
            tensors[f"{name}.weight"] = random.normal(size=(sizes[m + 1], sizes[m])) * (1.0, 0.01)[m] / np.sqrt(sizes[m])
            tensors[f"{name}.bias"] = np.zeros(sizes[1]) if m == 0 else biases
        layers.append({"type": "coupling", "transformed": transformed, "conditionedOn": given, "transformer": transformer,
                       "conditioner": {"activation": "silu", "networks": [[16]]}})
    base = [{"distribution": "normal", "coordinates": [0, 1, 3, 4, 5]}, {"distribution": "uniform", "coordinates": [2]}]
    tensors |= {"base.0.mean": np.zeros(5), "base.0.std": np.ones(5)}
    bonds = [[0, 1], [1, 2], [2, 3]]
    first = tmp_path / "first.safetensors"
    model_file.write(first, {"format": "openmm-flow", "version": 2, "numParticles": 4, "temperature": 300.0, "measure": "cartesian", "bonds": bonds,
                             "constraints": [], "data": {}, "layers": layers, "base": base}, tensors)
    config = TrainingConfig(steps=150, batch=64, learning_rate=3e-3, force_start=0.2, start_from=str(first), validate_steps=30)
    train(topology, paths, tmp_path / "trained.safetensors", config, progress=False)
    records = [json.loads(line)["validation"] for line in (tmp_path / "trained.jsonl").read_text().splitlines() if "validation" in line]
    before, after = FlowModel.load(first).log_prob(positions).mean(), FlowModel.load(tmp_path / "trained.safetensors").log_prob(positions).mean()
    print(f"mean ln p {before:.2f} at first, {after:.2f} then; force RMSE {records[0]['force_rmse']:.1f} to {records[-1]['force_rmse']:.1f} k_BT/nm")
    assert after > before + 1 and records[-1]["force_rmse"] < records[0]["force_rmse"]
    assert (tmp_path / "trained.html").exists()


def test_latents_that_no_aligned_conformation_has():
    """They have no density, and do not spoil the derivatives of others."""
    drawn = RandomArchitecture(20, 5, measure="cartesian", block=4)
    module = FlowModule(drawn.model())
    latent, _ = module.to_latent(torch.from_numpy(drawn.positions))
    # The mirror image of the reference.
    reference, whitening = (torch.from_numpy(drawn.tensors[f"layers.0.{name}"]) for name in ("reference", "whitening"))
    centred = operators.block_whitening(reference, whitening, False)[0]
    latent = latent.detach()
    latent[0, -len(whitening):] = whitening @ (-2 * centred.flatten())
    latent.requires_grad_()
    positions, log_prob = module.to_positions(latent)
    expected = FlowModel.from_bytes(module.to_bytes()).to_positions(latent.detach().numpy())[1]
    assert log_prob.isinf().tolist() == np.isinf(expected).tolist()
    assert np.isinf(expected[0]) and np.isfinite(expected[1:]).all()
    gradient, = torch.autograd.grad(log_prob[1:].sum(), latent)
    assert gradient.isfinite().all()


def test_wrong_arguments():
    x = torch.rand(2, 3, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="unknown map \"exp\"; known are affineNormalization"):
        operators.elementwise(x, "exp", None, None)
    with pytest.raises(RuntimeError, match="needs a shift with one value for each of the 2 coordinates"):
        operators.elementwise(x, "circularShift", torch.zeros(3), None)
    line = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]], dtype=torch.float64)
    with pytest.raises(ValueError, match="on a line"):
        operators.block_whitening(line, torch.eye(9, dtype=torch.float64)[:3], False)
    with pytest.raises(ValueError, match=r"shape \(coordinates, 9\)"):
        operators.block_whitening(line, torch.eye(8, dtype=torch.float64), False)
