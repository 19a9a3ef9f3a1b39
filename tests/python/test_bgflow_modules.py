# SPDX-License-Identifier: MIT
"""Live flows of bgflow as model files: with modules of the same names in every test, with bgflow itself where it is installed."""
import copy
import warnings

import numpy as np
import pytest
from openmmflow import FlowModel, model_file
from openmmflow.builder import CONSTANT_BOND_REACH
from openmmflow.importers import bgflow

torch = pytest.importorskip("torch", reason="bgflow's flows are modules of PyTorch")

import bgflow_lookalikes as looks  # noqa: E402
from bgflow_lookalikes import DenseNet, WrapFlow, WrapPeriodic  # noqa: E402
from random_flow import conformations, rotation  # noqa: E402

Z_MATRIX = [[0, -1, -1, -1], [1, 0, -1, -1], [2, 1, 0, -1], [3, 2, 1, 0], [4, 3, 2, 1], [5, 4, 3, 2]]
BLOCK = [0, 1, 2, 3]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(5)


def truncated(mean, std, count, lower=0.0, upper=np.inf):
    full = lambda value: torch.full((count,), float(value))  # noqa: E731
    return looks.TruncatedNormalDistribution(full(mean), full(std), full(lower), full(upper))


def uniform(count):
    return looks.UniformDistribution(torch.zeros(count), torch.ones(count))


def network(inputs, outputs, circular=(), *, circular_first=True, activation=torch.nn.SiLU):
    """A conditioner of `inputs` coordinates."""
    net = DenseNet([inputs + len(circular), 6, outputs], activation)
    return WrapPeriodic(net, np.array(circular), circular_first) if len(circular) else net


def spline(cond, size, circular, is_circular, bins=4, **options):
    """`size` coordinates, `cond` inputs of which `circular` are."""
    flags = np.broadcast_to(is_circular, size)
    outputs = 3 * bins * size + int((~flags).sum())
    return looks.ConditionalSplineTransformer(network(cond, outputs, circular), is_circular, **options)


def smooth(cond, size, circular, periodic, components=3, *, wrap=True):
    parts = [network(cond, size * components * m, circular, circular_first=False, activation=torch.nn.Tanh) for m in (1, 1, 3)]
    mixture = looks.MixtureCDFTransformer(parts[0], looks.AffineSigmoidComponents(looks.SmoothRamp(parts[1]), parts[2], periodic))
    return looks.WrapCDFTransformerWithInverse(mixture) if wrap else mixture


def global_flow(transformers="spline", *, extra=()):
    """Splits of torsions, couplings of everything, marginals, global internal coordinates."""
    make = {"spline": lambda *a: spline(*a), "smooth": lambda *a: smooth(*a),
            "mixed": lambda *a: (smooth if a[3] else lambda *b: spline(*b, identity_init=True))(*a)}[transformers]
    z_matrix = np.array(Z_MATRIX)
    blocks = [
        WrapFlow(looks.SplitFlow(1, 2), (2,), (2, 3)),
        looks.CouplingFlow(make(2, 1, [0, 1], True), [2], [3]),
        looks.CouplingFlow(make(1, 2, [0], True), [3], [2]),
        looks.SwapFlow(), looks.SwapFlow(),
        WrapFlow(looks.MergeFlow([2], [0, 1]), (2, 3), (2,)),
        looks.CouplingFlow(make(3, 4, [0, 1, 2], False), [1], [2]),
        looks.CouplingFlow(make(7, 5, [4, 5, 6], False), [0], [1, 2]),
        *extra,
        WrapFlow(looks.InverseFlow(looks.CDFTransform(truncated(0.15, 0.02, 5, 0.02))), (0,)),
        WrapFlow(looks.InverseFlow(looks.CDFTransform(truncated(0.62, 0.1, 4, 0.1, 0.95))), (1,)),
        WrapFlow(looks.InverseFlow(looks.CDFTransform(looks.SloppyUniform(torch.zeros(3), torch.ones(3)))), (2,)),
        looks.SetConstantFlow([3], [torch.zeros(1, 3)]), looks.SetConstantFlow([4], [torch.full((3,), 0.5)]),
        WrapFlow(looks.InverseFlow(looks.GlobalInternalCoordinateTransformation(z_matrix)), (0, 1, 2, 3, 4), (0,)),
    ]
    return looks.SequentialFlow(blocks)


