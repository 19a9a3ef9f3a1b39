# SPDX-License-Identifier: MIT
"""Live flows and generators of bgflow (noegroup/bgflow), by walking their modules from x to z.

Tensors that bgflow passes between its modules are followed as lists of coordinates, so that splits, merges and wraps leave no trace.
Modules are known by the names of their classes; bgflow itself is not imported.
"""
from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .. import model_file
from ..builder import CONSTANT_BOND_REACH, constrained_coordinates
from .dense import dense, to_array, zeros
from .draft import Draft
from .reading import argument, count, reading

#: What bgflow adds to alpha so that components have one maximum, by the name of the ramp.
_RAMPS = {"smooth_ramp_pow1": (1, 0.8656721), "smooth_ramp_pow2": (2, 0.3052033)}
# Further than this many standard deviations a normal distribution has no mass in double precision; stands for infinite bounds.
_FAR = 40.0
_POSITIONS, _ORIGIN, _ROTATION = "positions", "origin", "rotation"


def import_generator(generator, output, **arguments) -> Path:
    """Write the model file `output` from a generator or flow; arguments and errors are those of :func:`convert_generator`."""
    from .. import FlowModel

    FlowModel.from_bytes(model_file.pack(*convert_generator(generator, **arguments))).save(output)
    return Path(output)


def convert_generator(generator, *, temperature: float, measure: str, prior=None, bonds=None, data: dict | None = None,
                      check: int = 64, positions=None, tolerance: float = 1e-4) -> tuple[dict, dict[str, np.ndarray]]:
    """Architecture and tensors, as ``openmmflow.model_file`` has them, of a BoltzmannGenerator or a flow of bgflow.

    Known are what its BoltzmannGeneratorBuilder makes: global, mixed and relative internal coordinates (normalized angles); CDFTransform of
    uniform, normal and truncated normal distributions; CouplingFlow with ConditionalSplineTransformer, AffineTransformer, and the smooth
    MixtureCDFTransformer of noegroup/smooth_normalizing_flows; SequentialFlow, InverseFlow, WrapFlow, SplitFlow, MergeFlow, SwapFlow,
    SetConstantFlow (origin and rotation, constrained bonds), CircularShiftFlow, AffineFlow and TorchTransform of an AffineTransform; priors that
    are uniform, normal or truncated normal; conditioners that are DenseNets, with torsions in a WrapPeriodic.

    Parameters
    ----------
    generator : a BoltzmannGenerator, or a flow from z to x.
    temperature : of the training data, K.
    measure : "cartesian" is what dynamics should sample (docs/theory.md); "frame" leaves most of the frame's volume out, as
        noegroup/smooth_normalizing_flows does. With global internal coordinates they are densities of the same distribution of conformations, and
        today's bgflow computes the first, larger by ln 2. Mixed coordinates of bgflow depend on the molecule's place and orientation, and "frame" is
        their density itself; with "cartesian" the molecule is aligned to the mean of the block first, which is another density unless the
        training data were aligned so. It wants 3 · (atoms of the block) - 6 dimensions of the block (``keepdims``).
    prior : of a flow without a generator; None: uniform on [0,1], and a standard normal distribution for coordinates on the real line.
    bonds : bond graph, pairs of atoms; None: what the Z-matrix places atoms from, and a chain of the block's atoms.
    data : description of the data, stored in the model.
    check : number of random configurations, which the flow makes itself, on which the model, in the measure of the original, is compared with it
        in double precision; 0: none.
    positions : other configurations to compare on, (frames, atoms, 3) in nm.
    tolerance : of this, k_B T: bgflow keeps some constants in single precision.

    Raises
    ------
    ValueError : a module, a transformer, a distribution or an activation that a model file cannot hold; its name and place are in the message.
        Or the check failed.
    FlowModelError : what was converted is no valid model.
    """
    if measure not in ("frame", "cartesian"):
        raise ValueError(f'measure must be "frame" or "cartesian", got {measure!r}')
    flow = getattr(generator, "_flow", None) if type(generator).__name__ == "BoltzmannGenerator" else generator
    prior = getattr(generator, "_prior", None) if prior is None and flow is not generator else prior
    walk = _Walk()
    slots = walk.through(flow, [_POSITIONS], True, "flow")
    if not walk.draft.layers or any(isinstance(slot, str) for slot in slots):
        raise ValueError("this flow has no coordinate transformation (GlobalInternalCoordinateTransformation or the like) at its end: it is not of "
                         "the positions of a molecule, or its origin and rotation are part of the prior")
    with reading("the prior", "bgflow"):
        base, components = walk.base(prior, slots)
    description = argument("data", data or {}, "a dict", dict)
    check = argument("check", check, "a number of configurations", count)
    tolerance = argument("tolerance", tolerance, "a number, in k_BT", float)
    description.setdefault("method", "imported from bgflow")

    def finish(measure):
        return copy.deepcopy(walk.draft).finish(base, particles=walk.particles, temperature=temperature, measure=measure,
                                                bonds=walk.bonds() if bonds is None else bonds, constraints=walk.constraints,
                                                data=description)

    if check or positions is not None:
        if positions is not None:
            positions = argument("positions", positions, f"an array (frames, {walk.particles}, 3)",
                                 lambda value: np.asarray(value, float).reshape(len(value), walk.particles, 3))
        with reading("the comparison with the flow", "bgflow"):
            _check(flow, prior, components, walk, finish("frame"), _positions(flow, components, check) if positions is None else positions, tolerance)
    if measure == "cartesian" and walk.block is not None and len(walk.whitening) != 3 * len(walk.block) - 6:
        raise ValueError(f'measure "cartesian" needs {3 * len(walk.block) - 6} dimensions of the block of {len(walk.block)} atoms, this flow keeps '
                         f'{len(walk.whitening)}: train with keepdims={3 * len(walk.block) - 6} on aligned data, or give measure="frame"')
    return finish(measure)


