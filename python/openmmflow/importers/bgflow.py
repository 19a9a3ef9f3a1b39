# SPDX-License-Identifier: MIT
"""Flows of bgflow: live ones, and checkpoints of noegroup/smooth_normalizing_flows and its relatives.

:func:`import_generator` and :func:`convert_generator` take a live generator or flow, as bgflow's builder makes them. Where there is a checkpoint only,
:func:`import_checkpoint` reads it:

A checkpoint has the weights, but not how the flow is put together; a small JSON document, the spec, says that:

====================================  ==============================================================================
``z_matrix``, ``frame_atoms``         rows ``[i, j, k, l]``, -1 where there is none; the atoms that are placed first (optional)
``temperature``, ``measure``          K; ``"frame"`` (bgflow's density) or ``"cartesian"``
``fields``                            ``BONDS``, ``ANGLES``, ``TORSIONS``: ``{"size", "circular"}``
``splits``                            field → name of a part → ``[start, stop]`` in the field (optional)
``fixed_atoms``                       the atoms that stay in Cartesian coordinates, of mixed or relative coordinates (optional)
``whitening_block``                   index of the block with mixed coordinates, which holds their whitening; without it,
                                      coordinates with ``fixed_atoms`` are relative
``marginal_blocks``                   field → index of its block in the checkpoint
``couplings_in_density_direction``    list of ``{"block", "transform", "on"}``: fields or parts of fields
``activation``                        of the hidden layers; a coupling may have its own
``exponent``                          1, or 2 for bgflow's ``smoothness_type="type2"`` (optional; a coupling may have its own)
``transformer``                       ``"smoothMixture"``, ``"rationalQuadraticSpline"`` or ``"cubicBSpline"``, the last that of
                                      smhongok/Non-uniform-B-spline-Flow (optional; a coupling may have its own)
``bonds``, ``constraints``, ``data``  as in docs/model_format.md (optional)
====================================  ==============================================================================

With ``fixed_atoms``, as the flows of the Z-matrices "z1" to "z3" of smooth_normalizing_flows have them, there is one more field, ``FIXED``, and
no row of the Z-matrix has an entry -1. Their density depends on how the molecule lies, so the measure is ``"frame"``; ``"cartesian"`` aligns the
fixed atoms first, and needs 3 · fixed atoms - 6 coordinates of them.

Without ``bonds``, the bond graph is what the Z-matrix places atoms from, and a chain of the fixed atoms. Everything else is read from the checkpoint.
"""
from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .. import model_file
from .bgflow_modules import convert_generator, import_generator

__all__ = ["convert_checkpoint", "convert_generator", "convert_state_dict", "import_checkpoint", "import_generator"]

#: What bgflow adds to alpha so that components have one maximum, by exponent.
ALPHA_OFFSETS = {1: 0.8656721, 2: 0.3052033}
ACTIVATIONS = ("silu", "tanh", "sin", "gelu", "softplus")

_REQUIRED = {"z_matrix", "temperature", "measure", "fields", "marginal_blocks", "couplings_in_density_direction", "activation"}
_OPTIONAL = {"frame_atoms", "fixed_atoms", "whitening_block", "splits", "transformer", "exponent", "bonds", "constraints", "data"}
# The networks of a coupling in the order of the raw parameters [w | alpha | mu | ln sigma | m], and their outputs per component.
_NETWORKS = (("_compute_weights", 1), ("_compute_components._conditional_ramp._compute_alpha", 1),
             ("_compute_components._param_net", 3))
# Of splines, which have one network: the settings that their code does not change, numbers for each bin, and more for each interval.
_SPLINES = {
    "rationalQuadraticSpline": ({"minimumWidth": 1e-3, "minimumHeight": 1e-3, "minimumSlope": 1e-3, "slopeSharpness": 1.0}, 3, 1),
    "cubicBSpline": ({"minimumWidth": 1e-6, "minimumIncrement": 1e-6}, 2, 6),
}
_TRANSFORMERS = ("smoothMixture", *_SPLINES)
# Further than this many standard deviations a normal distribution has no mass in double precision; stands for infinite bounds.
_FAR = 40.0


def import_checkpoint(checkpoint, spec, output) -> Path:
    """Write the model file `output` from the checkpoint file `checkpoint` and the spec, a path or a dict. Returns its path.

    Raises what :func:`convert_checkpoint` raises, and FlowModelError if checkpoint and spec make no valid model or the file
    cannot be written.
    """
    from .. import FlowModel

    FlowModel.from_bytes(model_file.pack(*convert_checkpoint(checkpoint, spec))).save(output)
    return Path(output)