def generator_of(flow, *sizes):
    return looks.BoltzmannGenerator(looks.ProductDistribution([uniform(size) for size in sizes]), flow)


POSITIONS = conformations(count=12)
ARGUMENTS = {"temperature": 310, "measure": "frame", "positions": POSITIONS, "tolerance": 2e-5}


def converted(generator, **arguments):
    """Architecture and tensors, compared with the original by the importer itself."""
    return bgflow.convert_generator(generator, **ARGUMENTS | arguments)


@pytest.mark.parametrize("transformers, version", [("smooth", 1), ("spline", 2), ("mixed", 2)])
def test_global_coordinates(transformers, version):
    """What the converter makes agrees with the modules it was made from."""
    architecture, tensors = converted(generator_of(global_flow(transformers), 5, 4, 3), data={"environment": "vacuum"})
    assert architecture["version"] == version and architecture["temperature"] == 310
    assert architecture["data"] == {"environment": "vacuum", "method": "imported from bgflow"}
    couplings = [layer for layer in architecture["layers"] if layer["type"] == "coupling"]
    # The merge by indices puts torsion 2 of the vector before the others.
    assert [c["transformed"] for c in couplings] == [[0, 1, 2, 3, 4], [5, 6, 7, 8], [9, 10], [11]]
    assert [c["conditionedOn"] for c in couplings] == [[5, 6, 7, 8, 9, 10, 11], [9, 10, 11], [11], [9, 10]]
    assert all(tensor.dtype == np.float32 for name, tensor in tensors.items() if "networks" in name)


def test_measure_cartesian_is_the_same_distribution():
    flow = global_flow("smooth")
    frame = FlowModel.from_bytes(model_file.pack(*bgflow.convert_generator(flow, **ARGUMENTS)))
    cartesian = FlowModel.from_bytes(model_file.pack(*bgflow.convert_generator(flow, **ARGUMENTS | {"measure": "cartesian"})))
    x = POSITIONS
    d01, d12 = x[:, 1] - x[:, 0], x[:, 2] - x[:, 1]
    lengths = [np.linalg.norm(d, axis=-1) for d in (d01, d12)]
    sine = np.linalg.norm(np.cross(d01, d12), axis=-1) / lengths[0] / lengths[1]
    expected = np.log(lengths[0]**2 * lengths[1] * sine) + np.log(8 * np.pi**2)
    np.testing.assert_allclose(frame.log_prob(x) - cartesian.log_prob(x), expected, rtol=1e-10)


def test_import_writes_a_file(tmp_path):
    path = bgflow.import_generator(generator_of(global_flow("smooth"), 5, 4, 3), tmp_path / "model.safetensors", **ARGUMENTS)
    assert FlowModel.load(path).num_particles == 6


def mixed_flow(*, relative=False, dimensions=6):
    """A block of four atoms, two placed from it; real coordinates of the block with affine maps and a shift."""
    if relative:
        transform, size = looks.RelativeInternalCoordinateTransformation(Z_MATRIX[4:], BLOCK), 12
    else:
        size = dimensions
        basis, _ = torch.linalg.qr(torch.randn(12, size))
        mean = torch.tensor(POSITIONS[0, BLOCK].reshape(-1), dtype=torch.float32)
        transform = looks.MixedCoordinateTransformation(Z_MATRIX[4:], BLOCK, mean, basis / 0.3)
    half = size // 2
    blocks = [
        WrapFlow(looks.SplitFlow(half), (3,), (3, 4)),
        looks.CouplingFlow(looks.AffineTransformer(network(2 + size - half, half, [0, 1]), network(2 + size - half, half, [0, 1])), [3], [2, 4]),
        looks.CouplingFlow(looks.AffineTransformer(network(half, size - half)), [4], [3]),
        WrapFlow(looks.MergeFlow(half, size - half), (3, 4), (3,)),
        WrapFlow(looks.AffineFlow(0.1 * torch.randn(size), torch.randn(size)), (3,)),
        looks.CouplingFlow(looks.AffineTransformer(network(2, 2), is_circular=True), [2], [1]),
        WrapFlow(looks.CircularShiftFlow(torch.tensor([0.3, 0.9])), (2,)),
        looks.CouplingFlow(spline(size, 2, [], True), [2], [3]),
        WrapFlow(looks.InverseFlow(looks.CDFTransform(truncated(0.15, 0.02, 2, 0.02))), (0,)),
        WrapFlow(looks.InverseFlow(transform), (0, 1, 2, 3), (0,)),
    ]
    parts = [uniform(2), truncated(0.6, 0.2, 2, 0.05, 0.98), uniform(2), looks.NormalDistribution(torch.randn(size))]
    return looks.BoltzmannGenerator(looks.ProductDistribution(parts), looks.SequentialFlow(blocks))


