# SPDX-License-Identifier: MIT
"""Flows of nflows (bayesiains/nflows) whose vector is that of a molecule's coordinates.

nflows has no periodic transforms, so torsions can neither be transformed nor read: what remains are molecules of three atoms, and
molecules in aligned and whitened Cartesian coordinates. For torsions use bgflow, or train with OpenMM-Flow.
"""
from __future__ import annotations

from pathlib import Path

import numpy as np

from .. import model_file
from .reading import reading
from .vector_flow import VectorFlow


def import_flow(flow, output, **arguments) -> Path:
    """Write the model file `output`; arguments and errors are those of :func:`convert_flow`."""
    from .. import FlowModel

    FlowModel.from_bytes(model_file.pack(*convert_flow(flow, **arguments))).save(output)
    return Path(output)


def convert_flow(flow, *, z_matrix=None, reference=None, whitening=None, temperature: float, measure: str = "cartesian", bonds=None,
                 data: dict | None = None, check: int = 64, tolerance: float = 1e-6) -> tuple[dict, dict[str, np.ndarray]]:
    """Architecture and tensors, as ``openmmflow.model_file`` has them, of a Flow of nflows without context.

    Known are CompositeTransform, InverseTransform, IdentityTransform, Permutation (Reverse, Random), PointwiseAffineTransform, ActNorm, Sigmoid, Logit,
    AdditiveCouplingTransform, and PiecewiseRationalQuadraticCouplingTransform of [0,1] (``tails=None``), with networks that are chains of linear
    layers; and the bases StandardNormal and BoxUniform of [0,1].

    Parameters
    ----------
    flow : its vector is that of the coordinates:
    z_matrix : bonds (nm), angles/π and torsions (φ + π)/2π of the rows, as docs/model_format.md orders them; or
    reference, whitening : Cartesian coordinates, aligned to the reference (atoms, 3) in nm, times whitening (3 · atoms - 6, 3 · atoms).
    temperature : of the data, K. measure : "cartesian" or "frame". bonds : bond graph; None: that of the Z-matrix, or a chain.
    data : description of the data.
    check : number of conformations on which model and flow are compared; 0: none. tolerance : of this, k_BT.

    Raises
    ------
    ValueError : a transform that a model file cannot hold, named with its place; or the check failed.
    """
    walk = VectorFlow(z_matrix, reference, whitening)
    with reading("the flow", "nflows"):
        transform, prior = flow._transform, flow._distribution
    _through(walk, transform, False, "transform")
    kind = type(prior).__name__
    with reading(f"the base density, {kind}", "nflows"):
        if kind == "StandardNormal":
            base = walk.normal_base(np.zeros(1), np.ones(1), kind)
        elif kind == "BoxUniform":
            inner = prior.base_dist if hasattr(prior, "base_dist") else prior
            base = walk.uniform_base(inner.low, inner.high, kind)
        else:
            raise ValueError(f"the base density {kind} is unknown; known are StandardNormal and BoxUniform")

    def log_prob(x):
        import copy

        double = copy.deepcopy(flow).double()
        noise, log_det = double._transform(x)
        return double._distribution.log_prob(noise) + log_det

    return walk.finish(base, log_prob, temperature=temperature, measure=measure, bonds=bonds, data=data, method="imported from nflows", check=check,
                       tolerance=tolerance, library="nflows")


def _through(walk, transform, inverse, where):
    kind = type(transform).__name__
    with reading(f"{where}, {kind}", "nflows"):
        if kind == "CompositeTransform":
            steps = list(enumerate(transform._transforms))
            for index, step in reversed(steps) if inverse else steps:
                _through(walk, step, inverse, f"{where} {index}")
        else:
            _step(walk, transform, kind, inverse, f"{where}, {kind}")


def _step(walk, transform, kind, inverse, where):
    if kind == "IdentityTransform":
        pass
    elif kind in ("InverseTransform", "Logit"):
        _through(walk, transform._transform, not inverse, where)
    elif kind in ("Permutation", "ReversePermutation", "RandomPermutation"):
        order = transform._permutation.tolist()
        walk.permute(np.argsort(order) if inverse else order)
    elif kind in ("PointwiseAffineTransform", "AffineTransform"):
        _scale(walk, _numbers(transform._shift), _numbers(transform._scale), inverse, where)
    elif kind == "ActNorm":
        _scale(walk, _numbers(transform.shift), np.exp(_numbers(transform.log_scale)), inverse, where)
    elif kind == "Sigmoid":
        temperature = _numbers(transform.temperature).item()
        if inverse:
            walk.logit(where)
            walk.scale(0.0, 1 / temperature, where)
        else:
            walk.scale(0.0, temperature, where)
            walk.logistic(where)
    elif kind in ("AdditiveCouplingTransform", "PiecewiseRationalQuadraticCouplingTransform"):
        _coupling(walk, transform, kind, "sampling" if inverse else "density", where)
    elif kind == "AffineCouplingTransform":
        raise ValueError(f"{where}: its scale is logistic(r + 2) + 0.001, that of a model file e^(B tanh r); use AdditiveCouplingTransform, or splines")
    else:
        raise ValueError(f"{where}: {kind} is unknown. Known are CompositeTransform, InverseTransform, IdentityTransform, Permutation, "
                         "PointwiseAffineTransform, ActNorm, Sigmoid, Logit, AdditiveCouplingTransform and PiecewiseRationalQuadraticCouplingTransform")


def _coupling(walk, transform, kind, closed_form, where):
    if transform.unconditional_transform is not None:
        raise ValueError(f"{where}: an unconditional transform of the other features is unknown")
    transformed, given = transform.transform_features.tolist(), transform.identity_features.tolist()
    network = _WithoutContext(transform.transform_net)
    if kind == "AdditiveCouplingTransform":
        walk.shift_coupling(transformed, given, network, closed_form, where)
        return
    if transform.tails is not None:
        raise ValueError(f"{where}: splines with tails are unknown; give tails=None, and Sigmoid before and Logit after them for the real line")
    # nflows does so where the network tells its width.
    width = getattr(transform.transform_net, "hidden_features", getattr(transform.transform_net, "hidden_channels", 1))
    walk.spline_coupling(transformed, given, network, closed_form, bins=transform.num_bins, divisor=np.sqrt(width), where=where,
                         minima=(transform.min_bin_width, transform.min_bin_height, transform.min_derivative))


class _WithoutContext:
    """A network of nflows, which takes a context as second argument, as one of its inputs alone."""

    def __init__(self, network):
        self._network = network
        self.name = type(network).__name__

    def modules(self):
        return self._network.modules()

    def double(self):
        return _WithoutContext(self._network.double())

    def __call__(self, x):
        return self._network(x, None)


def _scale(walk, shift, scale, inverse, where):
    walk.scale(*((-shift / scale, 1 / scale) if inverse else (shift, scale)), where)


def _numbers(tensor) -> np.ndarray:
    from .dense import to_array

    return to_array(tensor, "a shift or scale").astype(float)