def convert_checkpoint(checkpoint, spec) -> tuple[dict, dict[str, np.ndarray]]:
    """Architecture and tensors, as ``openmmflow.model_file`` has them, of a checkpoint: a Lightning file or a bare state_dict.

    Raises
    ------
    ImportError : PyTorch, which reads the checkpoint, is not installed.
    ValueError : the file is no checkpoint, needs code to be read, or does not fit the spec; the message names the key or block.
    """
    return convert_state_dict(_read_state_dict(checkpoint), spec)


def convert_state_dict(state_dict, spec) -> tuple[dict, dict[str, np.ndarray]]:
    """The same of a state_dict: tensors or arrays by name. The spec is a path or a dict."""
    spec = _Spec(spec)
    blocks = _Blocks(state_dict)
    blocks.check_prior()
    layers, tensors = [], {}

    def append(layer, weights):
        tensors.update({f"layers.{len(layers)}.{name}": array for name, array in weights.items()})
        layers.append(layer)

    append(*_coordinates(blocks, spec))
    for name, block in spec.marginal_blocks.items():
        coordinates = spec.coordinates(name)
        layer, weights = _marginal(blocks, block, name, coordinates)
        if coordinates[0] not in spec.torsions:
            append(layer, weights)
        elif layer["distribution"] != "uniform" or np.any(weights["lower"] != 0) or np.any(weights["upper"] != 1):
            raise ValueError(f"block {block} is the marginal of {name}: torsions must be uniform on [0, 1] to stay periodic")
    for coupling in spec.couplings:
        append(*_coupling(blocks, coupling, spec.torsions))

    transformers = {coupling.transformer for coupling in spec.couplings}
    architecture = {
        "format": "openmm-flow", "version": 2 if spec.fixed_atoms or transformers - {"smoothMixture"} else 1,
        "numParticles": spec.particles, "temperature": spec.temperature,
        "measure": spec.measure, "bonds": spec.bonds, "constraints": spec.constraints, "data": spec.data, "layers": layers,
        "base": [{"distribution": "uniform", "coordinates": list(range(spec.num_coordinates))}],
    }
    return architecture, tensors


class _CouplingSpec(NamedTuple):
    block: int
    what: str | list[str]
    transformed: list[int]
    on: str | list[str]
    conditioned_on: list[int]
    activation: str
    exponent: int
    transformer: str