@pytest.mark.parametrize("relative", [False, True])
def test_mixed_coordinates(relative):
    """Mixed and relative coordinates, affine and circular affine couplings, shifts, normal and truncated normal priors."""
    architecture, _ = converted(mixed_flow(relative=relative))
    kinds = [layer["type"] for layer in architecture["layers"]]
    assert kinds[0] == "mixedCoordinates" and {"circularShift", "affineNormalization", "marginal"} <= set(kinds)
    transformers = [layer["transformer"]["type"] for layer in architecture["layers"] if layer["type"] == "coupling"]
    assert transformers == ["rationalQuadraticSpline", "analytic", "affine", "affine"]
    assert {entry["distribution"] for entry in architecture["base"]} == {"uniform", "normal"}


def test_mixed_coordinates_for_dynamics():
    model = FlowModel.from_bytes(model_file.pack(*converted(mixed_flow(), measure="cartesian")))
    turned = POSITIONS @ rotation(np.random.default_rng(0)).T + 0.3
    np.testing.assert_allclose(model.log_prob(turned), model.log_prob(POSITIONS), rtol=1e-8)
    with pytest.raises(ValueError, match='needs 6 dimensions of the block of 4 atoms, this flow keeps 5'):
        converted(mixed_flow(dimensions=5), measure="cartesian")


