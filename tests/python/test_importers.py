# SPDX-License-Identifier: MIT
"""Checkpoints of bgflow as model files: the published one against its energies and forces, made-up ones, spoiled ones."""
import copy
import json
import pickle
import sys

import numpy as np
import pytest
from openmmflow import FlowModel, FlowModelError, model_file
from openmmflow.importers import bgflow
from reference_flow import ReferenceFlow

torch = pytest.importorskip("torch", reason="bgflow's checkpoints are read by PyTorch")


@pytest.fixture(scope="module")
def published(shared_data):
    """Checkpoint, spec, and reference energies of the published flow."""
    return (shared_data / "published_ala2_smooth.ckpt", shared_data / "published_ala2_smooth.json",
            np.load(shared_data / "published_ala2_smooth_reference.npz"))


def test_published_energies_and_forces(published, tmp_path):
    checkpoint, spec, reference = published
    model = FlowModel.load(bgflow.import_checkpoint(checkpoint, spec, tmp_path / "published.safetensors"))
    assert (model.num_particles, model.temperature, model.measure, model.num_parameters) == (22, 300.0, "frame", 314456)
    log_prob, gradient = model.log_prob_and_gradient(reference["positions"])
    energy_error = np.abs(-log_prob - reference["u"]).max()
    force_error = np.linalg.norm(gradient + reference["gradient"]) / np.linalg.norm(reference["gradient"])
    print(f"\npublished flow, {len(log_prob)} configurations: |dU| <= {energy_error:.1e} k_BT, forces {force_error:.1e} relative")
    assert energy_error <= 1e-8
    assert force_error <= 1e-9


def test_published_in_the_reference_implementation(published):
    checkpoint, spec, reference = published
    flow = ReferenceFlow(*bgflow.convert_checkpoint(checkpoint, spec))
    log_prob, gradient = flow.log_prob_and_gradient(reference["positions"][:200])
    assert np.abs(-log_prob - reference["u"][:200]).max() <= 1e-8
    assert np.linalg.norm(gradient + reference["gradient"][:200]) <= 1e-9 * np.linalg.norm(reference["gradient"][:200])


def test_published_constants_come_from_the_checkpoint(published):
    checkpoint, spec, _ = published
    state_dict = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    for key in list(state_dict):
        if "_oracle" not in key and "_blocks.7." in key:
            for name, value in {"_max_alpha": 7.0, "_log_sigma_bound": 2.0, "_min_density_lower_bound": 1e-3}.items():
                if key.endswith(name):
                    state_dict[key] = torch.tensor(value)
    architecture, tensors = bgflow.convert_state_dict(state_dict, spec)
    changed, other = (layer["transformer"] for layer in architecture["layers"][3:5])
    assert (changed["alphaRange"], changed["logSteepnessBound"], changed["minimumFloor"]) == (7.0, 2.0, float(np.float32(1e-3)))
    assert (other["alphaRange"], other["logSteepnessBound"], other["minimumFloor"]) == (10.0, 1.0, float(np.float32(1e-6)))
    assert all(tensor.dtype == np.float32 for tensor in tensors.values())


# Made-up checkpoints of a molecule of 6 particles: 5 bonds, 4 angles, 3 torsions.

SPEC = {
    "temperature": 310, "measure": "frame", "frame_atoms": [0, 1, 2],
    "z_matrix": [[0, -1, -1, -1], [1, 0, -1, -1], [2, 1, 0, -1], [3, 2, 1, 0], [4, 3, 2, 1], [5, 2, 1, 3]],
    "fields": {"BONDS": {"size": 5, "circular": False}, "ANGLES": {"size": 4, "circular": False},
               "TORSIONS": {"size": 3, "circular": True}},
    "splits": {"TORSIONS": {"T1": [0, 1], "T2": [1, 3]}},
    "activation": "SiLU",
    "marginal_blocks": {"BONDS": 20, "ANGLES": 21, "TORSIONS": 22},
    "couplings_in_density_direction": [
        {"block": 9, "transform": "BONDS", "on": ["ANGLES", "TORSIONS"]},
        {"block": 5, "transform": "ANGLES", "on": ["BONDS"]},
        {"block": 3, "transform": ["T2"], "on": ["T1", "ANGLES"]},
    ],
}
# block: coordinates, features, circular inputs, hidden widths, components
COUPLINGS = {9: (5, 4 + 6, True, [16], 3), 5: (4, 5, False, [8, 12, 8], 5), 3: (2, 4 + 2, True, [], 1)}
WEIGHTS = "_compute_weights"
ALPHAS = "_compute_components._conditional_ramp._compute_alpha"
PARAMS = "_compute_components._param_net"