class _Walk:
    """The walk from x to z. Slots are bgflow's tensors: lists of coordinates, or the name of what is no coordinate of ours."""

    def __init__(self):
        self.draft = Draft()
        self.particles = 0
        self.z_matrix = []
        self.block = None         # of mixed coordinates
        self.whitening = None
        self.constants = {}       # coordinate: value
        self.constraints = []
        self.offset = 0.0         # ln p of the model minus that of bgflow

    def through(self, module, slots: list, inverse: bool, where: str) -> list:
        """Walk a module; ``inverse``: bgflow runs it backwards in density direction."""
        kind = type(module).__name__
        where = f"{where}, {kind}" if kind not in ("SequentialFlow", "WrapFlow", "InverseFlow") else where
        if kind not in _STEPS:
            raise ValueError(f"{where}: {kind} is unknown. Known are {', '.join(sorted(_STEPS))}")
        with reading(where, "bgflow"):
            return _STEPS[kind](self, module, slots, inverse, where)

    # Structure

    def sequential(self, module, slots, inverse, where):
        blocks = list(enumerate(module._blocks))
        for index, block in reversed(blocks) if inverse else blocks:
            slots = self.through(block, slots, inverse, f"{where} block {index}")
        return slots

    def inverted(self, module, slots, inverse, where):
        return self.through(module._delegate, slots, not inverse, where)

    def wrapped(self, module, slots, inverse, where):
        taken, put = (module._out_indices, module._indices) if inverse else (module._indices, module._out_indices)
        if max(taken) >= len(slots):
            raise ValueError(f"{where}: it takes tensor {max(taken)} of {len(slots)}: augmented dimensions, or more than one molecule, are unknown")
        rest = [slot for index, slot in enumerate(slots) if index not in set(taken)]
        results = self.through(module._flow, [slots[index] for index in taken], inverse, where)
        for position in np.argsort(put):
            rest.insert(put[position], results[position])
        return rest

    def split(self, module, slots, inverse, where):
        if getattr(module, "_split_dim", -1) not in (-1, 1):
            raise ValueError(f"{where}: it splits dimension {module._split_dim}; expected the last one")
        if inverse:
            if module._indices is None:
                return [[c for slot in slots for c in slot]]
            merged = np.empty(sum(len(indices) for indices in module._indices), int)
            for slot, indices in zip(slots, module._indices):
                merged[list(indices)] = slot
            return [merged.tolist()]
        whole, = slots
        if module._indices is not None:
            return [[whole[i] for i in indices] for indices in module._indices]
        sizes = [*module._sizes, len(whole) - sum(module._sizes)]
        ends = np.cumsum(sizes if sizes[-1] else sizes[:-1])
        return [whole[end - size:end] for end, size in zip(ends.tolist(), sizes)]

    def swap(self, module, slots, inverse, where):
        return [slots[1], slots[0], *slots[2:]]

    def set_constant(self, module, slots, inverse, where):
        if not inverse:
            raise ValueError(f"{where}: it sets constants on the way from x to z")
        for index, values in zip(module.indices, module.values):
            if index >= len(slots):
                raise ValueError(f"{where}: it makes tensor {index} of {len(slots)}, which are known here")
            if isinstance(slots[index], str):
                continue
            values = np.broadcast_to(to_array(values, where).astype(float), len(slots[index])).tolist()
            for coordinate, value in zip(slots[index], values):
                self._set_constant(coordinate, value, where)
        return [slot for index, slot in enumerate(slots) if index not in module.indices]

    def _set_constant(self, coordinate, value, where):
        """A constrained bond: in the model a narrow interval about it, and a constraint."""
        if self.block is not None or coordinate >= self.particles - 1 or self.draft.domains[coordinate] != "real":
            raise ValueError(f"{where}: coordinate {coordinate} is constant; only bonds of global internal coordinates can be constrained")
        first, second, *full = sorted(self.z_matrix, key=lambda row: 3 - row.count(-1))[1:3] + [r for r in self.z_matrix if -1 not in r]
        row = [first, second, *full][coordinate]
        self.constants[coordinate] = value
        self.constraints.append((row[0], row[1], value))
        self.draft.marginal("uniform", [coordinate], {"lower": np.array([value - CONSTANT_BOND_REACH]),
                                                      "upper": np.array([value + CONSTANT_BOND_REACH])})
        self.offset -= np.log(2 * CONSTANT_BOND_REACH)
        constrained_coordinates(self.constraints, self.z_matrix)

    # Coordinates

    def global_coordinates(self, module, slots, inverse, where):
        self._begin(module, slots, inverse, where)
        frame, rows = [int(a) for a in module._rel_ic.fixed_atoms], np.asarray(module._rel_ic.z_matrix).tolist()
        # bgflow's frame angle is always that at the second atom.
        self.z_matrix = [[frame[0], -1, -1, -1], [frame[1], frame[0], -1, -1], [frame[2], frame[1], frame[0], -1], *rows]
        self.particles = len(self.z_matrix)
        self.draft.internal_coordinates(self.z_matrix)
        P = self.particles
        return [list(range(P - 1)), list(range(P - 1, 2 * P - 3)), list(range(2 * P - 3, 3 * P - 6)), _ORIGIN, _ROTATION]

    def mixed_coordinates(self, module, slots, inverse, where):
        self._begin(module, slots, inverse, where)
        whiten = module._whiten
        return self._block_coordinates(module._rel_ic, to_array(whiten.X0mean, where).reshape(-1, 3),
                                       np.ascontiguousarray(to_array(whiten.Twhiten, where).T))

    def relative_coordinates(self, module, slots, inverse, where):
        self._begin(module, slots, inverse, where)
        size = len(module.fixed_atoms)
        return self._block_coordinates(module, np.zeros((size, 3)), np.eye(3 * size))

    def _block_coordinates(self, module, reference, whitening):
        self.block = [int(a) for a in module.fixed_atoms]
        self.z_matrix = np.asarray(module.z_matrix).tolist()
        self.whitening = whitening
        self.particles = len(self.block) + len(self.z_matrix)
        self.draft.mixed_coordinates(self.block, self.z_matrix, reference, whitening)
        Q, n = len(self.z_matrix), len(self.draft.domains)
        return [list(range(Q)), list(range(Q, 2 * Q)), list(range(2 * Q, 3 * Q)), list(range(3 * Q, n))]

    def _begin(self, module, slots, inverse, where):
        if slots != [_POSITIONS] or inverse:
            raise ValueError(f"{where}: it must be the first step from positions to z (InverseFlow around it in bgflow's direction)")
        if not module.normalize_angles:
            raise ValueError(f"{where}: angles and torsions must be normalized (normalize_angles=True)")

    def bonds(self):
        chain = zip(self.block, self.block[1:]) if self.block is not None else ()
        return [*chain, *(row[:2] for row in self.z_matrix if row[1] >= 0)]

    # Elementwise

    def cdf(self, module, slots, inverse, where):
        coordinates = self._coordinates(slots, where)
        if inverse:
            raise ValueError(f"{where}: an inverse cumulative distribution function on the way from x to z is unknown")
        kind, weights = _distribution(module.distribution, len(coordinates), where)
        domain = self.draft.domain(coordinates)
        if kind == "uniform" and not weights["lower"].any() and np.all(weights["upper"] == 1) and domain in ("circle", "interval"):
            return slots
        if domain != "real":
            raise ValueError(f"{where}: torsions must be uniform on [0,1] to stay periodic, this is a {kind} distribution" if domain == "circle" else
                             f"{where}: a marginal of coordinates that are not real")
        self.draft.marginal(kind, coordinates, weights)
        return slots

    def circular_shift(self, module, slots, inverse, where):
        coordinates = self._coordinates(slots, where)
        if self.draft.domain(coordinates) != "circle":
            raise ValueError(f"{where}: it shifts coordinates that are no torsions")
        shift = np.broadcast_to(to_array(module._shift, where), len(coordinates)).copy()
        self.draft.append({"type": "circularShift", "coordinates": coordinates}, {"shift": -shift if inverse else shift})
        return slots

    def affine_flow(self, module, slots, inverse, where):
        count = len(self._coordinates(slots, where))
        shift = np.zeros(count) if module._mu is None else to_array(module._mu, where).astype(float)
        scale = np.ones(count) if module._log_sigma is None else np.exp(to_array(module._log_sigma, where).astype(float))
        return self._scaled(slots, shift, scale, inverse, where)

    def torch_transform(self, module, slots, inverse, where):
        transform = module._delegate_transform
        transform = getattr(transform, "base_transform", transform)
        if type(transform).__name__ != "AffineTransform":
            raise ValueError(f"{where}: {type(transform).__name__} is unknown; known is AffineTransform")
        count = len(self._coordinates(slots, where))
        shift, scale = (np.broadcast_to(to_array(value, where).astype(float), count).copy() for value in (transform.loc, transform.scale))
        return self._scaled(slots, shift, scale, inverse, where)

    def _scaled(self, slots, shift, scale, inverse, where):
        """y = shift + scale x in bgflow's direction."""
        if np.any(scale <= 0):
            raise ValueError(f"{where}: a scale that is not positive")
        if not inverse:
            shift, scale = -shift / scale, 1 / scale
        self.draft.normalize(slots[0], shift, scale, where)
        return slots

    def _coordinates(self, slots, where):
        if len(slots) != 1 or isinstance(slots[0], str):
            raise ValueError(f"{where}: it is applied to {len(slots)} tensors, or to what is no internal coordinate; expected one of coordinates")
        return slots[0]

    # Couplings

    def coupling(self, module, slots, inverse, where):
        taken = [*module.transformed_indices, *module.cond_indices]
        if max(taken) >= len(slots) or any(isinstance(slots[index], str) for index in taken):
            raise ValueError(f"{where}: it takes tensors {taken} of {len(slots)}, one of which is no internal coordinate (augmented dimensions, for "
                             "example, are unknown)")
        transformed = [c for index in module.transformed_indices for c in slots[index]]
        conditioned_on = [c for index in module.cond_indices for c in slots[index]]
        transformer = module.transformer
        while type(transformer).__name__ == "InverseFlow":
            transformer, inverse = transformer._delegate, not inverse
        kind = type(transformer).__name__
        if kind not in _TRANSFORMERS:
            raise ValueError(f"{where}: the transformer {kind} is unknown; known are {', '.join(sorted(_TRANSFORMERS))}")
        circular = [self.draft.domains[c] == "circle" for c in conditioned_on]

        def network(conditioner):
            return dense(conditioner, circular, f"{where}, {kind}")

        description, networks = _TRANSFORMERS[kind](self, transformer, transformed, network, inverse, f"{where}, {kind}")
        self.draft.coupling(transformed, conditioned_on, description, networks, where)
        return slots

    def spline(self, transformer, transformed, network, inverse, where):
        edges = [float(getattr(transformer, name)) for name in ("_left", "_right", "_bottom", "_top")]
        if edges != [0, 1, 0, 1]:
            raise ValueError(f"{where}: it maps [{edges[0]}, {edges[1]}] to [{edges[2]}, {edges[3]}]; known are splines of [0,1]")
        self.draft.take_as_interval(transformed, where)
        flags = np.broadcast_to(to_array(transformer._is_circular, where) > 0, len(transformed))
        for coordinate, flag in zip(transformed, flags):
            if flag != (self.draft.domains[coordinate] == "circle"):
                raise ValueError(f"{where}: coordinate {coordinate} is {'no torsion, but is_circular' if flag else 'a torsion, but not is_circular'}")
        parameters = network(transformer._params_net)
        bins, left = divmod(parameters.outputs - int((~flags).sum()), 3 * len(transformed))
        if left or bins < 1:
            raise ValueError(f"{where}: its conditioner has {parameters.outputs} outputs, which is no number of bins for {len(transformed)} coordinates")
        settings = transformer._default_settings
        slope = float(settings["min_derivative"])
        return {"type": "rationalQuadraticSpline", "closedForm": "density" if inverse else "sampling", "bins": bins,
                "minimumWidth": float(settings["min_bin_width"]), "minimumHeight": float(settings["min_bin_height"]), "minimumSlope": slope,
                "slopeSharpness": float(np.log(2) / (1 - slope)) if settings.get("enable_identity_init") else 1.0}, [parameters]

    def affine(self, transformer, transformed, network, inverse, where):
        closed_form = "sampling" if inverse else "density"
        if transformer._preserve_volume:
            raise ValueError(f"{where}: preserve_volume is unknown")
        shift = transformer._shift_transformation
        inputs = None if shift is None else network(shift)
        if transformer._is_circular:
            if self.draft.domain(transformed) != "circle":
                raise ValueError(f"{where}: is_circular, but its coordinates are no torsions")
            blank = zeros(inputs.layers[0][0].shape[1], len(transformed))
            # One step whose Moebius transformation is the identity: x + c.
            return {"type": "analytic", "closedForm": closed_form, "steps": 1, "logScaleBound": 1.0, "radiusBound": 0.5}, [blank, blank, inputs]
        if self.draft.domain(transformed) != "real":
            raise ValueError(f"{where}: affine maps are of coordinates on the real line, these are on {self.draft.domain(transformed)} domains")
        scale = transformer._scale_transformation
        networks = [inputs, None if scale is None else network(scale)]
        if networks == [None, None]:
            raise ValueError(f"{where}: it has neither shift nor scale")
        count = next(n for n in networks if n is not None).layers[0][0].shape[1]
        networks = [zeros(count, len(transformed)) if n is None else n for n in networks]
        bound = float(np.exp(to_array(transformer._log_alpha, where).astype(float)).item())
        return {"type": "affine", "closedForm": closed_form, "logScaleBound": bound}, networks

    def smooth_wrapper(self, transformer, transformed, network, inverse, where):
        return self.smooth(transformer._transformer, transformed, network, inverse, where)

    def smooth(self, transformer, transformed, network, inverse, where):
        components = transformer._compute_components
        ramp = getattr(components, "_conditional_ramp", None)
        if type(components).__name__ != "AffineSigmoidComponents" or type(ramp).__name__ != "SmoothRamp" or transformer._compute_weights is None:
            raise ValueError(f"{where}: known are mixtures with weights of AffineSigmoidComponents with a SmoothRamp, got "
                             f"{type(components).__name__} with a {type(ramp).__name__}")
        if components._zero_boundary_left or components._zero_boundary_right or not ramp._unimodal or ramp._ramp_fn.__name__ not in _RAMPS:
            raise ValueError(f"{where}: boundaries of density zero and ramps that are not unimodal are unknown")
        self.draft.take_as_interval(transformed, where)
        if self.draft.domain(transformed) != ("circle" if components._periodic else "interval"):
            raise ValueError(f"{where}: it is {'' if components._periodic else 'not '}periodic, its coordinates are on "
                             f"{self.draft.domain(transformed)} domains")
        networks = [network(part) for part in (transformer._compute_weights, ramp._compute_alpha, components._param_net)]
        count, left = divmod(networks[0].outputs, len(transformed))
        if left or [n.outputs for n in networks] != [len(transformed) * count * m for m in (1, 1, 3)]:
            raise ValueError(f"{where}: its networks have {[n.outputs for n in networks]} outputs, expected D·K, D·K and 3·D·K, D = {len(transformed)}")
        exponent, offset = _RAMPS[ramp._ramp_fn.__name__]

        def number(tensor):
            return float(to_array(tensor, where).reshape(()))

        return {"type": "smoothMixture", "head": "published", "closedForm": "sampling" if inverse else "density", "components": count,
                "exponent": exponent, "alphaOffset": offset, "alphaRange": number(ramp._max_alpha),
                "logSteepnessBound": number(components._log_sigma_bound), "minimumFloor": number(components._min_density_lower_bound)}, networks

    # Base density

    def base(self, prior, slots):
        """Entries of the model's base, and what of the prior each slot of z is: (kind, coordinates, weights)."""
        parts = _parts(prior) if prior is not None else [None] * len(slots)
        if len(parts) != len(slots):
            raise ValueError(f"the prior has {len(parts)} parts, but the flow maps {len(slots)} tensors")
        entries, components = [], []
        for index, (part, coordinates) in enumerate(zip(parts, slots)):
            where = f"prior, part {index}"
            domain = self.draft.domain(coordinates)
            if part is None:
                kind, weights = ("normal", {"mean": np.zeros(len(coordinates)), "std": np.ones(len(coordinates))}) if domain == "real" else (
                    "uniform", {"lower": np.zeros(len(coordinates)), "upper": np.ones(len(coordinates))})
            else:
                kind, weights = _distribution(part, len(coordinates), where)
            components.append((kind, coordinates, weights))
            if kind == "truncatedNormal" and part is not None:
                self.offset -= _log_normalization(weights).sum()    # which bgflow's energy leaves out
            whole = "lower" in weights and not weights["lower"].any() and np.all(weights["upper"] == 1)
            if kind != "normal" and domain == "real":
                # A distribution with edges is that of a coordinate with edges.
                self.draft.marginal(kind, coordinates, weights)
                entries.append(({"distribution": "uniform", "coordinates": coordinates}, {}))
            elif (kind == "normal") != (domain == "real") or kind != "normal" and not whole or kind == "truncatedNormal" and domain != "interval":
                raise ValueError(f"{where}: a {kind} distribution of coordinates on {domain} domains; expected one on [0,1], or a normal one on the "
                                 "real line")
            else:
                keep = {"normal": ("mean", "std"), "truncatedNormal": ("mean", "std"), "uniform": ()}[kind]
                entries.append(({"distribution": kind, "coordinates": coordinates}, {name: weights[name] for name in keep}))
        if self.constants:
            entries.append(({"distribution": "uniform", "coordinates": sorted(self.constants)}, {}))
        return entries, components