class _Spec:
    """A spec that has been read and checked as far as the checkpoint is not needed for it."""

    def __init__(self, source):
        source, document = ("spec", source) if isinstance(source, dict) else (f"spec {source}", _read_json(source))
        if not isinstance(document, dict):
            raise ValueError(f"{source}: expected a JSON object, got {type(document).__name__}")
        missing, unknown = _REQUIRED - set(document), set(document) - _REQUIRED - _OPTIONAL
        if missing or unknown:
            raise ValueError(f"{source}: " + "; ".join(filter(None, [
                missing and f"missing {', '.join(sorted(missing))}",
                unknown and f"unknown {', '.join(sorted(unknown))} (known: {', '.join(sorted(_REQUIRED | _OPTIONAL))})"])))
        self.source = source
        try:
            self._read(document)
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise ValueError(f"{source}: a value is not of the form that openmmflow.importers.bgflow describes "
                             f"({type(error).__name__}: {error})") from None

    def _read(self, document):
        self.z_matrix = [[int(atom) for atom in row] for row in document["z_matrix"]]
        self.fixed_atoms = [int(atom) for atom in document.get("fixed_atoms", [])]
        self.whitening_block = document.get("whitening_block")
        if any(len(row) != 4 for row in self.z_matrix) or len(self.z_matrix) < (0 if self.fixed_atoms else 3):
            raise ValueError(f"{self.source}: z_matrix must have at least three rows [i, j, k, l]")
        if self.whitening_block is not None and (not self.fixed_atoms or type(self.whitening_block) is not int):
            raise ValueError(f"{self.source}: whitening_block is the number of the block that whitens fixed_atoms; got "
                             f"{self.whitening_block!r} and fixed_atoms {self.fixed_atoms}")
        self.particles = len(self.z_matrix) + len(self.fixed_atoms)
        self.temperature = float(document["temperature"])
        self.measure = document["measure"]
        if self.measure not in ("frame", "cartesian"):
            raise ValueError(f'{self.source}: measure must be "frame" or "cartesian", got {self.measure!r}')
        if self.fixed_atoms:
            self._check_fixed_atoms()
        else:
            self._check_frame(document.get("frame_atoms"))
        self._parts = self._name_parts(document["fields"], document.get("splits", {}))
        torsions = self._parts["TORSIONS"]
        self.torsions = range(torsions[0], torsions[-1] + 1) if torsions else range(0)
        self.num_coordinates = sum(len(self._parts[field]) for field in document["fields"])
        self.marginal_blocks = dict(document["marginal_blocks"])
        self.couplings = [
            _CouplingSpec(coupling["block"], coupling["transform"], self.coordinates(coupling["transform"]), coupling["on"],
                          self.coordinates(coupling["on"]), coupling.get("activation", document["activation"]).lower(),
                          coupling.get("exponent", document.get("exponent", 1)),
                          coupling.get("transformer", document.get("transformer", "smoothMixture")))
            for coupling in document["couplings_in_density_direction"]]
        for coupling in self.couplings:
            if coupling.activation not in ACTIVATIONS:
                raise ValueError(f"{self.source}: activation {coupling.activation!r} is unknown; known are "
                                 + ", ".join(ACTIVATIONS))
            if coupling.transformer not in _TRANSFORMERS:
                raise ValueError(f"{self.source}: transformer {coupling.transformer!r} is unknown; known are {', '.join(_TRANSFORMERS)}")
            if not coupling.transformed:
                raise ValueError(f"{self.source}: the coupling of block {coupling.block} transforms nothing")
            if coupling.exponent not in ALPHA_OFFSETS:
                raise ValueError(f"{self.source}: exponent must be 1 or 2, got {coupling.exponent!r}")
        for block in (*self.marginal_blocks.values(), *(coupling.block for coupling in self.couplings)):
            if type(block) is not int:
                raise ValueError(f"{self.source}: blocks are numbered, but one is {block!r}")
        chain = [list(pair) for pair in zip(self.fixed_atoms, self.fixed_atoms[1:])]
        self.bonds = document.get("bonds") or chain + [row[:2] for row in self.z_matrix if row[1] >= 0]
        self.constraints = document.get("constraints", [])
        self.data = document.get("data", {"method": "imported from a bgflow checkpoint"})

    def coordinates(self, names) -> list[int]:
        """Indices in the flat vector of coordinates of a field or a part of one, or of several."""
        result = []
        for name in [names] if isinstance(names, str) else names:
            if name not in self._parts:
                raise ValueError(f"{self.source}: {name!r} is no field or part of one; these are {', '.join(self._parts)}")
            result += self._parts[name]
        return result

    def _check_frame(self, frame_atoms):
        placed_from = {sum(atom < 0 for atom in row): row[0] for row in self.z_matrix}
        frame = [placed_from.get(unused) for unused in (3, 2, 1)]
        if None in frame:
            raise ValueError(f"{self.source}: z_matrix needs one row each with three, two and one entries -1, for the frame")
        if frame_atoms is not None and list(frame_atoms) != frame:
            raise ValueError(f"{self.source}: frame_atoms are {list(frame_atoms)}, but z_matrix places {frame} first")

    def _check_fixed_atoms(self):
        if len(self.fixed_atoms) < 3 or any(-1 in row for row in self.z_matrix):
            raise ValueError(f"{self.source}: with fixed_atoms, of which there are at least three, all others are placed by rows of z_matrix "
                             f"without entries -1; got {len(self.fixed_atoms)} of them")

    def _name_parts(self, fields, splits):
        if self.fixed_atoms:
            rows = len(self.z_matrix)
            sizes = {"BONDS": rows, "ANGLES": rows, "TORSIONS": rows, "FIXED": 3 * len(self.fixed_atoms)}
            if self.whitening_block is not None and "FIXED" in fields:
                sizes["FIXED"] = int(fields["FIXED"]["size"])    # whatever the checkpoint keeps
        else:
            sizes = {"BONDS": self.particles - 1, "ANGLES": self.particles - 2, "TORSIONS": self.particles - 3}
        if set(fields) != set(sizes):
            raise ValueError(f"{self.source}: fields must be {', '.join(sizes)}, got {', '.join(fields)}; FIXED belongs to mixed Cartesian and "
                             "relative coordinates, which have fixed_atoms")
        parts = {}
        start = 0
        for field, size in sizes.items():
            if fields[field]["size"] != size or bool(fields[field]["circular"]) != (field == "TORSIONS"):
                raise ValueError(f"{self.source}: {field} of {self.particles} particles must have size {size} and circular "
                                 f"{str(field == 'TORSIONS').lower()}, got {fields[field]}")
            parts[field] = list(range(start, start + size))
            start += size
        for field, ranges in splits.items():
            for name, (first, last) in ranges.items():
                if field not in sizes or not 0 <= first < last <= sizes[field]:
                    raise ValueError(f"{self.source}: split {name} = {field}[{first}:{last}] is not within a field")
                parts[name] = parts[field][first:last]
        return parts