def made_up_state_dict(*, dtype=torch.float32, inverse=True, wrapper="net", seed=0):
    """A state_dict as bgflow would write it for SPEC; `inverse` is InverseFlow around the transformers."""
    random = torch.Generator().manual_seed(seed)
    state_dict = {}
    for block, (size, features, has_circular_inputs, hidden, components) in COUPLINGS.items():
        prefix = f"_flow._blocks.{block}.transformer." + ("_delegate." if inverse else "")
        for network, multiple in {WEIGHTS: 1, ALPHAS: 1, PARAMS: 3}.items():
            widths = [features, *hidden, multiple * size * components]
            for m, (inputs, outputs) in enumerate(zip(widths, widths[1:])):
                layer = (f"{wrapper}." if has_circular_inputs else "") + f"_layers.{2 * m}"
                for copy_of in ("_transformer.", "_oracle.transformer."):
                    key = f"{prefix}{copy_of}{network}.{layer}"
                    state_dict[f"{key}.weight"] = torch.randn(outputs, inputs, generator=random, dtype=dtype) / inputs**0.5
                    state_dict[f"{key}.bias"] = torch.randn(outputs, generator=random, dtype=dtype)
        constants = prefix + "_transformer._compute_components."
        state_dict[constants + "_min_density_lower_bound"] = torch.tensor(1e-4, dtype=dtype)
        state_dict[constants + "_log_sigma_bound"] = torch.tensor(1.5, dtype=dtype)
        state_dict[constants + "_conditional_ramp._max_alpha"] = torch.tensor(8.0, dtype=dtype)
        state_dict[constants + "_conditional_ramp._eps"] = torch.tensor(1e-8, dtype=dtype)
    distribution = "_flow._blocks.{}._flow._delegate.distribution."
    bonds, angles, torsions = (distribution.format(block) for block in (20, 21, 22))
    state_dict |= {bonds + "_mu": torch.full((5,), 0.14, dtype=dtype), bonds + "_sigma": torch.tensor(0.01, dtype=dtype),
                   bonds + "_lower_bound": torch.tensor(0.1, dtype=dtype),
                   bonds + "_upper_bound": torch.tensor(torch.inf, dtype=dtype),
                   bonds + "_cdf_lower_bound": torch.zeros(5, dtype=dtype),
                   bonds + "_cdf_upper_bound": torch.ones(5, dtype=dtype),
                   angles + "low": torch.full((4,), 0.4, dtype=dtype), angles + "high": torch.full((4,), 0.9, dtype=dtype),
                   torsions + "low": torch.zeros(3, dtype=dtype), torsions + "high": torch.ones(3, dtype=dtype)}
    state_dict |= {f"_prior._delegate_energy._components.0.uniform.{name}": torch.full((5,), value)
                   for name, value in {"low": 0.0, "high": 1.0}.items()}
    return state_dict


def spec_with(**changes):
    return copy.deepcopy(SPEC) | changes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("inverse", [True, False])
