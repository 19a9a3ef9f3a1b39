# SPDX-License-Identifier: MIT
"""The transformers of the model format in training: derivatives, independent implementations, whole flows in both directions."""
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("openmmflow_training")

from openmmflow import FlowModel, builder, model_file, transformers  # noqa: E402
from openmmflow_training import FlowModule, operators  # noqa: E402
from random_architecture import TRANSFORMERS, RandomArchitecture  # noqa: E402
from reference_flow import ReferenceFlow  # noqa: E402
from reference_transformers import TRANSFORMERS as REFERENCES  # noqa: E402
from torch.autograd import gradcheck, gradgradcheck  # noqa: E402

CASES = [(kind, domain) for kind, (domains, *_) in TRANSFORMERS.items() for domain in domains]


def settings_of(kind, size=3):
    return transformers.describe(kind, size if transformers.SIZE_NAMES[kind] else 1)


def inputs(kind, domain, samples=3, coordinates=2, size=3):
    """x (D, N) and raw (R, N), away from the edges of bins only by chance."""
    generator = torch.Generator().manual_seed(3)
    x = 0.1 + 0.8 * torch.rand(coordinates, samples, dtype=torch.float64, generator=generator)
    circles = coordinates if domain == "circle" else 0
    rows = transformers.num_raw_parameters(settings_of(kind, size), coordinates - circles, circles)
    return x.requires_grad_(), (0.5 * torch.randn(rows, samples, dtype=torch.float64, generator=generator)).requires_grad_()


def function(kind, domain, inverse, coordinates=2, size=3):
    size, settings = transformers.size_and_settings(settings_of(kind, size))
    circular = [int(domain == "circle")] * coordinates
    return lambda x, raw: operators.transformer(x, raw, kind, circular, inverse, size, settings)


@pytest.fixture(autouse=True)
def repeatable():
    torch.manual_seed(1)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("kind, domain", CASES)
def test_derivatives(kind, domain, inverse):
    """First and second derivatives are those of finite differences."""
    assert gradcheck(function(kind, domain, inverse), inputs(kind, domain), fast_mode=True)
    assert gradgradcheck(function(kind, domain, inverse), inputs(kind, domain), fast_mode=True)


@pytest.mark.parametrize("kind, domain", CASES)
def test_values_and_gradients_are_those_of_autograd(kind, domain):
    """An independent implementation, differentiated by autograd: value, ln F', and the gradient of a sum of both."""
    x, raw = inputs(kind, domain, samples=40)
    value, log_slope = function(kind, domain, False)(x, raw)
    circular = torch.full((len(x),), domain == "circle")
    expected, slope = REFERENCES[kind](settings_of(kind), raw.t(), circular)(x.t())
    expected = expected.remainder(1.0) if domain == "circle" else expected
    assert torch.allclose(value, expected.t(), rtol=0, atol=1e-12)
    assert torch.allclose(log_slope, slope.log().t(), rtol=0, atol=1e-11)
    weights = torch.randn(2, *x.shape, dtype=torch.float64)
    own = torch.autograd.grad((weights[0] * value + weights[1] * log_slope).sum(), (x, raw))
    other = torch.autograd.grad((weights[0] * expected.t() + weights[1] * slope.log().t()).sum(), (x, raw))
    for a, b in zip(own, other):
        assert (a - b).abs().max() < 1e-9 * b.abs().max().clamp(min=1)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize("kind, domain", CASES)
def test_inverse(kind, domain, dtype, tolerance):
    x, raw = (t.detach().to(dtype) for t in inputs(kind, domain, samples=50, size=4))
    y, log_slope = function(kind, domain, False, size=4)(x, raw)
    back, log_inverse = function(kind, domain, True, size=4)(y, raw)
    distance = (back - x).abs()
    if domain == "circle":
        distance = torch.minimum(distance, 1 - distance)
    assert distance.max() < tolerance * log_slope.exp().reciprocal().max().clamp(min=1)
    assert (log_slope + log_inverse).abs().max() < 1e3 * tolerance


@pytest.mark.parametrize("inverse", [False, True])
def test_rational_quadratic_splines_are_those_of_nflows(inverse):
    """nflows on [0,1] with free slopes at both ends; its softplus has the sharpness 1."""
    splines = pytest.importorskip("nflows.transforms.splines.rational_quadratic")
    samples, coordinates, bins = 60, 3, 8
    x = torch.rand(coordinates, samples, dtype=torch.float64)
    blocks = [torch.randn(coordinates, rows, samples, dtype=torch.float64) for rows in (bins, bins, bins + 1)]
    w, h, s = blocks
    raw = torch.cat([w.flatten(0, 1), h.flatten(0, 1), s[:, :-1].flatten(0, 1), s[:, -1]])
    value, log_slope = operators.transformer(x, raw, "rationalQuadraticSpline", [0] * coordinates, inverse, bins, [1e-3, 1e-3, 1e-3, 1.0])
    expected, expected_slope = splines.rational_quadratic_spline(
        x, *(block.transpose(1, 2) for block in blocks), inverse=inverse)
    print(f"largest difference from nflows: {(value - expected).abs().max():.1e}, ln F' {(log_slope - expected_slope).abs().max():.1e}")
    # Its formulas subtract edges of bins from each other, and its search adds 1e-6 to the last edge.
    assert torch.allclose(value, expected, rtol=0, atol=1e-11)
    assert torch.allclose(log_slope, expected_slope, rtol=0, atol=1e-9)


