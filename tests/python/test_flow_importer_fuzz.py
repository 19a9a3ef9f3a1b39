# SPDX-License-Identifier: MIT
"""Live flows of nflows, zuko and bgflow put together and damaged at random: the importer gives a model that agrees with the flow, or a ValueError
that says why not, and nothing else. OPENMMFLOW_FUZZ_EXAMPLES=10000 makes a long run of it, with other examples each time."""
import os
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openmmflow import FlowModel, model_file

torch = pytest.importorskip("torch", reason="these flows are modules of PyTorch")
pytestmark = pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")

from damaged_modules import TENSORS, VALUES, damaged, places  # noqa: E402
from openmmflow.importers import bgflow, nflows as from_nflows, zuko as from_zuko  # noqa: E402
from random_flow import conformations, displacements  # noqa: E402

EXAMPLES = int(os.environ.get("OPENMMFLOW_FUZZ_EXAMPLES", 0))
MANY = settings(max_examples=EXAMPLES or 120, derandomize=not EXAMPLES, deadline=None, database=None,
                suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])

WATER = {"z_matrix": [[1, -1, -1, -1], [0, 1, -1, -1], [2, 0, 1, -1]], "temperature": 300}
CHAIN = {"z_matrix": [*WATER["z_matrix"], [3, 2, 0, 1]], "temperature": 300}
REFERENCE = conformations(count=1, particles=4)[0]
REFERENCE -= REFERENCE.mean(axis=0)
CARTESIAN = {"reference": REFERENCE, "whitening": displacements(REFERENCE) / 0.01, "temperature": 300}
COORDINATES = {"water": (WATER, 3), "chain": (CHAIN, 6), "cartesian": (CARTESIAN, 6)}
ARGUMENTS = ("z_matrix", "reference", "whitening", "temperature", "measure", "bonds", "data", "check", "tolerance")
STRANGE = (None, "", "frame", -1, 0, 100, 0.5, float("nan"), float("inf"), [], [[0, 1]], [[0, -1, -1, -1]], [[0, 0, 0, 0]] * 3,
           [[-7, 1, 2, 99]] * 4,
           {}, {"a": float("nan")}, np.zeros((0, 3)), np.zeros((4, 3)), np.full((6, 12), np.nan), np.eye(12), np.eye(6))

numbers = st.sampled_from([-1.0, 0.0, 1e-300, 1e-3, 0.5, 1.0, 2.0, 50.0, 1e300, float("nan"), float("inf")])
usual = st.floats(0.5, 2.0)
activations = st.sampled_from([torch.tanh, torch.tanh, torch.nn.functional.silu, torch.sin, torch.relu, torch.sigmoid])


class Network(torch.nn.Module):
    """As nflows calls them, with a context."""

    def __init__(self, inputs, outputs, activation=torch.tanh, hidden=4, residual=False):
        super().__init__()
        self.hidden_features = hidden
        self.first, self.last = torch.nn.Linear(inputs, hidden), torch.nn.Linear(hidden, outputs)
        self.activation, self.residual = activation, residual

    def forward(self, x, context=None):
        h = self.activation(self.first(x))
        return self.last(h + h.roll(1) if self.residual else h)