@pytest.mark.parametrize("wrapper", ["net", "_net"])
def test_other_flows_of_the_family(dtype, inverse, wrapper):
    state_dict = made_up_state_dict(dtype=dtype, inverse=inverse, wrapper=wrapper)
    architecture, tensors = bgflow.convert_state_dict(state_dict, SPEC)
    model = FlowModel.from_bytes(model_file.pack(architecture, tensors))    # valid
    assert model.temperature == 310

    bonds, angles, *couplings = architecture["layers"][1:]
    assert (bonds["distribution"], bonds["coordinates"]) == ("truncatedNormal", [0, 1, 2, 3, 4])
    assert (angles["distribution"], angles["coordinates"]) == ("uniform", [5, 6, 7, 8])
    assert [c["transformed"] for c in couplings] == [[0, 1, 2, 3, 4], [5, 6, 7, 8], [10, 11]]
    assert [c["conditionedOn"] for c in couplings] == [[5, 6, 7, 8, 9, 10, 11], [0, 1, 2, 3, 4], [9, 5, 6, 7, 8]]
    assert [c["conditioner"] for c in couplings] == [
        {"activation": "silu", "networks": 3 * [hidden]} for *_, hidden, _ in COUPLINGS.values()]
    for layer, (block, (*_, components)) in enumerate(COUPLINGS.items(), start=3):
        transformer = architecture["layers"][layer]["transformer"]
        assert transformer["closedForm"] == ("density" if inverse else "sampling")
        assert (transformer["head"], transformer["components"], transformer["exponent"]) == ("published", components, 1)
        prefix = f"_flow._blocks.{block}.transformer." + ("_delegate." if inverse else "") + "_transformer."
        for index, network in enumerate((WEIGHTS, ALPHAS, PARAMS)):
            source = {key: value for key, value in state_dict.items() if key.startswith(prefix + network)}
            for m in range(len(source) // 2):
                for kind in ("weight", "bias"):
                    stored, = (value for key, value in source.items() if key.endswith(f"_layers.{2 * m}.{kind}"))
                    tensor = tensors[f"layers.{layer}.networks.{index}.{m}.{kind}"]
                    assert tensor.dtype == stored.numpy().dtype
                    np.testing.assert_array_equal(tensor, stored.numpy())
    # Infinite bounds end where the distribution has no mass left in double precision.
    np.testing.assert_array_equal(tensors["layers.1.lower"], np.full(5, 0.1, tensors["layers.1.lower"].dtype))
    np.testing.assert_allclose(tensors["layers.1.upper"], 0.54, rtol=1e-6)


@pytest.mark.parametrize("wrap", [
    lambda state_dict: state_dict, lambda state_dict: {"state_dict": state_dict, "epoch": 3},
    lambda state_dict: {"state_dict": {f"model.{key}": value for key, value in state_dict.items()},
                        "hyper_parameters": {"lr": 1e-3}}])
def test_bare_and_lightning_files(wrap, tmp_path):
    state_dict = made_up_state_dict()
    torch.save(wrap(state_dict), tmp_path / "flow.ckpt")
    (tmp_path / "spec.json").write_text(json.dumps(SPEC))
    expected = model_file.pack(*bgflow.convert_state_dict(state_dict, SPEC))
    assert model_file.pack(*bgflow.convert_checkpoint(tmp_path / "flow.ckpt", tmp_path / "spec.json")) == expected
    output = bgflow.import_checkpoint(str(tmp_path / "flow.ckpt"), SPEC, tmp_path / "model.safetensors")
    assert output.read_bytes() == expected


def test_half_precision_becomes_single():
    state_dict = made_up_state_dict()
    for key, value in state_dict.items():
        if key.endswith("weight"):
            state_dict[key] = value.to(torch.bfloat16 if "_blocks.9." in key else torch.float16)
    _, tensors = bgflow.convert_state_dict(state_dict, SPEC)
    key = f"_flow._blocks.9.transformer._delegate._transformer.{WEIGHTS}.net._layers.0.weight"
    np.testing.assert_array_equal(tensors["layers.3.networks.0.0.weight"], state_dict[key].float().numpy())
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float32)}


def test_arrays_will_do():
    state_dict = made_up_state_dict()
    arrays = {key: value.numpy() for key, value in state_dict.items()}
    expected = model_file.pack(*bgflow.convert_state_dict(state_dict, SPEC))
    assert model_file.pack(*bgflow.convert_state_dict(arrays, SPEC)) == expected


def test_options_of_the_spec():
    spec = spec_with(exponent=2, bonds=[[0, 1], [1, 2], [2, 3], [3, 4], [2, 5], [0, 5]], constraints=[[0, 1, 0.1]],
                     data={"environment": "vacuum"}, activation="tanh")
    spec["couplings_in_density_direction"][0] |= {"exponent": 1, "activation": "sin"}
    architecture, tensors = bgflow.convert_state_dict(made_up_state_dict(), spec)
    FlowModel.from_bytes(model_file.pack(architecture, tensors))
    assert architecture["bonds"] == spec["bonds"]
    assert architecture["constraints"] == spec["constraints"]
    assert architecture["data"] == spec["data"]
    couplings = architecture["layers"][3:]
    assert [c["transformer"]["exponent"] for c in couplings] == [1, 2, 2]
    assert [c["transformer"]["alphaOffset"] for c in couplings] == [0.8656721, 0.3052033, 0.3052033]
    assert [c["conditioner"]["activation"] for c in couplings] == ["sin", "tanh", "tanh"]