@pytest.mark.parametrize("closed_form", ["density", "sampling"])
@pytest.mark.parametrize("kind", list(TRANSFORMERS))
@pytest.mark.parametrize("seed", range(2))
def test_module_is_the_model(kind, closed_form, seed):
    """FlowModule against FlowModel, whose reverse mode is another, in ln p, gradients and both directions; against autograd in the weights."""
    drawn = RandomArchitecture(7 * seed + len(kind))
    if kind != "affine":
        drawn.add_marginals()
    for _ in range(2):
        drawn.add_coupling(kind, closed_form=closed_form)
    architecture, tensors = drawn.model()
    module = FlowModule((architecture, tensors))
    model = FlowModel.from_bytes(module.to_bytes())
    positions = torch.from_numpy(drawn.positions)
    log_prob, gradient = module.log_prob_and_gradient(positions, create_graph=True)
    expected, expected_gradient = model.log_prob_and_gradient(drawn.positions)
    np.testing.assert_allclose(log_prob.detach(), expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(gradient.detach(), expected_gradient, rtol=0, atol=1e-9 * np.abs(expected_gradient).max())

    latent, _ = module.to_latent(positions)
    back, back_log_prob = module.to_positions(latent.detach())
    again, _ = module.to_latent(back)
    np.testing.assert_allclose(back_log_prob.detach(), expected, rtol=0, atol=1e-7)
    assert circular_distance(again.detach(), latent.detach()).max() < 1e-7

    if closed_form == "sampling":
        return    # the reference's roots have first derivatives alone; test_derivatives has the second ones

    # The loss of force matching, differentiated by other code.
    parameters = dict(module.named_parameters())
    own = torch.autograd.grad(log_prob.sum() + 1e-3 * gradient.square().sum(), list(parameters.values()))
    reference = ReferenceFlow(architecture, tensors)
    weights = {name: torch.from_numpy(tensors[name]).requires_grad_() for name in parameters}
    reference.tensors.update(weights)
    x = positions.clone().requires_grad_()
    other_log_prob = reference.log_prob(x)
    other_gradient, = torch.autograd.grad(other_log_prob.sum(), x, create_graph=True)
    other = torch.autograd.grad(other_log_prob.sum() + 1e-3 * other_gradient.square().sum(), list(weights.values()))
    scale = max(b.abs().max() for b in other if b.numel())
    assert max((a - b).abs().max() for a, b in zip(own, other) if b.numel()) < 1e-7 * scale


def circular_distance(a, b):
    distance = (a - b).abs()
    return torch.where(distance > 0.5, (1 - distance).abs(), distance)


@pytest.mark.parametrize("bonds, torsions", [("rationalQuadraticSpline", None), ("cubicBSpline", None), ("analytic", None),
                                             ("analytic", "moebius"), ("affine", "moebius"), ("affine", "analytic"),
                                             ("smoothMixture", "moebius")])
def test_builder(bonds, torsions):
    """The flow begins near the data: it is better than with torsions evenly spread, and C++ takes it."""
    random = np.random.default_rng(2)
    zigzag = np.array([[0.13 * i, 0.05 * (i % 2), 0.03 * (i % 3)] for i in range(6)])
    positions = zigzag + 0.004 * random.normal(size=(400, 6, 3))
    chain = [(i, i + 1) for i in range(5)]
    options = builder.FlowOptions(transformer=bonds, circle_transformer=torsions, width=8, depth=1, components=6)
    architecture, tensors = builder.build(chain, positions, temperature=300.0, options=options)
    kinds = {layer["transformer"]["type"] for layer in architecture["layers"] if layer["type"] == "coupling"}
    assert kinds == {bonds, torsions or bonds} and architecture["version"] == 2
    likelihood = FlowModel.from_bytes(model_file.pack(architecture, tensors)).log_prob(positions).mean()
    flat = {name: np.zeros_like(values) if ".networks." in name else values for name, values in tensors.items()}
    if bonds == "smoothMixture":
        architecture = {**architecture, "layers": [layer for layer in architecture["layers"] if layer["type"] != "coupling"]}
        flat = {name: values for name, values in flat.items() if ".networks." not in name}
    without = FlowModel.from_bytes(model_file.pack(architecture, flat)).log_prob(positions).mean()
    print(f"{bonds}, {torsions or bonds}: mean ln p {likelihood:.2f} at first, {without:.2f} with torsions evenly spread")
    assert likelihood > without + 1


def test_wrong_transformers():
    with pytest.raises(ValueError, match="transformer must be one of smoothMixture"):
        builder.FlowOptions(transformer="moebius")
    with pytest.raises(ValueError, match="circle_transformer must be one of"):
        builder.FlowOptions(circle_transformer="affine")
    with pytest.raises(ValueError, match="no bijection of the circle, on which torsions are: give a circle_transformer"):
        builder.FlowOptions(transformer="affine")
    x, raw = inputs("analytic", "interval")
    with pytest.raises(RuntimeError, match="Unknown transformer \"neural\"; known are rationalQuadraticSpline"):
        operators.transformer(x, raw, "neural", [0, 0], False, 3, [2.0, 0.9])
    with pytest.raises(RuntimeError, match="not for circular"):
        operators.transformer(x, raw, "affine", [0, 1], False, 1, [2.0])
    with pytest.raises(RuntimeError, match="has 2 settings, got 1"):
        operators.transformer(x, raw, "analytic", [0, 0], False, 3, [2.0])
    with pytest.raises(RuntimeError, match=r"raw must have shape \(18, 3\)"):
        operators.transformer(x, raw[1:], "analytic", [0, 0], False, 3, [2.0, 0.9])
    assert math.isclose(transformers.describe("rationalQuadraticSpline", 8)["slopeSharpness"], math.log(2) / (1 - 1e-3))