class _Blocks:
    """The tensors of a state_dict by block of the flow, whatever the flow itself is part of."""

    _KEY = re.compile(r"(?:^|\.)_flow\._blocks\.(\d+)\.(.+)$")

    def __init__(self, state_dict):
        self._blocks = {}
        self._prior = {}
        for key, value in state_dict.items():
            match = self._KEY.search(key)
            # Root finders hold the transformer once more.
            if match and "_oracle" not in key:
                self._blocks.setdefault(int(match[1]), {})[match[2]] = (key, value)
            elif re.search(r"(?:^|\.)_prior\.", key):
                self._prior[key] = value
        if not self._blocks:
            raise ValueError("there is no flow in this state_dict: no key contains _flow._blocks.; the first keys are "
                             + ", ".join(list(state_dict)[:3]))

    def keys(self, block) -> list[str]:
        """Keys of the block, without the flow's own prefix."""
        if block not in self._blocks:
            raise ValueError(f"the checkpoint has no block {block}; its blocks with tensors are {sorted(self._blocks)}")
        return list(self._blocks[block])

    def array(self, block, name) -> np.ndarray:
        """A tensor in its stored type (half precision becomes float32, which holds it exactly)."""
        if name not in self.keys(block):
            raise ValueError(f"block {block} has no {name}; it has {', '.join(self.keys(block))}")
        return _to_array(*self._blocks[block][name])

    def check_prior(self):
        """Raise unless the base density, as far as the checkpoint tells, is uniform on [0, 1]."""
        for key, value in self._prior.items():
            expected = {"low": 0.0, "high": 1.0}.get(key.rsplit(".", 1)[-1])
            if expected is None or np.any(_to_array(key, value) != expected):
                raise ValueError(f"{key} belongs to a base density that is not uniform on [0, 1], which cannot be imported")


def _coordinates(blocks, spec):
    """The first layer and its tensors."""
    if not spec.fixed_atoms:
        return {"type": "internalCoordinates", "zMatrix": spec.z_matrix}, {}
    size, dimensions = 3 * len(spec.fixed_atoms), len(spec.coordinates("FIXED"))
    reference, whitening = np.zeros(size), np.eye(size)
    if spec.whitening_block is not None:
        def get(short, shape):
            name = next((key for key in blocks.keys(spec.whitening_block) if key.endswith(f"_whiten.{short}")), None)
            if name is None:
                raise ValueError(f"block {spec.whitening_block}, the mixed coordinates, has no ..._whiten.{short}; it has "
                                 f"{', '.join(blocks.keys(spec.whitening_block))}")
            array = blocks.array(spec.whitening_block, name)
            if array.shape != shape:
                raise ValueError(f"block {spec.whitening_block}: {name} has the shape {array.shape}, expected {shape} for "
                                 f"{len(spec.fixed_atoms)} fixed atoms and {dimensions} coordinates of them")
            return array
        reference, whitening = get("X0mean", (size,)), get("Twhiten", (size, dimensions)).T
    return ({"type": "mixedCoordinates", "block": spec.fixed_atoms, "blockDimensions": dimensions, "zMatrix": spec.z_matrix},
            {"reference": reference.reshape(-1, 3), "whitening": np.ascontiguousarray(whitening)})