def test_bonds_come_from_the_z_matrix():
    architecture, _ = bgflow.convert_state_dict(made_up_state_dict(), SPEC)
    assert architecture["bonds"] == [[1, 0], [2, 1], [3, 2], [4, 3], [5, 2]]


BLOCK5 = "_flow._blocks.5.transformer._delegate._transformer."


def removed(*fragments):
    def spoil(state_dict, spec):
        for key in [key for key in state_dict if all(fragment in key for fragment in fragments)]:
            del state_dict[key]
    return spoil


def replaced(key, value):
    def spoil(state_dict, spec):
        assert key in state_dict
        state_dict[key] = value
    return spoil


def respecified(**changes):
    return lambda state_dict, spec: spec.update(changes)


def recoupled(**changes):
    return lambda state_dict, spec: spec["couplings_in_density_direction"][1].update(changes)


def renumbered(state_dict, spec):
    for key in [key for key in state_dict if "_layers.2." in key]:
        state_dict[key.replace("_layers.2.", "_layers.1.")] = state_dict.pop(key)


def fewer_alphas(state_dict, spec):
    replaced(f"{BLOCK5}{ALPHAS}._layers.6.weight", torch.ones(16, 8))(state_dict, spec)
    replaced(f"{BLOCK5}{ALPHAS}._layers.6.bias", torch.ones(16))(state_dict, spec)


@pytest.mark.parametrize("spoil, message", [
    (removed("_blocks."), "no key contains _flow._blocks."),
    (removed("_blocks.5."), r"no block 5; its blocks with tensors are \[3, 9, 20, 21, 22\]"),
    (removed("_blocks.20."), "no block 20"),
    (removed("_blocks.5.", "_param_net"), "block 5 has no .*_param_net"),
    (removed("_blocks.5.", "_compute_weights._layers.6.bias"), "block 5 has no .*_compute_weights._layers.6.bias"),
    (removed("_blocks.5.", "_max_alpha"), "block 5 has no .*_max_alpha"),
    (removed("_blocks.5.", "_compute_"), "block 5"),
    (removed("_blocks.20.", "_sigma"), "block 20, the marginal of BONDS, has no .*_sigma"),
    (removed("_blocks.21.", ".low"), "block 21, the marginal of ANGLES, has no .*low"),
    (renumbered, "numbers"),
    (replaced(f"{BLOCK5}{WEIGHTS}._layers.0.weight", torch.ones(8, 6)), "reads 6 features, but .* has 5"),
    (replaced(f"{BLOCK5}{WEIGHTS}._layers.2.weight", torch.ones(12, 9)), "do not fit the 8 outputs"),
    (replaced(f"{BLOCK5}{WEIGHTS}._layers.0.weight", torch.ones(40)), "do not fit each other"),
    (replaced(f"{BLOCK5}{WEIGHTS}._layers.0.weight", torch.full((8, 5), torch.nan)), "holds NaN"),
    (replaced(f"{BLOCK5}{WEIGHTS}._layers.0.weight", torch.ones(8, 5, dtype=torch.int64)), "is of type int64"),
    (replaced("_flow._blocks.22._flow._delegate.distribution.high", torch.full((3,), 0.9)), "must be uniform on"),
    (replaced("_flow._blocks.21._flow._delegate.distribution.high", torch.ones(5)), "has 5 values, expected 4"),
    (replaced("_prior._delegate_energy._components.0.uniform.high", torch.full((5,), 2.0)), "base density"),
    (lambda state_dict, spec: state_dict.update({"_prior._mean": torch.zeros(3)}), "base density"),
    (recoupled(block=9), "block 9: .* reads 10 features"),
    (recoupled(block=20), "block 20 is no coupling"),
    (recoupled(transform="TORSIONS"), "block 5: _compute_weights has 20 outputs, expected a multiple of 3"),
    (fewer_alphas, "block 5: .*_compute_alpha has 16 outputs, expected 20"),
    (recoupled(transform="DIHEDRALS"), "'DIHEDRALS' is no field or part of one"),
    (recoupled(activation="relu"), "activation 'relu' is unknown"),
    (recoupled(exponent=3), "exponent must be 1 or 2"),
    (respecified(measure="polar"), "measure must be"),
    (respecified(comment="hello"), "unknown comment"),
    (respecified(z_matrix=[[0, -1, -1]]), "at least three rows"),
    (respecified(z_matrix=None), "not of the form"),
    (respecified(frame_atoms=[0, 2, 1]), r"z_matrix places \[0, 1, 2\] first"),
    (respecified(fields=[]), "fields must be BONDS"),
    (respecified(fields=SPEC["fields"] | {"FIXED": {"size": 3, "circular": False}}), "mixed Cartesian"),
    (respecified(fields=SPEC["fields"] | {"BONDS": {"size": 6, "circular": False}}), "BONDS of 6 particles must have size 5"),
    (respecified(splits={"TORSIONS": {"T1": [0, 1], "T2": [1, 4]}}), "not within a field"),
    (respecified(couplings_in_density_direction=[{"block": 9}]), "not of the form"),
    (lambda state_dict, spec: spec.pop("temperature"), "missing temperature"),
])
def test_what_does_not_fit_is_named(spoil, message):
    state_dict, spec = made_up_state_dict(), spec_with()
    spoil(state_dict, spec)
    with pytest.raises(ValueError, match=message):
        bgflow.convert_state_dict(state_dict, spec)


