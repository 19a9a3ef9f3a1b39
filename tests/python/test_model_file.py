# SPDX-License-Identifier: MIT
"""Model files as plain data: what is packed comes back, and what is no model file is refused."""
import json
import os
import re
import struct
from pathlib import Path

import numpy as np
import openmmflow
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from openmmflow import FlowModel, model_file
from random_flow import random_flow
from reference_flow import ReferenceFlow

ARCHITECTURE = {"format": "openmm-flow", "data": {"environment": "vacuum", "note": "α β \u2028 \"quoted\"\n"}}
TENSORS = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.array([0.1, -0.0, 5e-324]), "empty": np.zeros((3, 0))}

texts = st.text(st.characters(codec="utf-8"))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=10)
arrays = st.sampled_from([np.float32, np.float64]).flatmap(
    lambda dtype: st_numpy.arrays(dtype, st_numpy.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)))
names = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda name: name != "__metadata__")


def same(tensors, others):
    return tensors.keys() == others.keys() and all(
        tensors[name].dtype == others[name].dtype and tensors[name].shape == others[name].shape
        and tensors[name].tobytes() == others[name].tobytes() for name in tensors)


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(texts, json_values, max_size=4), st.dictionaries(names, arrays, max_size=5))
def test_what_is_packed_comes_back(architecture, tensors):
    contents = model_file.pack(architecture, tensors)
    unpacked_architecture, unpacked = model_file.unpack(contents)
    assert unpacked_architecture == architecture
    assert same(unpacked, tensors)
    assert model_file.pack(unpacked_architecture, unpacked) == contents


def test_order_does_not_matter():
    reordered = dict(reversed(ARCHITECTURE.items())), dict(reversed(TENSORS.items()))
    assert model_file.pack(*reordered) == model_file.pack(ARCHITECTURE, TENSORS)


def test_any_safetensors_reader_reads_it(tmp_path):
    contents = model_file.pack(ARCHITECTURE, TENSORS)
    assert same(safetensors.numpy.load(contents), TENSORS)
    path = tmp_path / "model.safetensors"
    path.write_bytes(contents)
    with safetensors.safe_open(path, "np") as file:
        assert json.loads(file.metadata()["openmmflow"]) == ARCHITECTURE
        assert same({name: file.get_tensor(name) for name in file.keys()}, TENSORS)
    length, = struct.unpack_from("<Q", contents)
    assert length % 8 == 0


def test_layouts_and_byte_orders_are_made_standard():
    values = np.arange(6.0).reshape(2, 3)
    odd = {"fortran": np.asfortranarray(values), "strided": np.arange(12.0).reshape(2, 6)[:, ::2] / 2,
           "big": values.astype(">f8")}
    _, tensors = model_file.unpack(model_file.pack(ARCHITECTURE, odd))
    for tensor in tensors.values():
        np.testing.assert_array_equal(tensor, values)
        assert tensor.dtype == np.dtype("<f8")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_flow_model_writes_the_same_bytes(seed, dtype):
    contents = model_file.pack(*random_flow(seed, dtype=dtype))
    model = FlowModel.from_bytes(contents)
    assert model.to_bytes() == contents
    architecture, tensors = model_file.unpack(model.to_bytes())
    assert same(tensors, random_flow(seed, dtype=dtype)[1])
    length, = struct.unpack_from("<Q", contents)
    assert json.loads(contents[8:8 + length])["__metadata__"]["crc32"] == model.checksum


@pytest.mark.parametrize("dtype", [np.int64, np.float16, np.complex128, bool, object])
def test_tensors_of_other_types_are_refused(dtype):
    with pytest.raises(TypeError, match="'a' is of type .*, expected float32 or float64"):
        model_file.pack(ARCHITECTURE, {"a": np.ones(2, dtype)})


@pytest.mark.parametrize("value, error, message", [
    (float("nan"), ValueError, "finite"), (float("inf"), ValueError, "finite"),
    (np.int64(3), TypeError, "plain Python values"), (np.zeros(3), TypeError, "plain Python values")])
def test_architectures_that_are_not_json_are_refused(value, error, message):
    with pytest.raises(error, match=message):
        model_file.pack({"temperature": value}, {})


@pytest.mark.parametrize("contents", [
    b"", b"abc", b"PK\x03\x04" + bytes(100), bytes(100), struct.pack("<Q", 2) + b"{}", struct.pack("<Q", 2**63) + b"{}",
    struct.pack("<Q", 4) + b"[1]]", safetensors.numpy.save({"a": np.zeros(3)}),
    safetensors.numpy.save({"a": np.zeros(3)}, {"format": "pt"})])
def test_other_files_are_refused(contents, tmp_path):
    with pytest.raises(ValueError, match="no model file"):
        model_file.unpack(contents)
    (tmp_path / "file").write_bytes(contents)
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / "file"))):
        model_file.read(tmp_path / "file")


def test_truncated_and_damaged_files_are_refused():
    contents = model_file.pack(ARCHITECTURE, TENSORS)
    for length in range(len(contents)):
        with pytest.raises(ValueError):
            model_file.unpack(contents[:length])
    damaged = bytearray(contents)
    damaged[-1] ^= 1
    with pytest.raises(ValueError, match="damaged: its checksum"):
        model_file.unpack(bytes(damaged))


def test_a_file_without_checksum_is_read():
    header = {"__metadata__": {"openmmflow": json.dumps(ARCHITECTURE)}}
    encoded = json.dumps(header).encode()
    assert model_file.unpack(struct.pack("<Q", len(encoded)) + encoded) == (ARCHITECTURE, {})


def test_write_and_read(tmp_path):
    path = tmp_path / "model.safetensors"
    model_file.write(path, ARCHITECTURE, TENSORS)
    model_file.write(str(path), ARCHITECTURE, TENSORS)    # replaces it
    architecture, tensors = model_file.read(path)
    assert architecture == ARCHITECTURE and same(tensors, TENSORS)
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_an_existing_file_survives_failures(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    model_file.write(path, ARCHITECTURE, TENSORS)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        model_file.write(path, ARCHITECTURE, {"a": np.ones(2, int)})

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        model_file.write(path, {}, {})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_the_example_of_the_documentation(tmp_path, monkeypatch):
    page = Path(__file__).parents[2] / "docs" / "model_format.md"
    code, = re.findall(r"## Example\n.*?```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(compile(code, str(page), "exec"), scope)
    assert os.listdir(tmp_path) == ["water.safetensors"]
    reference = ReferenceFlow(scope["architecture"], scope["tensors"])
    log_prob, gradient = reference.log_prob_and_gradient(scope["positions"][None])
    assert np.isfinite(scope["log_prob"])
    assert scope["log_prob"] == pytest.approx(log_prob[0], abs=1e-12)
    np.testing.assert_allclose(scope["gradient"], gradient[0], rtol=1e-10, atol=1e-9)


def test_flow_model_error_is_a_value_error():
    with pytest.raises(ValueError) as caught:
        FlowModel.from_bytes(model_file.pack(ARCHITECTURE, TENSORS))
    assert isinstance(caught.value, openmmflow.FlowModelError)
