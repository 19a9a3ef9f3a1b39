# SPDX-License-Identifier: MIT
"""FlowModel from Python: files, properties, arrays, units, errors. What it computes is checked against plain PyTorch."""
import copy
import json
import pickle
import struct
import threading

import numpy as np
import pytest
from openmm import Vec3, unit

from openmmflow import FlowModel, FlowModelError, model_file
from random_flow import random_flow


def packed(architecture, tensors, **changes):
    return model_file.pack({**architecture, **changes}, tensors)


# What it computes

@pytest.mark.parametrize("measure", ["cartesian", "frame"])
def test_agrees_with_pytorch(measure, small_positions):
    pytest.importorskip("torch")
    import torch
    from reference_flow import ReferenceFlow

    contents = random_flow(seed=5, measure=measure)
    model = FlowModel.from_bytes(model_file.pack(*contents))
    reference = ReferenceFlow(*contents)
    log_prob, gradient = model.log_prob_and_gradient(small_positions)
    expected, expected_gradient = reference.log_prob_and_gradient(small_positions)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(log_prob, expected, rtol=0, atol=1e-11)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=1e-11 * np.abs(expected_gradient).max())
    expected_latent, _ = reference.to_latent(torch.from_numpy(small_positions))
    np.testing.assert_allclose(model.to_latent(small_positions), expected_latent, rtol=0, atol=1e-12)


def test_all_ways_to_ask_agree(small_model, small_positions):
    log_prob = small_model.log_prob(small_positions)
    again, _ = small_model.log_prob_and_gradient(small_positions)
    _, and_again = small_model.to_latent(small_positions, log_prob=True)
    np.testing.assert_array_equal(again, log_prob)
    np.testing.assert_array_equal(and_again, log_prob)


def test_outside_of_the_support(small_model, small_positions):
    torn = small_positions[:2].copy()
    torn[0, 5] += 1.0
    log_prob, gradient = small_model.log_prob_and_gradient(torn)
    assert log_prob[0] == -np.inf and np.isnan(gradient[0]).all() and np.isnan(small_model.to_latent(torn)[0]).all()
    assert np.isfinite(log_prob[1]) and np.isfinite(gradient[1]).all()