@pytest.mark.parametrize("changes, message", [
    ({"temperature": -1}, "temperature"),
    ({"z_matrix": SPEC["z_matrix"][:4] + [[4, 5, 2, 1], [5, 4, 2, 3]], "bonds": [[i, i + 1] for i in range(5)]}, "cycle"),
    ({"bonds": [[0, 1]]}, "do not connect"),
])
def test_what_is_no_valid_model_is_not_written(changes, message, tmp_path):
    torch.save(made_up_state_dict(), tmp_path / "flow.ckpt")
    with pytest.raises(FlowModelError, match=message):
        bgflow.import_checkpoint(tmp_path / "flow.ckpt", spec_with(**changes), tmp_path / "model.safetensors")
    assert not (tmp_path / "model.safetensors").exists()


class Code:
    """Unpickling it would call a function."""

    def __reduce__(self):
        return print, ("this must not be printed",)


@pytest.mark.parametrize("make, message", [
    (lambda path: torch.save({"state_dict": {}, "callback": Code()}, path), "would run code"),
    (lambda path: path.write_bytes(pickle.dumps(Code(), protocol=2)), "would run code"),
    (lambda path: path.write_bytes(b"hello"), "no PyTorch checkpoint"),
    (lambda path: path.write_bytes(b""), "no PyTorch checkpoint"),
    (lambda path: torch.save([1, 2], path), "holds no state_dict but a list"),
    (lambda path: torch.save({"weight": torch.zeros(3)}, path), "no key contains _flow._blocks."),
])
def test_other_files_are_refused(make, message, tmp_path, capsys):
    make(tmp_path / "file")
    with pytest.raises(ValueError, match=message):
        bgflow.convert_checkpoint(tmp_path / "file", SPEC)
    assert "printed" not in capsys.readouterr().out


def test_truncated_checkpoints_are_refused(tmp_path):
    torch.save(made_up_state_dict(), tmp_path / "whole")
    contents = (tmp_path / "whole").read_bytes()
    (tmp_path / "part").write_bytes(contents[:len(contents) // 2])
    with pytest.raises(ValueError, match="no PyTorch checkpoint, or it was cut short"):
        bgflow.convert_checkpoint(tmp_path / "part", SPEC)


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint file"):
        bgflow.convert_checkpoint(tmp_path / "nothing", SPEC)
    torch.save(made_up_state_dict(), tmp_path / "flow.ckpt")
    with pytest.raises(FileNotFoundError):
        bgflow.convert_checkpoint(tmp_path / "flow.ckpt", tmp_path / "nothing.json")
    (tmp_path / "spec.json").write_text("{")
    with pytest.raises(ValueError, match="spec.json is no JSON document"):
        bgflow.convert_checkpoint(tmp_path / "flow.ckpt", tmp_path / "spec.json")


def test_without_torch(tmp_path, monkeypatch):
    torch.save(made_up_state_dict(), tmp_path / "flow.ckpt")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="pip install torch"):
        bgflow.convert_checkpoint(tmp_path / "flow.ckpt", SPEC)