def outcome(convert, flow, arguments) -> bool:
    """Whether an importer takes a flow; then it is a valid model."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            contents = convert(flow, **arguments)
            FlowModel.from_bytes(model_file.pack(*contents))
        except ValueError as error:
            assert len(str(error)) > 10, "an error says what is wrong"
            return False
    return True


def changes():
    """None, or how to change one thing of a flow: the number of a place, and a change."""
    return st.none() | st.none() | st.tuples(st.integers(0, 10**4), st.sampled_from([*TENSORS, *TENSORS, *VALUES]))


@st.composite
def arguments_of(draw, coordinates):
    """Arguments of an importer, now and then with one that is wrong."""
    arguments = dict(COORDINATES[coordinates][0], check=draw(st.sampled_from([0, 4, 4])),
                     measure=draw(st.sampled_from(["cartesian", "frame"])))
    if draw(st.integers(0, 7)) == 0:
        arguments[draw(st.sampled_from(ARGUMENTS))] = draw(st.sampled_from(STRANGE))
    return arguments


def changed(flow, change):
    """The flow after a change, if there is one and it can be made."""
    if change is None:
        return flow
    where = places(flow)
    result = damaged(flow, where[change[0] % len(where)], change[1])
    return flow if result is None else result


@st.composite
def masks(draw, features):
    """Which features a coupling transforms; hardly ever all or none of them."""
    mask = draw(st.lists(st.integers(0, 1), min_size=features, max_size=features))
    return mask if 0 < sum(mask) < features or draw(st.integers(0, 9)) == 0 else [1, *[0] * (features - 1)]


# --- nflows ------------------------------------------------------------------------------------------------------------------

@st.composite
def nflows_steps(draw, features):
    t = pytest.importorskip("nflows.transforms", reason="nflows is not installed (pip install nflows)")
    activation, residual, mask = draw(activations), draw(st.integers(0, 9)) == 0, draw(masks(features))

    def network(inputs, outputs):
        return Network(inputs, outputs, activation, residual=residual)

    def spline():
        return t.PiecewiseRationalQuadraticCouplingTransform(
            mask, network, num_bins=draw(st.integers(1, 6)), tails=draw(st.sampled_from([None, None, None, "linear"])),
            min_bin_width=draw(st.sampled_from([1e-3, 1e-2, 0.3])), min_derivative=draw(st.sampled_from([1e-3, 0.1])))

    def affine():
        values = usual if draw(st.integers(0, 4)) else numbers
        shift, scale = (torch.tensor(draw(st.lists(v, min_size=features, max_size=features))) for v in (values, usual))
        return t.PointwiseAffineTransform(shift, scale)

    make = draw(st.sampled_from([
        spline, spline, affine, affine, lambda: t.AdditiveCouplingTransform(mask, network),
        lambda: t.AdditiveCouplingTransform(mask, network),
        lambda: t.Permutation(torch.tensor(draw(st.permutations(range(features))))), lambda: t.ActNorm(features), t.Sigmoid,
        t.Sigmoid, t.Logit,
        lambda: t.AffineCouplingTransform(mask, network), lambda: t.LULinear(features), t.IdentityTransform]))
    return t.InverseTransform(make()) if draw(st.integers(0, 3)) == 0 else make()


@st.composite
def nflows_cases(draw):
    flows = pytest.importorskip("nflows.flows", reason="nflows is not installed (pip install nflows)")
    from nflows.distributions.normal import StandardNormal
    from nflows.distributions.uniform import BoxUniform
    from nflows.transforms import CompositeTransform

    torch.manual_seed(draw(st.integers(0, 99)))
    coordinates = draw(st.sampled_from(["water", "water", "cartesian", "cartesian", "chain"]))
    features = COORDINATES[coordinates][1]
    steps = draw(st.lists(nflows_steps(features), max_size=4))
    base = BoxUniform(torch.zeros(features), torch.ones(features)) if draw(st.integers(0, 3)) == 0 else StandardNormal([features])
    flow = flows.Flow(CompositeTransform(steps), base).eval()
    return changed(flow, draw(changes())), draw(arguments_of(coordinates))


# --- zuko --------------------------------------------------------------------------------------------------------------------

@st.composite
def zuko_steps(draw, features):
    zuko = pytest.importorskip("zuko", reason="zuko is not installed (pip install zuko)")
    lazy, t = zuko.lazy.UnconditionalTransform, zuko.transforms

    def coupling(**options):
        mask = draw(masks(features).filter(lambda mask: 0 < sum(mask) < features))    # zuko wants some of each
        return zuko.flows.coupling.GeneralCouplingTransform(
            features, mask=torch.tensor(mask, dtype=torch.bool), hidden_features=draw(st.sampled_from([(), (3,), (4, 5)])),
            activation=draw(st.sampled_from([torch.nn.Tanh, torch.nn.SiLU, torch.nn.ReLU])), **options)

    def affine():
        values = usual if draw(st.integers(0, 4)) else numbers
        shift, scale = (torch.tensor(draw(st.lists(v, min_size=features, max_size=features))) for v in (values, usual))
        return lazy(torch.distributions.AffineTransform, shift, scale)

    additive = {"univariate": t.AdditiveTransform, "shapes": [()]}
    return draw(st.sampled_from([
        affine, affine, coupling, *5 * [lambda: coupling(**additive)], lambda: lazy(t.SigmoidTransform),
        lambda: lazy(t.IdentityTransform),
        lambda: lazy(lambda: t.SigmoidTransform().inv),
        lambda: lazy(t.PermutationTransform, torch.tensor(draw(st.permutations(range(features)))), buffer=True),
        lambda: lazy(t.RotationTransform, torch.randn(features, features)),
        lambda: zuko.flows.autoregressive.MaskedAutoregressiveTransform(features)]))()


@st.composite
def zuko_cases(draw):
    zuko = pytest.importorskip("zuko", reason="zuko is not installed (pip install zuko)")
    torch.manual_seed(draw(st.integers(0, 99)))
    coordinates = draw(st.sampled_from(["water", "water", "cartesian", "cartesian", "chain"]))
    features = COORDINATES[coordinates][1]
    steps = draw(st.lists(zuko_steps(features), max_size=4))
    make, *numbers = draw(st.sampled_from([*3 * [(zuko.distributions.DiagNormal, 0.0, 1.5)],
                                           (zuko.distributions.DiagNormal, 0.1, 1.0),
                                           (zuko.distributions.BoxUniform, 0.0, 1.0), (torch.distributions.Laplace, 0.0, 1.0)]))
    base = zuko.lazy.UnconditionalDistribution(make, *(torch.full((features,), value) for value in numbers), buffer=True)
    return changed(zuko.lazy.Flow(steps, base), draw(changes())), draw(arguments_of(coordinates))


# --- bgflow ------------------------------------------------------------------------------------------------------------------

@st.composite
def bgflow_cases(draw):
    """Flows of modules that are named as bgflow's are, with blocks left out, doubled or exchanged."""
    from test_bgflow_modules import ARGUMENTS as GIVEN, generator_of, global_flow, mixed_flow

    torch.manual_seed(draw(st.integers(0, 99)))
    kind = draw(st.sampled_from(["smooth", "spline", "mixed", "block", "relative"]))
    if kind in ("block", "relative"):
        generator = mixed_flow(relative=kind == "relative")
    else:
        generator = generator_of(global_flow(kind), 5, 4, 3)
    flow, blocks = generator._flow, generator._flow._blocks
    for move in draw(st.lists(st.sampled_from(["drop", "double", "exchange"]), max_size=1)):
        i, j = (draw(st.integers(0, len(blocks) - 1)) for _ in range(2))
        order = list(blocks)
        if move == "exchange":
            order[i], order[j] = order[j], order[i]
        else:
            order[i:i + 1] = [] if move == "drop" else [order[i], order[i]]
        flow._blocks = torch.nn.ModuleList(order)
    generator._flow = changed(flow, draw(changes()))
    arguments = dict(GIVEN)
    if draw(st.integers(0, 5)) == 0:
        arguments[draw(st.sampled_from(["temperature", "measure", "bonds", "data", "check", "positions", "tolerance",
                                        "prior"]))] = draw(st.sampled_from(STRANGE))
    return generator, arguments


# --- The tests ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("convert, cases", [(from_nflows.convert_flow, nflows_cases()), (from_zuko.convert_flow, zuko_cases()),
                                            (bgflow.convert_generator, bgflow_cases())], ids=["nflows", "zuko", "bgflow"])
def test_a_model_or_a_reason(convert, cases):
    results = []

    @MANY
    @given(cases)
    def every_case(case):
        results.append(outcome(convert, *case))

    every_case()
    print(f"{results.count(True)} flows are models, {results.count(False)} are refused")
    assert min(results.count(True), results.count(False)) >= len(results) // 20