def test_threads_evaluate_side_by_side(small_model, small_positions):
    expected = small_model.log_prob_and_gradient(small_positions)
    results = [None] * 4

    def evaluate(slot):
        for _ in range(20):
            results[slot] = small_model.log_prob_and_gradient(small_positions)

    threads = [threading.Thread(target=evaluate, args=(slot,)) for slot in range(len(results))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for log_prob, gradient in results:
        np.testing.assert_array_equal(log_prob, expected[0])
        np.testing.assert_array_equal(gradient, expected[1])


# Arrays

def test_shapes(small_model, small_positions):
    log_prob, gradient = small_model.log_prob_and_gradient(small_positions)
    assert log_prob.shape == (20,) and gradient.shape == (20, 6, 3) and log_prob.dtype == gradient.dtype == np.float64
    latent, _ = small_model.to_latent(small_positions, log_prob=True)
    assert latent.shape == (20, 12)

    one, one_gradient = small_model.log_prob_and_gradient(small_positions[3])
    # Molecules are evaluated in blocks, whose sums have another order.
    assert np.ndim(one) == 0 and one == pytest.approx(log_prob[3], rel=1e-13)
    np.testing.assert_allclose(one_gradient, gradient[3], rtol=1e-12)
    np.testing.assert_allclose(small_model.to_latent(small_positions[3]), latent[3], rtol=1e-13)

    assert small_model.log_prob(small_positions[:0]).shape == (0,)
    assert small_model.log_prob_and_gradient(small_positions[:0])[1].shape == (0, 6, 3)


def test_layouts_and_types(small_model, small_positions):
    expected = small_model.log_prob(small_positions)
    wide = np.zeros((40, 6, 4))
    wide[::2, :, :3] = small_positions
    np.testing.assert_array_equal(small_model.log_prob(wide[::2, :, :3]), expected)
    np.testing.assert_array_equal(small_model.log_prob(np.asfortranarray(small_positions)), expected)
    np.testing.assert_array_equal(small_model.log_prob(small_positions.astype(">f8")), expected)
    np.testing.assert_array_equal(small_model.log_prob(small_positions.tolist()), expected)
    single = small_positions.astype(np.float32)
    np.testing.assert_array_equal(small_model.log_prob(single), small_model.log_prob(single.astype(np.float64)))
    read_only = small_positions.copy()
    read_only.flags.writeable = False
    np.testing.assert_array_equal(small_model.log_prob(read_only), expected)


def test_units(small_model, small_positions):
    expected = small_model.log_prob(small_positions)
    np.testing.assert_array_equal(small_model.log_prob(small_positions * unit.nanometer), expected)
    np.testing.assert_allclose(small_model.log_prob(10 * small_positions * unit.angstrom), expected, rtol=1e-12)
    as_state_gives_it = [Vec3(*particle) for particle in small_positions[0]] * unit.nanometer
    assert small_model.log_prob(as_state_gives_it) == small_model.log_prob(small_positions[0])
    each_with_unit = [Vec3(*particle) * unit.nanometer for particle in small_positions[0]]
    assert small_model.log_prob(each_with_unit) == small_model.log_prob(small_positions[0])
    for wrong in (unit.kelvin, unit.nanometer**2, unit.dimensionless):
        with pytest.raises(TypeError, match="positions was given in .*, expected nanometer"):
            small_model.log_prob(small_positions * wrong)


@pytest.mark.parametrize("evaluate", ["log_prob", "log_prob_and_gradient", "to_latent"])
def test_bad_positions(small_model, small_positions, evaluate):
    evaluate = getattr(small_model, evaluate)
    for shape in [(18,), (6, 2), (7, 3), (2, 5, 3), (1, 1, 6, 3)]:
        with pytest.raises(FlowModelError, match=r"shape .*expected \(batch, 6, 3\)"):
            evaluate(np.zeros(shape))
    for bad in (np.nan, np.inf):
        broken = small_positions.copy()
        broken[3, 4, 1] = bad
        with pytest.raises(FlowModelError, match=rf"finite.*positions\[3, 4, 1\] is {bad}"):
            evaluate(broken)
    for nonsense in (None, "x", small_positions.astype(complex), np.array([["a"] * 3] * 6), [[1, 2], [3]]):
        with pytest.raises((TypeError, ValueError)):
            evaluate(nonsense)


# Properties

def test_properties(small_model, small_flow):
    architecture, tensors = small_flow
    assert small_model.num_particles == 6
    assert small_model.num_coordinates == 12
    assert small_model.num_parameters == sum(tensor.size for name, tensor in tensors.items() if "networks" in name)
    assert small_model.temperature == 300.0
    assert small_model.measure == "cartesian"
    assert small_model.bonds == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]
    assert small_model.constraints == []
    assert small_model.data == {"environment": "vacuum", "method": "random weights"}
    assert small_model.architecture == architecture
    assert small_model.checksum == model_checksum(small_model.to_bytes())


def model_checksum(contents):
    length, = struct.unpack_from("<Q", contents)
    return json.loads(contents[8:8 + length])["__metadata__"]["crc32"]


def test_constraints_and_temperature(small_flow):
    model = FlowModel.from_bytes(packed(*small_flow, constraints=[[0, 1, 0.15]], temperature=350))
    assert model.constraints == [(0, 1, 0.15)] and model.temperature == 350.0


def test_what_properties_return_is_a_copy(small_model):
    small_model.architecture["numParticles"] = 7
    small_model.data["environment"] = "elsewhere"
    small_model.bonds.clear()
    assert small_model.architecture["numParticles"] == 6
    assert small_model.data["environment"] == "vacuum"
    assert len(small_model.bonds) == 5
    with pytest.raises(AttributeError):
        small_model.temperature = 310
    with pytest.raises(AttributeError):
        small_model.something = 1


def test_repr_tells_what_it_is(small_model):
    for word in ("FlowModel", "6 particles", "300 K", "5 layers", "cartesian", small_model.checksum):
        assert word in repr(small_model)


def test_same_architecture(small_model, small_flow):
    other_weights = FlowModel.from_bytes(model_file.pack(*random_flow(seed=1)))
    warmer = FlowModel.from_bytes(packed(*small_flow, temperature=310.0))
    assert small_model.has_same_architecture(other_weights) and small_model.has_same_architecture(warmer)
    assert not small_model.has_same_architecture(FlowModel.from_bytes(model_file.pack(*random_flow(measure="frame"))))


# A value

def test_is_a_value(small_model, small_positions):
    twin = FlowModel.from_bytes(small_model.to_bytes())
    other = FlowModel.from_bytes(model_file.pack(*random_flow(seed=1)))
    assert twin == small_model and hash(twin) == hash(small_model) and twin is not small_model
    assert other != small_model and small_model != "a model"
    assert copy.copy(small_model) == small_model and copy.deepcopy([small_model])[0] == small_model
    revived = pickle.loads(pickle.dumps(small_model))
    assert revived == small_model
    np.testing.assert_array_equal(revived.log_prob(small_positions), small_model.log_prob(small_positions))


