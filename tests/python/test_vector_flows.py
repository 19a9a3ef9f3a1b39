# SPDX-License-Identifier: MIT
"""Flows of nflows and zuko as model files, against the originals."""
import numpy as np
import pytest
from openmmflow import FlowModel, model_file
from random_flow import conformations, displacements

torch = pytest.importorskip("torch", reason="these flows are modules of PyTorch")

from openmmflow.importers import nflows as from_nflows, zuko as from_zuko  # noqa: E402

WATER = {"z_matrix": [[1, -1, -1, -1], [0, 1, -1, -1], [2, 0, 1, -1]], "temperature": 300}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(3)


@pytest.fixture(scope="module")
def cartesian():
    """Reference and whitening of four particles in aligned Cartesian coordinates."""
    x = conformations(count=1, particles=4)[0]
    reference = x - x.mean(axis=0)
    return {"reference": reference, "whitening": displacements(reference) / 0.01, "temperature": 300, "bonds": [[0, 1], [1, 2], [2, 3]]}


def converted(convert, flow, **arguments):
    """What `convert` makes, compared with the original by the importer itself."""
    contents = convert(flow, **arguments)
    FlowModel.from_bytes(model_file.pack(*contents))
    return contents


class Network(torch.nn.Module):
    """As nflows calls them, with a context."""

    def __init__(self, inputs, outputs, activation=torch.tanh):
        super().__init__()
        self.hidden_features = 5
        self.first, self.last = torch.nn.Linear(inputs, 5), torch.nn.Linear(5, outputs)
        self.activation = activation

    def forward(self, x, context=None):
        return self.last(self.activation(self.first(x)))


def nflows_flow(features, *transforms, base=None):
    flows = pytest.importorskip("nflows.flows", reason="nflows is not installed (pip install nflows)")
    from nflows.distributions.normal import StandardNormal
    from nflows.transforms import CompositeTransform

    return flows.Flow(CompositeTransform(list(transforms)), base or StandardNormal([features]))


def nflows_transforms():
    return pytest.importorskip("nflows.transforms", reason="nflows is not installed (pip install nflows)")


def test_nflows_splines_of_internal_coordinates():
    """Water: standardization, the real line to [0,1] and back, splines whose outputs nflows scales, permutations."""
    t = nflows_transforms()
    scale = 1 / torch.tensor([0.003, 0.003, 0.02])
    flow = nflows_flow(
        3, t.PointwiseAffineTransform(-torch.tensor([0.097, 0.097, 0.58]) * scale, scale), t.Sigmoid(),
        t.PiecewiseRationalQuadraticCouplingTransform([1, 0, 1], Network, num_bins=5), t.ReversePermutation(3),
        t.InverseTransform(t.PiecewiseRationalQuadraticCouplingTransform([1, 0, 0], lambda i, o: Network(i, o, torch.nn.functional.silu), num_bins=4)),
        t.Permutation(torch.tensor([2, 0, 1])), t.Logit(), t.ActNorm(3))
    with torch.no_grad():
        flow._transform._transforms[-1].log_scale += torch.tensor([0.1, -0.2, 0.05])
        flow._transform._transforms[-1].initialized = torch.tensor(True)
    flow.eval()
    architecture, _ = converted(from_nflows.convert_flow, flow, **WATER)
    couplings = [layer for layer in architecture["layers"] if layer["type"] == "coupling"]
    assert [c["transformed"] for c in couplings] == [[0, 2], [2]]
    assert [c["conditionedOn"] for c in couplings] == [[1], [1, 0]]
    assert [c["transformer"]["closedForm"] for c in couplings] == ["density", "sampling"]
    assert [c["conditioner"]["activation"] for c in couplings] == ["tanh", "silu"]