@pytest.mark.parametrize("relative", [False, True])
def test_checkpoints_with_mixed_coordinates(relative):
    """Put together as smooth_normalizing_flows does for its Z-matrices "z1" to "z3": from the weights alone what the live flow gives."""
    if relative:
        transform, size = looks.RelativeInternalCoordinateTransformation(Z_MATRIX[4:], BLOCK), 12
    else:
        size = 6
        mean = torch.tensor(POSITIONS[0, BLOCK].reshape(-1), dtype=torch.float32)
        transform = looks.MixedCoordinateTransformation(Z_MATRIX[4:], BLOCK, mean, torch.linalg.qr(torch.randn(12, size))[0])
    edges = {0: (0.05, 0.3), 1: (0.15, 1.0), 3: (-9.0, 9.0)}
    marginals = [looks.SloppyUniform(torch.full((n,), edges[field][0]), torch.full((n,), edges[field][1])) if field in edges else
                 looks.SloppyUniform(torch.zeros(n), torch.ones(n)) for field, n in enumerate((2, 2, 2, size))]
    flow = looks.SequentialFlow([
        looks.CouplingFlow(smooth(size, 2, [], True), [2], [3]),
        looks.CouplingFlow(smooth(2, size, [0, 1], False), [3], [2]),
        looks.CouplingFlow(smooth(2 + size, 2, [0, 1], False), [1], [2, 3]),
        looks.CouplingFlow(smooth(4 + size, 2, [2, 3], False), [0], [1, 2, 3]),
        *(WrapFlow(looks.InverseFlow(looks.CDFTransform(marginal)), (field,)) for field, marginal in enumerate(marginals)),
        WrapFlow(looks.InverseFlow(transform), (0, 1, 2, 3), (0,))])
    fields = ("BONDS", "ANGLES", "TORSIONS", "FIXED")
    spec = {
        "temperature": 310, "measure": "frame", "z_matrix": Z_MATRIX[4:], "fixed_atoms": BLOCK, "activation": "tanh",
        "fields": {name: {"size": n, "circular": name == "TORSIONS"} for name, n in zip(fields, (2, 2, 2, size))},
        "marginal_blocks": dict(zip(fields, range(4, 8))),
        "couplings_in_density_direction": [
            {"block": 3, "transform": "BONDS", "on": ["ANGLES", "TORSIONS", "FIXED"]},
            {"block": 2, "transform": "ANGLES", "on": ["TORSIONS", "FIXED"]},
            {"block": 1, "transform": "FIXED", "on": "TORSIONS"}, {"block": 0, "transform": "TORSIONS", "on": "FIXED"}],
    } | ({} if relative else {"whitening_block": 8})
    state_dict = {f"_flow.{key}": value for key, value in flow.state_dict().items()}
    # Buffers in bgflow.
    for block, marginal in enumerate(marginals, 4):
        state_dict |= {f"_flow._blocks.{block}._flow._delegate.distribution.{name}": getattr(marginal, name) for name in ("low", "high")}
    read = FlowModel.from_bytes(model_file.pack(*bgflow.convert_state_dict(state_dict, spec)))
    live = FlowModel.from_bytes(model_file.pack(*converted(generator_of(flow, 2, 2, 2, size))))
    np.testing.assert_allclose(read.log_prob(POSITIONS), live.log_prob(POSITIONS), rtol=1e-12)
    assert np.isfinite(read.log_prob(POSITIONS)).all()
    if not relative:
        # For dynamics: aligned first.
        cartesian = FlowModel.from_bytes(model_file.pack(*bgflow.convert_state_dict(state_dict, spec | {"measure": "cartesian"})))
        turned = POSITIONS @ rotation(np.random.default_rng(0)).T + 0.3
        np.testing.assert_allclose(cartesian.log_prob(turned), cartesian.log_prob(POSITIONS), rtol=1e-8)
        with pytest.raises(ValueError, match="_whiten.Twhiten has the shape .12, 6., expected .12, 5. for 4 fixed atoms and 5 coordinates"):
            bgflow.convert_state_dict(state_dict, spec | {"fields": spec["fields"] | {"FIXED": {"size": 5, "circular": False}}})
    with pytest.raises(ValueError, match="block 4, the mixed coordinates, has no ..._whiten.X0mean"):
        bgflow.convert_state_dict(state_dict, spec | {"whitening_block": 4})
    with pytest.raises(ValueError, match="without entries -1"):
        bgflow.convert_state_dict(state_dict, spec | {"z_matrix": [*Z_MATRIX[4:], [6, 0, 1, -1]]})


def spline_checkpoint(*, inverse=False):
    """The live flow, its state_dict with what is a buffer in bgflow, and its spec."""
    flow = global_flow("spline")
    for module in flow.modules():
        if isinstance(module, WrapPeriodic):
            module.circular_first = False    # the order of smooth_normalizing_flows
    state_dict = {f"model._flow.{key}": value for key, value in flow.state_dict().items()}
    if inverse:
        state_dict = {key.replace("._params_net", "._delegate._params_net"): value for key, value in state_dict.items()}
    for block, values in {8: {"_mu": 0.15, "_sigma": 0.02, "_lower_bound": 0.02, "_upper_bound": np.inf},
                          9: {"_mu": 0.62, "_sigma": 0.1, "_lower_bound": 0.1, "_upper_bound": 0.95}, 10: {"low": 0.0, "high": 1.0}}.items():
        state_dict |= {f"model._flow._blocks.{block}._flow._delegate.distribution.{name}": torch.tensor(value) for name, value in values.items()}
    spec = {
        "temperature": 310, "measure": "frame", "z_matrix": Z_MATRIX, "activation": "silu", "transformer": "rationalQuadraticSpline",
        "fields": {"BONDS": {"size": 5, "circular": False}, "ANGLES": {"size": 4, "circular": False}, "TORSIONS": {"size": 3, "circular": True}},
        # The merge by indices puts torsion 2 of the vector before the others.
        "splits": {"TORSIONS": {"T1": [2, 3], "T2": [0, 2]}}, "marginal_blocks": {"BONDS": 8, "ANGLES": 9, "TORSIONS": 10},
        "couplings_in_density_direction": [
            {"block": 7, "transform": "BONDS", "on": ["ANGLES", "TORSIONS"]}, {"block": 6, "transform": "ANGLES", "on": "TORSIONS"},
            {"block": 2, "transform": "T2", "on": "T1"}, {"block": 1, "transform": "T1", "on": "T2"}]}
    return flow, state_dict, spec