def test_has_no_constructor():
    with pytest.raises(TypeError, match="FlowModel.load"):
        FlowModel()


# Files

@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_file_round_trip(tmp_path, small_positions, dtype):
    contents = model_file.pack(*random_flow(seed=3, dtype=dtype))
    model = FlowModel.from_bytes(contents)
    path = tmp_path / "médel (1).safetensors"
    model.save(path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert model_file.read(path)[1]["layers.3.networks.0.0.weight"].dtype == dtype
    for loaded in (FlowModel.load(path), FlowModel.load(str(path)), FlowModel.from_bytes(path.read_bytes())):
        assert loaded == model and loaded.to_bytes() == path.read_bytes()
        np.testing.assert_array_equal(loaded.log_prob(small_positions), model.log_prob(small_positions))


def test_save_where_one_cannot(tmp_path, small_model):
    with pytest.raises(FlowModelError, match="missing"):
        small_model.save(tmp_path / "missing" / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_no_file(tmp_path):
    with pytest.raises(FlowModelError, match="nothing.safetensors"):
        FlowModel.load(tmp_path / "nothing.safetensors")
    with pytest.raises(FlowModelError):
        FlowModel.load(tmp_path)
    with pytest.raises(TypeError):
        FlowModel.load(7)
    with pytest.raises(TypeError, match="bytes"):
        FlowModel.from_bytes("text")


def test_every_truncation_is_noticed(small_model):
    contents = small_model.to_bytes()
    for length in [0, 1, 7, 8, 9, 100, len(contents) // 2, len(contents) - 1]:
        with pytest.raises(FlowModelError):
            FlowModel.from_bytes(contents[:length])


def test_damage_is_noticed(small_model):
    contents = bytearray(small_model.to_bytes())
    contents[-3] ^= 0x10
    with pytest.raises(FlowModelError, match="(?i)checksum|crc"):
        FlowModel.from_bytes(bytes(contents))


@pytest.mark.parametrize("contents", [b"PK\x03\x04" + bytes(64), b"\x80\x02}q\x00." + bytes(64), b"\x89HDF\r\n\x1a\n" + bytes(64),
                                      b"{}" * 40, bytes(200), b"\xff" * 200])
def test_foreign_files(contents):
    with pytest.raises(FlowModelError):
        FlowModel.from_bytes(contents)


def test_future_version(small_flow):
    with pytest.raises(FlowModelError, match="version"):
        FlowModel.from_bytes(packed(*small_flow, version=3))


@pytest.mark.parametrize("changes", [
    {"temperature": 0.0}, {"temperature": -300.0}, {"numParticles": 7}, {"numParticles": 2}, {"measure": "spherical"},
    {"bonds": [[0, 1]]}, {"bonds": [[0, 6]]}, {"constraints": [[0, 0, 0.1]]}, {"constraints": [[0, 1, -0.1]]}, {"format": "flow"},
    {"unknown": 1}, {"layers": []}, {"base": []},
])
def test_invalid_architectures(small_flow, changes):
    with pytest.raises(FlowModelError):
        FlowModel.from_bytes(packed(*small_flow, **changes))


def test_invalid_tensors(small_flow):
    architecture, tensors = small_flow
    name = "layers.3.networks.0.1.bias"
    infinite = np.array(tensors[name])
    infinite[0] = np.inf
    for bad in ({**tensors, name: tensors[name][1:]}, {**tensors, name: infinite}, {**tensors, "extra": np.zeros(3)},
                {key: tensor for key, tensor in tensors.items() if key != name}):
        with pytest.raises(FlowModelError):
            FlowModel.from_bytes(model_file.pack(architecture, bad))


# The published flow

def test_published_flow(published_model, shared_data):
    """-ln p in measure "frame" and its gradient, at all published reference configurations."""
    reference = np.load(shared_data / "published_ala2_smooth_reference.npz")
    assert published_model.measure == "frame" and published_model.num_parameters == 314_456
    log_prob, gradient = published_model.log_prob_and_gradient(reference["positions"])
    energy_error = np.abs(-log_prob - reference["u"]).max()
    gradient_error = (np.linalg.norm(-gradient - reference["gradient"], axis=(1, 2))
                      / np.linalg.norm(reference["gradient"], axis=(1, 2))).max()
    print(f"\npublished flow, FlowModel, {len(log_prob)} configurations: max |dU| = {energy_error:.2e} k_B T, "
          f"max relative gradient error = {gradient_error:.2e}")
    assert energy_error <= 1e-8 and gradient_error <= 1e-9