_STEPS: dict[str, Callable] = {
    "SequentialFlow": _Walk.sequential, "DistributionTransferFlow": _Walk.sequential, "InverseFlow": _Walk.inverted, "MergeFlow": _Walk.inverted,
    "WrapFlow": _Walk.wrapped, "SplitFlow": _Walk.split, "SwapFlow": _Walk.swap, "SetConstantFlow": _Walk.set_constant,
    "GlobalInternalCoordinateTransformation": _Walk.global_coordinates, "MixedCoordinateTransformation": _Walk.mixed_coordinates,
    "RelativeInternalCoordinateTransformation": _Walk.relative_coordinates, "CDFTransform": _Walk.cdf,
    "CircularShiftFlow": _Walk.circular_shift, "AffineFlow": _Walk.affine_flow, "TorchTransform": _Walk.torch_transform,
    "CouplingFlow": _Walk.coupling,
}
_TRANSFORMERS: dict[str, Callable] = {
    "ConditionalSplineTransformer": _Walk.spline, "AffineTransformer": _Walk.affine, "MixtureCDFTransformer": _Walk.smooth,
    "WrapCDFTransformerWithInverse": _Walk.smooth_wrapper,
}


def _parts(prior) -> list:
    """The independent parts of a prior, one for each tensor."""
    delegate = getattr(prior, "_delegate_energy", prior)
    if type(delegate).__name__ == "ProductEnergy":
        return list(delegate._components)
    return [prior]