def test_checkpoints_of_splines():
    flow, state_dict, spec = spline_checkpoint()
    architecture, tensors = bgflow.convert_state_dict(state_dict, spec)
    live = FlowModel.from_bytes(model_file.pack(*converted(generator_of(flow, 5, 4, 3))))
    read = FlowModel.from_bytes(model_file.pack(architecture, tensors))
    assert architecture["version"] == 2
    np.testing.assert_allclose(read.log_prob(POSITIONS), live.log_prob(POSITIONS), atol=1e-5)
    assert [layer["transformer"]["closedForm"] for layer in architecture["layers"] if layer["type"] == "coupling"] == 4 * ["density"]
    architecture, _ = bgflow.convert_state_dict(*spline_checkpoint(inverse=True)[1:])
    assert [layer["transformer"]["closedForm"] for layer in architecture["layers"] if layer["type"] == "coupling"] == 4 * ["sampling"]
    with pytest.raises(ValueError, match="block 7: _params_net has 65 outputs, which is no number of bins of a cubicBSpline for the 5 coordinates"):
        bgflow.convert_state_dict(state_dict, spec | {"transformer": "cubicBSpline"})
    with pytest.raises(ValueError, match="block 7 is no coupling with one smooth mixture transformer"):
        bgflow.convert_state_dict(state_dict, {key: value for key, value in spec.items() if key != "transformer"})
    with pytest.raises(ValueError, match="transformer 'planar' is unknown; known are smoothMixture"):
        bgflow.convert_state_dict(state_dict, spec | {"transformer": "planar"})


def test_checkpoints_of_cubic_b_splines():
    """Two numbers for each bin, and six more for each interval; the sampling direction evaluates the spline."""
    _, state_dict, spec = spline_checkpoint()
    for coupling, size, intervals in zip(spec["couplings_in_density_direction"], (5, 4, 2, 1), (5, 4, 0, 0)):
        last = sorted(key for key in state_dict if f"_blocks.{coupling['block']}." in key and key.endswith("weight"))[-1]
        outputs = 2 * 7 * size + 6 * intervals
        state_dict[last] = torch.randn(outputs, state_dict[last].shape[1])
        state_dict[last.removesuffix("weight") + "bias"] = torch.randn(outputs)
    architecture, tensors = bgflow.convert_state_dict(state_dict, spec | {"transformer": "cubicBSpline"})
    transformers = [layer["transformer"] for layer in architecture["layers"] if layer["type"] == "coupling"]
    assert transformers == 4 * [{"type": "cubicBSpline", "closedForm": "sampling", "bins": 7, "minimumWidth": 1e-6, "minimumIncrement": 1e-6}]
    assert np.isfinite(FlowModel.from_bytes(model_file.pack(architecture, tensors)).log_prob(POSITIONS)).all()


def test_constrained_bonds():
    """add_merge_constraints: a constant bond is a narrow marginal, and a constraint of the model."""
    flow = global_flow("smooth")
    coordinates = flow._blocks[-1]
    flow = looks.SequentialFlow([
        WrapFlow(looks.InverseFlow(looks.CDFTransform(truncated(0.15, 0.02, 4, 0.02))), (0,)),
        looks.SetConstantFlow([3], [torch.tensor([0.15])]),
        WrapFlow(looks.MergeFlow([0, 1, 3, 4], [2]), (0, 3), (0,)),
        WrapFlow(looks.InverseFlow(looks.CDFTransform(truncated(0.62, 0.1, 4, 0.1, 0.95))), (1,)),
        looks.SetConstantFlow([3], [torch.zeros(1, 3)]), looks.SetConstantFlow([4], [torch.full((3,), 0.5)]), coordinates])
    x = POSITIONS.copy()
    # The bond between 3 and 2 gets the length 0.15 by moving all beyond it.
    bond = x[:, 3] - x[:, 2]
    x[:, 3:] += (bond * (0.15 / np.linalg.norm(bond, axis=-1, keepdims=True) - 1))[:, None]
    architecture, _ = bgflow.convert_generator(generator_of(flow, 4, 4, 3), **ARGUMENTS | {"positions": x})
    assert [[i, j, round(d, 6)] for i, j, d in architecture["constraints"]] == [[3, 2, 0.15]]
    assert {"distribution": "uniform", "coordinates": [2]} in architecture["base"]


