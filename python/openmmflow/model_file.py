# SPDX-License-Identifier: MIT
"""Model files as plain data: an architecture (a dict) and its weights (NumPy arrays).

This is how importers and trainers in Python write models; ``docs/model_format.md`` says what belongs into the two. Whether they
make a valid model is checked by :class:`openmmflow.FlowModel`, not here: this module keeps the container, a safetensors file
with the architecture as JSON in its metadata, and needs nothing but NumPy and safetensors.
"""
from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import safetensors.numpy

from . import atomic

_DTYPES = {np.dtype("<f8"): "F64", np.dtype("<f4"): "F32"}
_METADATA = "__metadata__"
_ARCHITECTURE = "openmmflow"
_CHECKSUM = "crc32"


def pack(architecture: dict, tensors: dict[str, np.ndarray]) -> bytes:
    """The contents of a model file.

    Parameters
    ----------
    architecture : the JSON document of ``docs/model_format.md`` as a dict of plain Python values.
    tensors : the weights by name, float32 or float64; they keep their type.

    Raises
    ------
    TypeError : a tensor is of another type, or the architecture holds something that JSON does not have (NumPy numbers, say).
    ValueError : the architecture holds a number that is not finite.
    """
    try:
        document = _canonical_json(architecture)
    except TypeError as error:
        raise TypeError(f"the architecture must be a dict of plain Python values, as json.loads makes them: {error}") from None
    except ValueError as error:
        raise ValueError(f"the architecture must hold finite numbers only: {error}") from None
    arrays = {name: _as_stored(name, tensors[name]) for name in sorted(tensors)}

    header = {_METADATA: {_ARCHITECTURE: document, _CHECKSUM: _checksum(document, arrays)}}
    data = []
    end = 0
    # The larger type first keeps all data aligned.
    for name, array in sorted(arrays.items(), key=lambda item: (-item[1].itemsize, item[0])):
        start, end = end, end + array.nbytes
        header[name] = {"dtype": _DTYPES[array.dtype], "shape": list(array.shape), "data_offsets": [start, end]}
        data.append(array.tobytes())
    encoded = _canonical_json(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    return b"".join([struct.pack("<Q", len(encoded)), encoded, *data])


def unpack(contents: bytes) -> tuple[dict, dict[str, np.ndarray]]:
    """The architecture and the tensors, by name, of a model file's contents.

    Raises
    ------
    ValueError : the contents are no model file, or are damaged.
    """
    contents = bytes(contents)
    try:
        arrays = safetensors.numpy.load(contents)
        length, = struct.unpack_from("<Q", contents)
        metadata = json.loads(contents[8:8 + length]).get(_METADATA) or {}
    except (safetensors.SafetensorError, KeyError, ValueError, struct.error) as error:
        raise ValueError(f"this is no model file, or it was cut short: {error}. Expected a safetensors file that "
                         "openmmflow wrote; PyTorch checkpoints become one by `openmmflow import`") from None
    if _ARCHITECTURE not in metadata:
        raise ValueError(f"this safetensors file is no model file: its metadata has no {_ARCHITECTURE!r} with an architecture")
    tensors = {name: _as_stored(name, arrays[name]) for name in sorted(arrays)}
    document = metadata[_ARCHITECTURE]
    if _CHECKSUM in metadata and metadata[_CHECKSUM] != _checksum(document, tensors):
        raise ValueError(f"the model file is damaged: its checksum is {metadata[_CHECKSUM]}, its contents have "
                         f"{_checksum(document, tensors)}. Get the file again from where it came from")
    try:
        return json.loads(document), tensors
    except ValueError as error:
        raise ValueError(f"the architecture in this model file is no JSON document: {error}") from None


def write(path, architecture: dict, tensors: dict[str, np.ndarray]) -> None:
    """Write a model file. It appears complete or not at all; a file that was there before survives a failure.

    Raises what :func:`pack` raises, and OSError if the file cannot be written.
    """
    atomic.write_bytes(path, pack(architecture, tensors))


def read(path) -> tuple[dict, dict[str, np.ndarray]]:
    """The architecture and the tensors of a model file. Raises what :func:`unpack` raises, and OSError."""
    try:
        return unpack(Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _canonical_json(value) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _as_stored(name: str, tensor) -> np.ndarray:
    array = np.asarray(tensor)
    stored = array.dtype.newbyteorder("<")
    if stored not in _DTYPES:
        raise TypeError(f"tensor {name!r} is of type {array.dtype}, expected float32 or float64")
    return np.ascontiguousarray(array, dtype=stored).reshape(array.shape)


def _checksum(document: str, tensors: dict[str, np.ndarray]) -> str:
    crc = zlib.crc32(document.encode())
    for name in sorted(tensors):
        crc = zlib.crc32(tensors[name].tobytes(), zlib.crc32(name.encode(), crc))
    return f"{crc:08x}"