def test_nflows_in_cartesian_coordinates(cartesian, tmp_path):
    t = nflows_transforms()
    flow = nflows_flow(6, t.AdditiveCouplingTransform([1, 0, 1, 0, 1, 0], Network), t.RandomPermutation(6),
                       t.InverseTransform(t.AdditiveCouplingTransform([0, 1, 1, 0, 1, 0], Network)))
    architecture, _ = converted(from_nflows.convert_flow, flow, **cartesian)
    assert [layer["type"] for layer in architecture["layers"]] == ["mixedCoordinates", "coupling", "coupling"]
    path = from_nflows.import_flow(flow, tmp_path / "model.safetensors", **cartesian)
    assert FlowModel.load(path).num_particles == 4


def test_nflows_that_cannot_be_converted(cartesian):
    t = nflows_transforms()

    def refused(message, *transforms, **arguments):
        with pytest.raises(ValueError, match=message):
            from_nflows.convert_flow(nflows_flow(3, *transforms), check=0, **(arguments or WATER))

    refused("transform 0, AffineCouplingTransform: its scale is logistic", t.AffineCouplingTransform([1, 0, 0], Network))
    refused("transform 0, LULinear: LULinear is unknown. Known are", t.LULinear(3))
    refused("splines with tails are unknown", t.PiecewiseRationalQuadraticCouplingTransform([1, 0, 0], Network, tails="linear"))
    refused("the network Network is no chain of linear layers with one activation", t.AdditiveCouplingTransform(
        [1, 0, 0], lambda i, o: Network(i, o, torch.relu)))
    chain = {"z_matrix": [*WATER["z_matrix"], [3, 2, 0, 1]], "temperature": 300}
    mask = [0, 0, 1, 0, 0, 0]
    with pytest.raises(ValueError, match="reads coordinate 5, a torsion, as a number"):
        from_nflows.convert_flow(nflows_flow(6, t.AdditiveCouplingTransform(mask, Network)), check=0, **chain)
    with pytest.raises(ValueError, match="either a z_matrix, or reference and whitening"):
        from_nflows.convert_flow(nflows_flow(3), temperature=300)


def test_zuko_in_cartesian_coordinates(cartesian, tmp_path):
    zuko = pytest.importorskip("zuko", reason="zuko is not installed (pip install zuko)")
    flow = zuko.flows.NICE(6, transforms=4, univariate=zuko.transforms.AdditiveTransform, shapes=[()], hidden_features=(7, 8), activation=torch.nn.Tanh)
    extra = [zuko.lazy.UnconditionalTransform(torch.distributions.AffineTransform, torch.randn(6), torch.rand(6) + 0.5),
             zuko.lazy.UnconditionalTransform(zuko.transforms.PermutationTransform, torch.randperm(6), buffer=True)]
    flow = zuko.lazy.Flow([*flow.transform.transforms, *extra], flow.base)
    architecture, _ = converted(from_zuko.convert_flow, flow, **cartesian)
    assert [layer["type"] for layer in architecture["layers"]] == ["mixedCoordinates", *4 * ["coupling"], "affineNormalization"]
    # By way of [0,1] and back.
    sigmoid = zuko.lazy.UnconditionalTransform(torch.distributions.SigmoidTransform)
    logit = zuko.lazy.UnconditionalTransform(lambda: torch.distributions.SigmoidTransform().inv)
    flow = zuko.lazy.Flow([*flow.transform.transforms, sigmoid, logit], flow.base)
    architecture, _ = converted(from_zuko.convert_flow, flow, **cartesian)
    assert [layer["type"] for layer in architecture["layers"][-2:]] == ["logistic", "logit"]
    path = from_zuko.import_flow(flow, tmp_path / "model.safetensors", **cartesian)
    assert FlowModel.load(path).num_particles == 4


def test_zuko_that_cannot_be_converted(cartesian):
    zuko = pytest.importorskip("zuko", reason="zuko is not installed (pip install zuko)")
    for flow, message in ((zuko.flows.NICE(6), "transform 0, GeneralCouplingTransform: the univariate transformation MonotonicAffineTransform is unknown"),
                          (zuko.flows.MAF(6), "transform 0, MaskedAutoregressiveTransform: MaskedAutoregressiveTransform is unknown")):
        with pytest.raises(ValueError, match=message):
            from_zuko.convert_flow(flow, check=0, **cartesian)