def _distribution(distribution, count: int, where: str) -> tuple[str, dict[str, np.ndarray]]:
    """The kind of a distribution of `count` independent coordinates and its numbers: mean, std, lower, upper."""
    def each(value):
        import torch

        array = torch.as_tensor(value).detach().cpu().double().numpy()
        if array.size not in (1, count):
            raise ValueError(f"{where}: {array.size} values for {count} coordinates")
        return np.broadcast_to(array.reshape(-1), count).copy()

    kind = type(distribution).__name__
    if kind in ("UniformDistribution", "SloppyUniform", "_SloppyUniform", "Uniform"):
        uniform = distribution._delegate.base_dist if kind == "UniformDistribution" else distribution
        return "uniform", {"lower": each(uniform.low), "upper": each(uniform.high)}
    if kind == "Normal":
        return "normal", {"mean": each(distribution.loc), "std": each(distribution.scale)}
    if kind == "NormalDistribution":
        mean = each(distribution._mean)
        if not distribution._has_cov:
            return "normal", {"mean": mean, "std": np.ones(count)}
        rotation = to_array(distribution._rot, where).astype(float)
        covariance = rotation @ np.diag(np.exp(to_array(distribution._log_diag, where).astype(float).reshape(-1))) @ rotation.T
        if np.abs(covariance - np.diag(np.diag(covariance))).max() > 1e-6 * np.diag(covariance).max():
            raise ValueError(f"{where}: its covariance is not diagonal; coordinates of a base density are independent")
        return "normal", {"mean": mean, "std": np.sqrt(np.diag(covariance))}
    if kind == "TruncatedNormalDistribution":
        mean = each(distribution._mu)
        std = np.exp(each(distribution._logsigma)) if hasattr(distribution, "_logsigma") else each(distribution._sigma)
        return "truncatedNormal", {"mean": mean, "std": std, "lower": np.maximum(each(distribution._lower_bound), mean - _FAR * std),
                                   "upper": np.minimum(each(distribution._upper_bound), mean + _FAR * std)}
    raise ValueError(f"{where}: the distribution {kind} is unknown; known are uniform, normal and truncated normal ones")