def _marginal(blocks, block, name, coordinates):
    """The layer and the tensors, by their last name, of a block that maps a field to [0, 1]."""
    prefix = "distribution."
    by_name = {key[key.rindex(prefix) + len(prefix):]: key for key in blocks.keys(block) if prefix in key}

    def get(short):
        if short not in by_name:
            raise ValueError(f"block {block}, the marginal of {name}, has no ...{prefix}{short}; it has "
                             f"{', '.join(blocks.keys(block))}. Expected a uniform (low, high) or truncated normal distribution")
        array = blocks.array(block, by_name[short])
        if array.size not in (1, len(coordinates)):
            raise ValueError(f"block {block}, the marginal of {name}: {by_name[short]} has {array.size} values, expected "
                             f"{len(coordinates)}")
        return np.broadcast_to(array.reshape(-1), len(coordinates)).copy()

    if "_mu" in by_name:
        mean, std = get("_mu"), get("_sigma")
        weights = {"mean": mean, "std": std, "lower": np.maximum(get("_lower_bound"), mean - _FAR * std),
                   "upper": np.minimum(get("_upper_bound"), mean + _FAR * std)}
        distribution = "truncatedNormal"
    else:
        weights = {"lower": get("low"), "upper": get("high")}
        distribution = "uniform"
    return {"type": "marginal", "distribution": distribution, "coordinates": coordinates}, weights


def _coupling(blocks, coupling, torsions):
    """The layer and the tensors, by their name within the layer, of a coupling block."""
    block, transformed, conditioned_on = coupling.block, coupling.transformed, coupling.conditioned_on
    features = len(conditioned_on) + sum(coordinate in torsions for coordinate in conditioned_on)
    if coupling.transformer in _SPLINES:
        transformer, weights, networks = _spline(blocks, coupling, features, sum(c not in torsions for c in transformed))
    else:
        transformer, weights, networks = _smooth_mixture(blocks, coupling, features)
    layer = {"type": "coupling", "transformed": transformed, "conditionedOn": conditioned_on, "transformer": transformer,
             "conditioner": {"activation": coupling.activation, "networks": networks}}
    return layer, weights


def _spline(blocks, coupling, features, num_intervals):
    """Transformer, tensors and hidden widths of the networks."""
    block, count, name = coupling.block, len(coupling.transformed), "_params_net"
    prefixes = {key[:key.index(name)] for key in blocks.keys(block) if name in key}
    if len(prefixes) != 1:
        raise ValueError(f"block {block} is no coupling with one {coupling.transformer}: expected keys with {name}, got "
                         f"{', '.join(blocks.keys(block))}")
    prefix, = prefixes
    layers = _dense_layers(blocks, block, prefix + name)
    _check_features(coupling, name, layers, features)
    settings, per_bin, per_interval = _SPLINES[coupling.transformer]
    outputs = len(layers[-1][1])
    bins, left = divmod(outputs - per_interval * num_intervals, per_bin * count)
    if left or bins < 1:
        raise ValueError(f"block {block}: {name} has {outputs} outputs, which is no number of bins of a {coupling.transformer} for the {count} "
                         f"coordinates of {coupling.what}, {num_intervals} of which are no torsions")
    # In sampling direction F is evaluated by a cubic B-spline, and its inverse by a rational-quadratic one; the other way round with an
    # InverseFlow around it.
    directions = ("density", "sampling") if coupling.transformer == "rationalQuadraticSpline" else ("sampling", "density")
    transformer = {"type": coupling.transformer, "closedForm": directions["_delegate." in prefix], "bins": bins, **settings}
    return transformer, _named(0, layers), [[len(bias) for _, bias in layers[:-1]]]


def _smooth_mixture(blocks, coupling, features):
    """Transformer, tensors and hidden widths of the networks."""
    block, transformed = coupling.block, coupling.transformed
    # An InverseFlow around the transformer, `_delegate`, makes its closed form that of the density direction.
    prefixes = {key[:key.index("_compute_")] for key in blocks.keys(block) if "_compute_" in key}
    if len(prefixes) != 1:
        raise ValueError(f"block {block} is no coupling with one smooth mixture transformer: expected keys with _compute_weights "
                         f"and _compute_components, got {', '.join(blocks.keys(block))}")
    prefix, = prefixes
    closed_form = "density" if "_delegate." in prefix else "sampling"

    weights, networks, components = {}, [], None
    for index, (name, multiple) in enumerate(_NETWORKS):
        layers = _dense_layers(blocks, block, prefix + name)
        _check_features(coupling, name, layers, features)
        outputs = len(layers[-1][1])
        expected = multiple * len(transformed) * components if components else None
        if outputs % (multiple * len(transformed)) or expected not in (None, outputs):
            wanted = expected or f"a multiple of {multiple * len(transformed)}"
            raise ValueError(f"block {block}: {name} has {outputs} outputs, expected {wanted} for the {len(transformed)} "
                             f"coordinates of {coupling.what}")
        components = outputs // (multiple * len(transformed))
        networks.append([len(bias) for _, bias in layers[:-1]])
        weights |= _named(index, layers)

    def constant(name):
        array = blocks.array(block, prefix + "_compute_components." + name)
        if array.size != 1:
            raise ValueError(f"block {block}: _compute_components.{name} has the shape {array.shape}, expected one number")
        return float(array.reshape(()))

    transformer = {
        "type": "smoothMixture", "head": "published", "closedForm": closed_form, "components": components,
        "exponent": coupling.exponent, "alphaOffset": ALPHA_OFFSETS[coupling.exponent],
        "alphaRange": constant("_conditional_ramp._max_alpha"), "logSteepnessBound": constant("_log_sigma_bound"),
        "minimumFloor": constant("_min_density_lower_bound"),
    }
    return transformer, weights, networks