class Unheard(looks.Flow):
    pass


def broken(change):
    """A flow with one of its modules changed."""
    def make():
        flow = global_flow("spline")
        return change(flow) or flow
    return make


def with_block(index, block):
    def change(flow):
        flow._blocks[index] = block
    return broken(change)


def with_conditioner(net, *, is_circular=True):
    transformer = looks.ConditionalSplineTransformer(net, is_circular)
    return with_block(1, looks.CouplingFlow(transformer, [2], [3]))


@pytest.mark.parametrize("make, message", [
    (with_block(3, Unheard()), "block 3, Unheard: Unheard is unknown. Known are AffineFlow, CDFTransform, CircularShiftFlow"),
    (with_block(1, looks.CouplingFlow(Unheard(), [2], [3])), "block 1, CouplingFlow: the transformer Unheard is unknown; known are"),
    (with_block(1, looks.CouplingFlow(spline(2, 1, [0, 1], True), [2], [7])), r"it takes tensors \[2, 7\] of 4"),
    (with_conditioner(DenseNet([2, 6, 12])), "input 0 of its conditioner is a torsion, which must enter as cosine and sine"),
    (with_conditioner(WrapPeriodic(DenseNet([4, 6, 12], torch.nn.ReLU), np.array([0, 1]))), r"the activation ReLU\(\) is unknown"),
    (with_conditioner(WrapPeriodic(torch.nn.Bilinear(4, 4, 12), np.array([0, 1]))), "its conditioner is a Bilinear"),
    (with_conditioner(WrapPeriodic(DenseNet([4, 6, 11]), np.array([0, 1]))), "has 11 outputs"),
    (with_conditioner(WrapPeriodic(DenseNet([4, 6, 13]), np.array([0, 1])), is_circular=False), "coordinate 11 is a torsion, but not is_circular"),
    (with_block(6, looks.CouplingFlow(spline(3, 4, [0, 1, 2], True), [1], [2])), "coordinate 5 is no torsion, but is_circular"),
    (with_block(6, looks.CouplingFlow(looks.AffineTransformer(network(3, 4, [0, 1, 2])), [1], [2])), "affine maps are of coordinates on the real"),
    (with_block(10, WrapFlow(looks.InverseFlow(looks.CDFTransform(truncated(0.5, 0.1, 3, 0, 1))), (2,))), "torsions must be uniform"),
    (with_block(9, WrapFlow(looks.InverseFlow(looks.CDFTransform(torch.distributions.Laplace(torch.zeros(4), torch.ones(4)))), (1,))),
     "the distribution Laplace is unknown"),
    (with_block(9, WrapFlow(looks.CDFTransform(truncated(0.5, 0.1, 4, 0, 1)), (1,))), "inverse cumulative distribution function"),
    (broken(lambda flow: looks.SequentialFlow(list(flow._blocks)[:-1])), "block 12, SetConstantFlow: it makes tensor 4 of 1"),
])
def test_unknown_parts_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        bgflow.convert_generator(make(), temperature=300, measure="frame", check=0)


def test_unknown_priors_are_named():
    flow = global_flow("spline")
    with pytest.raises(ValueError, match="the prior has 2 parts, but the flow maps 3 tensors"):
        bgflow.convert_generator(generator_of(flow, 5, 4), temperature=300, measure="frame", check=0)
    generator = looks.BoltzmannGenerator(looks.ProductDistribution([uniform(5), looks.NormalDistribution(torch.zeros(4)), uniform(3)]), flow)
    with pytest.raises(ValueError, match="prior, part 1: a normal distribution of coordinates on interval domains"):
        bgflow.convert_generator(generator, temperature=300, measure="frame", check=0)


def test_check_sees_another_computation():
    """A subclass with a known name that computes something else is found out."""
    flow = global_flow("smooth")

    class CDFTransform(looks.CDFTransform):
        def _forward(self, x):
            y, log_det = super()._forward(x)
            return y, log_det + 0.01

    flow._blocks[9]._flow._delegate.__class__ = CDFTransform
    with pytest.raises(ValueError, match="differs from the flow by up to 1.0e-02 k_BT on 12 random conformations"):
        bgflow.convert_generator(flow, **ARGUMENTS)