def _log_normalization(weights) -> np.ndarray:
    """ln of the integral of exp(-(x-mean)²/2std²) between the bounds."""
    from scipy.stats import norm

    lower, upper = ((weights[name] - weights["mean"]) / weights["std"] for name in ("lower", "upper"))
    return np.log(np.sqrt(2 * np.pi) * weights["std"] * (norm.cdf(upper) - norm.cdf(lower)))


def _positions(flow, components, count) -> np.ndarray:
    """Conformations (count, atoms, 3) that the flow makes from random z, which keep away from edges."""
    import torch

    random = np.random.default_rng(0)
    z = []
    for kind, coordinates, weights in components:
        if kind == "uniform":
            z.append(weights["lower"] + (weights["upper"] - weights["lower"]) * random.uniform(0.1, 0.9, (count, len(coordinates))))
        else:
            spread = weights["mean"] + 0.7 * weights["std"] * random.normal(size=(count, len(coordinates)))
            z.append(np.clip(spread, weights["lower"], weights["upper"]) if "lower" in weights else spread)
    with torch.no_grad():
        positions, *_ = copy.deepcopy(flow).double()(*(torch.tensor(part) for part in z))
    return positions.numpy().reshape(count, -1, 3)


def _check(flow, prior, components, walk, contents, positions, tolerance):
    """Compare a model in measure "frame" with the flow it was made from."""
    import torch

    from .. import FlowModel
    from ..analysis import log_frame_over_cartesian

    model = FlowModel.from_bytes(model_file.pack(*contents))
    with torch.no_grad():
        *latents, log_det = copy.deepcopy(flow).double()(torch.tensor(positions.reshape(len(positions), -1)), inverse=True)
        if prior is not None:
            energy = copy.deepcopy(prior).double().energy(*latents)
        else:
            energy = sum((0.5 * z**2 + 0.5 * np.log(2 * np.pi)).sum(-1, keepdim=True) for (kind, _, _), z in zip(components, latents)
                         if kind == "normal")
        expected = (log_det - energy).numpy().reshape(-1) + walk.offset
    usable = np.isfinite(expected)
    if usable.sum() < len(positions) / 2:
        raise ValueError(f"the flow gives no finite density to {len(positions) - usable.sum()} of {len(positions)} conformations")
    differences = [model.log_prob(positions) - expected]
    if walk.block is None:
        # Today's bgflow has the whole volume of the frame, with Euler angles that span (2π)² times 2 in place of 8π².
        differences.append(differences[0] - log_frame_over_cartesian(positions, [row[0] for row in walk.z_matrix[:3]]) + np.log(2))
    worst = min(np.abs(difference[usable]).max() for difference in differences)
    if not worst <= tolerance:
        raise ValueError(f"the model differs from the flow by up to {worst:.1e} k_BT on {usable.sum()} random conformations, allowed are "
                         f"{tolerance:.1e}: a module of the flow computes something else than what its class does in bgflow")