def _check_features(coupling, name, layers, features):
    if layers[0][0].shape[1] != features:
        raise ValueError(f"block {coupling.block}: {name} reads {layers[0][0].shape[1]} features, but {coupling.on} has {features}")


def _named(network, layers) -> dict[str, np.ndarray]:
    return {f"networks.{network}.{m}.{kind}": array for m, pair in enumerate(layers) for kind, array in zip(("weight", "bias"), pair)}


def _dense_layers(blocks, block, prefix) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights (outputs, inputs) and biases of a dense network, which stands in a wrapper (`net`) if it has circular inputs."""
    pattern = re.compile(re.escape(prefix) + r"\.(?:_?net\.)?_layers\.(\d+)\.weight$")
    found = sorted((int(match[1]), match[0]) for match in map(pattern.match, blocks.keys(block)) if match)
    if not found:
        raise ValueError(f"block {block} has no {prefix}..._layers.N.weight; it has {', '.join(blocks.keys(block))}")
    if [number for number, _ in found] != [2 * n for n in range(len(found))]:
        raise ValueError(f"block {block}: the dense layers of {prefix} are numbers {[number for number, _ in found]}, expected "
                         "even numbers from 0 on, with an activation without weights after each but the last")
    layers = []
    for _, key in found:
        weight, bias = blocks.array(block, key), blocks.array(block, key.removesuffix("weight") + "bias")
        inputs = len(layers[-1][1]) if layers else None
        if weight.ndim != 2 or bias.shape != weight.shape[:1] or inputs not in (None, weight.shape[1]):
            raise ValueError(f"block {block}: {key} of shape {weight.shape} and its bias of shape {bias.shape} do not fit "
                             + ("each other" if inputs is None else f"the {inputs} outputs of the layer before"))
        layers.append((weight, bias))
    return layers


def _to_array(key, value) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.dtype) in ("torch.float16", "torch.bfloat16"):
            value = value.float()
        value = value.numpy()
    array = np.array(value)
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    if array.dtype not in (np.float32, np.float64):
        raise ValueError(f"{key} is of type {array.dtype}, expected floating-point numbers")
    if np.any(np.isnan(array)):
        raise ValueError(f"{key} holds NaN: the training that wrote this checkpoint failed")
    return array


def _read_state_dict(path):
    try:
        import torch
    except ImportError as error:
        raise ImportError("reading a checkpoint needs PyTorch (pip install torch); running the model does not") from error
    try:
        with open(path, "rb") as file:
            contents = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no checkpoint file {path}") from None
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} is no PyTorch checkpoint, or reading it would run code that it holds. If you trust its "
                         "origin, load it yourself, save its state_dict alone with torch.save, and import that. "
                         f"PyTorch says: {error}") from None
    except Exception as error:    # anything, depending on where the file is damaged
        raise ValueError(f"{path} is no PyTorch checkpoint, or it was cut short ({type(error).__name__}: {error})") from None
    if isinstance(contents, dict) and isinstance(contents.get("state_dict"), dict):
        contents = contents["state_dict"]
    if not isinstance(contents, dict) or not all(isinstance(key, str) for key in contents):
        raise ValueError(f"{path} holds no state_dict but a {type(contents).__name__}")
    return {key: value for key, value in contents.items() if hasattr(value, "detach")}


def _read_json(path):
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"spec {path} is no JSON document: {error}") from None