def test_weights_that_are_no_numbers():
    flow = global_flow("smooth")
    with torch.no_grad():
        next(flow._blocks[1].parameters())[0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        bgflow.convert_generator(flow, temperature=300, measure="frame", check=0)


# bgflow itself

@pytest.fixture(scope="module")
def real():
    """bgflow, which is not on PyPI: put its sources on PYTHONPATH to run these."""
    if not hasattr(np, "infty"):
        np.infty = np.inf    # which bgflow still uses
    return pytest.importorskip("bgflow", reason="bgflow is not installed; put its sources on PYTHONPATH, with einops and nflows")


def built(real, kind, context):
    """Generators of BoltzmannGeneratorBuilder."""
    z_matrix, fixed = np.array(Z_MATRIX), np.array(BLOCK)
    data = torch.tensor(np.concatenate([POSITIONS, conformations(seed=3, count=60)]).reshape(72, -1), **context)
    if kind == "mixed":
        transform = real.MixedCoordinateTransformation(data, z_matrix[4:], fixed, keepdims=6)
    elif kind == "relative":
        transform = real.RelativeInternalCoordinateTransformation(z_matrix[4:], fixed)
    else:
        transform = real.GlobalInternalCoordinateTransformation(z_matrix)
    constraints = 1 if kind == "constrained" else 0
    shapes = real.ShapeDictionary.from_coordinate_transform(transform, n_constraints=constraints)
    builder = real.BoltzmannGeneratorBuilder(shapes, **context)
    B, A, T, F = real.BONDS, real.ANGLES, real.TORSIONS, real.FIXED
    if kind in ("global", "constrained"):
        first, second = builder.add_split(T, ("T1", "T2"), (1, 2))
        builder.add_condition(first, on=second, hidden=(8, 8))
        builder.add_condition(second, on=first, hidden=(8,), activation=torch.nn.Tanh())
        builder.add_merge((first, second), T)
        builder.add_torsion_shifts(torch.tensor([0.1, 0.2, 0.7]))
    else:
        builder.add_condition(T, on=F, hidden=(8,))
        builder.add_condition(F, on=(T, B), hidden=(8,))
    builder.add_condition(A, on=T, hidden=(8,))
    builder.add_condition(B, on=(A, T), hidden=(8,))
    marginals = real.InternalCoordinateMarginals(builder.current_dims, context, bond_mu=0.15, bond_sigma=0.02, angle_mu=0.6, angle_sigma=0.1)
    builder.add_map_to_ic_domains(marginals)
    if constraints:
        builder.add_merge_constraints([2], [0.15])
    builder.add_map_to_cartesian(transform)
    return builder.build_generator()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["global", "constrained", "mixed", "relative"])
def test_what_the_builder_makes(kind, dtype, real):
    """The model against the generator's own energy, of samples that it draws."""
    torch.manual_seed(1)
    context = {"device": torch.device("cpu"), "dtype": getattr(torch, dtype)}
    own_measure, offset = ("cartesian", -np.log(2)) if kind in ("global", "constrained") else ("frame", 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        generator = built(real, kind, context)
        model = FlowModel.from_bytes(model_file.pack(*converted(generator, measure=own_measure, positions=None, tolerance=1e-4)))
        original = copy.deepcopy(generator)
        flow, prior = original._flow.double(), original._prior.double()
        x = generator.sample(50).double()
        *z, log_det = flow(x, inverse=True)
        expected = (log_det - prior.energy(*z)).detach().numpy().reshape(-1) + offset - len(model.constraints) * np.log(2 * CONSTANT_BOND_REACH)
    # A sample whose z bgflow clamps at an edge is none.
    inside = np.all([((part > 1e-5) & (part < 1 - 1e-5)).all(-1).numpy() for part in z[:3]], axis=0)
    error = np.abs(model.log_prob(x.detach().numpy().reshape(50, -1, 3)) - expected)[inside].max()
    print(f"\nbgflow, {kind}, {dtype}: {inside.sum()} samples, off by {error:.1e} k_BT; {len(model.constraints)} constraints")
    assert len(model.constraints) == (kind == "constrained") and inside.sum() > 20
    assert error <= 1e-4
