# SPDX-License-Identifier: MIT
"""Flows of zuko (probabilists/zuko) whose vector is that of a molecule's coordinates.

Of zuko's univariate transformations a model file holds AdditiveTransform: the others limit their parameters by x/(1 + |x|), have tails, or are not
monotone maps of a coupling. As for nflows, torsions can neither be transformed nor read.
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
    """Architecture and tensors, as ``openmmflow.model_file`` has them, of a Flow of zuko without context.

    Known are GeneralCouplingTransform with ``univariate=AdditiveTransform, shapes=[()]`` (NICE), and UnconditionalTransform of AffineTransform,
    PermutationTransform, IdentityTransform, SigmoidTransform and its inverse, with networks whose activation is one of docs/model_format.md; and bases
    that are DiagNormal, or BoxUniform of [0,1].

    Arguments and errors are those of :func:`openmmflow.importers.nflows.convert_flow`.
    """
    walk = VectorFlow(z_matrix, reference, whitening)
    with reading("the flow", "zuko"):
        transforms = list(flow.transform.transforms)
    for index, transform in enumerate(transforms):
        with reading(f"transform {index}, {type(transform).__name__}", "zuko"):
            _through(walk, transform, f"transform {index}")
    with reading("the base density", "zuko"):
        prior = flow.base(None)
        kind = type(prior).__name__
        if kind == "DiagNormal":
            base = walk.normal_base(prior.base_dist.loc, prior.base_dist.scale, kind)
        elif kind == "BoxUniform":
            base = walk.uniform_base(prior.base_dist.low, prior.base_dist.high, kind)
        else:
            raise ValueError(f"the base density {kind} is unknown; known are DiagNormal and BoxUniform")

    def log_prob(x):
        import copy

        return copy.deepcopy(flow).double()().log_prob(x)

    return walk.finish(base, log_prob, temperature=temperature, measure=measure, bonds=bonds, data=data, method="imported from zuko", check=check,
                       tolerance=tolerance, library="zuko")


def _through(walk, transform, where):
    kind = type(transform).__name__
    where = f"{where}, {kind}"
    if kind == "GeneralCouplingTransform":
        univariate = getattr(transform.univariate, "__name__", str(transform.univariate))
        if univariate != "AdditiveTransform" or transform.total != 1:
            raise ValueError(f"{where}: the univariate transformation {univariate} is unknown; known is AdditiveTransform with shapes=[()]")
        mask = transform.mask.tolist()
        walk.shift_coupling([i for i, fixed in enumerate(mask) if not fixed], [i for i, fixed in enumerate(mask) if fixed], transform.hyper,
                            "density", where)
    elif kind == "UnconditionalTransform":
        _elementwise(walk, transform(None), where)
    else:
        raise ValueError(f"{where}: {kind} is unknown. Known are GeneralCouplingTransform and UnconditionalTransform; autoregressive flows are not, "
                         "as in a model file one network computes all parameters of a coupling")


def _elementwise(walk, transform, where):
    kind = type(transform).__name__
    if kind in ("DependentTransform", "IndependentTransform"):
        _elementwise(walk, transform.base if kind == "DependentTransform" else transform.base_transform, where)
    elif kind in ("Inverse", "_InverseTransform") and type(transform.inv).__name__ == "SigmoidTransform":    # zuko renames PyTorch's
        walk.logit(where)
    elif kind == "SigmoidTransform":
        walk.logistic(where)
    elif kind == "AffineTransform":
        walk.scale(transform.loc, transform.scale, where)
    elif kind == "PermutationTransform":
        walk.permute(transform.order.tolist())
    elif kind != "IdentityTransform":
        raise ValueError(f"{where}: {kind} is unknown; known are AffineTransform, PermutationTransform, IdentityTransform, SigmoidTransform and its inverse")
