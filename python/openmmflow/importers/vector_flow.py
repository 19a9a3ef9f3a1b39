# SPDX-License-Identifier: MIT
"""Flows of vectors, as general libraries have them: their vector is that of the coordinates of a model's first layer.

What nflows and zuko have in common. A feature of the vector is followed as a coordinate, so permutations leave no trace.
"""
from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np

from .. import model_file
from .dense import Dense, dense_by_values, to_array, zeros
from .draft import Draft
from .reading import argument, count, reading


class VectorFlow:
    """Steps on all features of a vector, in density direction.

    Parameters
    ----------
    z_matrix : rows of docs/model_format.md; the vector is bonds (nm), angles/π and torsions (φ + π)/2π in their order.
    reference, whitening : instead of it, of a molecule in Cartesian coordinates, aligned to the reference (atoms, 3), nm: the vector is
        whitening (3 · atoms - 6, 3 · atoms) times what differs from it.
    """

    def __init__(self, z_matrix=None, reference=None, whitening=None):
        if (z_matrix is None) == (reference is None) or (reference is None) != (whitening is None):
            raise ValueError("give either a z_matrix, or reference and whitening of Cartesian coordinates")
        self.draft = Draft()
        if z_matrix is not None:
            rows = argument("z_matrix", z_matrix, "rows of four particles, -1 where there is none", _z_matrix)
            self.particles = len(rows)
            self.bonds = [row[:2] for row in rows if row[1] >= 0]
            self.draft.internal_coordinates(rows)
        else:
            reference = argument("reference", reference, "an array (atoms, 3)", lambda value: np.asarray(value, float).reshape(len(value), 3))
            self.particles = len(reference)
            whitening = argument("whitening", whitening, f"an array (dimensions, {3 * self.particles})",
                                 lambda value: np.asarray(value, float).reshape(len(value), 3 * self.particles))
            self.bonds = [[i, i + 1] for i in range(self.particles - 1)]
            self.draft.mixed_coordinates(list(range(self.particles)), [], reference, whitening)
        self.features = list(range(len(self.draft.domains)))
        self._start = copy.deepcopy(self.draft)

    def permute(self, order) -> None:
        """Feature i becomes what was feature order[i]."""
        self.features = [self.features[int(i)] for i in order]

    def scale(self, shift, scale, where: str) -> None:
        """y = shift + scale x of each feature; torsions can be shifted only."""
        count = len(self.features)
        shift, scale = (_each(value, count, where) for value in (shift, scale))
        if np.any(scale <= 0):
            raise ValueError(f"{where}: a scale that is not positive")
        circles = [i for i, c in enumerate(self.features) if self.draft.domains[c] == "circle"]
        if np.any(scale[circles] != 1):
            raise ValueError(f"{where}: it scales a torsion, which then is no longer periodic")
        moved = [i for i in circles if shift[i] != 0]
        if moved:
            self.draft.append({"type": "circularShift", "coordinates": [self.features[i] for i in moved]}, {"shift": shift[moved]})
        rest = [i for i in range(count) if i not in circles and (shift[i] != 0 or scale[i] != 1)]
        if rest:
            self.draft.normalize([self.features[i] for i in rest], -shift[rest] / scale[rest], 1 / scale[rest], where)

    def logistic(self, where: str) -> None:
        self.draft.to_interval(self.features, where)

    def logit(self, where: str) -> None:
        self.draft.take_as_interval([c for c in self.features if self.draft.domains[c] == "real"], where)
        self.draft.to_real(self.features, where)

    def shift_coupling(self, transformed: list[int], given: list[int], network: Callable, closed_form: str, where: str) -> None:
        """A coupling of real features that adds to those in `transformed` what a network makes of `given`."""
        what, on = self._coordinates(transformed), self._coordinates(given)
        if self.draft.domain(what) != "real":
            raise ValueError(f"{where}: it shifts coordinates on {self.draft.domain(what)} domains; expected the real line")
        shift = self._network(network, given, where)
        if shift.outputs != len(what):
            raise ValueError(f"{where}: its network has {shift.outputs} outputs for {len(what)} coordinates")
        self.draft.coupling(what, on, {"type": "affine", "closedForm": closed_form, "logScaleBound": 1.0}, [shift, zeros(len(on), len(what))], where)

    def spline_coupling(self, transformed: list[int], given: list[int], network: Callable, closed_form: str, *, bins: int, minima, divisor: float,
                        where: str) -> None:
        """A coupling with rational-quadratic splines of [0,1]; the network's outputs are widths, heights and slopes of one feature after the other.

        minima : of widths, heights and slopes. divisor : of the outputs for widths and heights.
        """
        what, on = self._coordinates(transformed), self._coordinates(given)
        self.draft.take_as_interval(what, where)
        if self.draft.domain(what) != "interval":
            raise ValueError(f"{where}: splines of [0,1] transform a torsion, which is then not periodic")
        parameters = self._network(network, given, where)
        each = 3 * bins + 1
        if parameters.outputs != each * len(what):
            raise ValueError(f"{where}: its network has {parameters.outputs} outputs, expected {each * len(what)}")
        starts = each * np.arange(len(what))[:, None]
        blocks = [starts + np.arange(start, end) for start, end in ((0, bins), (bins, 2 * bins), (2 * bins, 3 * bins), (3 * bins, each))]
        rows = np.concatenate([block.ravel() for block in blocks])
        factors = np.where(np.arange(len(rows)) < 2 * bins * len(what), 1 / divisor, 1.0)
        *hidden, (weight, bias) = parameters.layers
        last = ((weight[rows] * factors[:, None]).astype(weight.dtype), (bias[rows] * factors).astype(bias.dtype))
        width, height, slope = (float(m) for m in minima)
        self.draft.coupling(what, on, {"type": "rationalQuadraticSpline", "closedForm": closed_form, "bins": bins, "minimumWidth": width,
                                       "minimumHeight": height, "minimumSlope": slope, "slopeSharpness": 1.0},
                            [Dense([*hidden, last], parameters.activation)], where)

    def normal_base(self, mean, std, where: str) -> list:
        if self.draft.domain(self.features) != "real":
            raise ValueError(f"{where}: a normal base density of coordinates on {self.draft.domain(self.features)} domains")
        order = np.argsort(self.features)
        weights = {name: _each(value, len(order), where)[order] for name, value in (("mean", mean), ("std", std))}
        return [({"distribution": "normal", "coordinates": sorted(self.features)}, weights)]

    def uniform_base(self, low, high, where: str) -> list:
        if np.any(to_array(low, where) != 0) or np.any(to_array(high, where) != 1):
            raise ValueError(f"{where}: a uniform base density must be that of [0,1]")
        self.draft.take_as_interval(self.features, where)
        return [({"distribution": "uniform", "coordinates": sorted(self.features)}, {})]

    def finish(self, base, log_prob: Callable, *, temperature, measure, bonds, data, method, check, tolerance, library):
        """Architecture and tensors, after the model was compared with `log_prob`, the density of vectors (count, features) as float64 tensors."""
        data = argument("data", data or {}, "a dict", dict)
        check = argument("check", check, "a number of conformations", count)
        arguments = {"particles": self.particles, "temperature": temperature, "measure": measure, "bonds": self.bonds if bonds is None else bonds,
                     "constraints": [], "data": {"method": method, **data}}
        contents = self.draft.finish(base, **arguments)
        if check:
            tolerance = argument("tolerance", tolerance, "a number, in k_BT", float)
            with reading("the comparison with the flow", library):
                self._check(contents, log_prob, arguments, check, tolerance)
        return contents

    def _check(self, contents, log_prob, arguments, count, tolerance):
        """ln p of the model less that of the vector is the volume of the coordinates, which a model of them alone has, too."""
        import torch

        from .. import FlowModel

        real = [c for c, domain in enumerate(self._start.domains) if domain == "real"]
        circles = [c for c in range(len(self._start.domains)) if c not in real]
        base = [({"distribution": "normal", "coordinates": real}, {"mean": np.zeros(len(real)), "std": np.ones(len(real))})]
        base += [({"distribution": "uniform", "coordinates": circles}, {})] if circles else []
        self._start.version = 2
        coordinates = FlowModel.from_bytes(model_file.pack(*self._start.finish(base, **arguments)))
        model = FlowModel.from_bytes(model_file.pack(*contents))
        positions, found = model.sample(count, seed=1)
        vectors, density = coordinates.to_latent(positions, log_prob=True)
        density = density + (0.5 * vectors[:, real] ** 2 + 0.5 * np.log(2 * np.pi)).sum(-1)
        with torch.no_grad():
            expected = log_prob(torch.tensor(vectors)).numpy().reshape(-1) + density
        worst = np.abs(found - expected).max()
        if not worst <= tolerance:
            raise ValueError(f"the model differs from the flow by up to {worst:.1e} k_BT on {count} conformations, allowed are {tolerance:.1e}")

    def _coordinates(self, features):
        return [self.features[int(i)] for i in features]

    def _network(self, network, given, where) -> Dense:
        torsions = [c for c in self._coordinates(given) if self.draft.domains[c] == "circle"]
        if torsions:
            raise ValueError(f"{where}: its network reads coordinate {torsions[0]}, a torsion, as a number; it must enter as cosine and sine to stay "
                             "periodic. Such flows are made by bgflow, or by the trainer of OpenMM-Flow")
        return dense_by_values(network, len(given), where)


def _z_matrix(value) -> list[list[int]]:
    """For :func:`argument`."""
    rows = [[int(atom) for atom in row] for row in value]
    if not all(len(row) == 4 for row in rows):
        raise ValueError
    return rows


def _each(value, count: int, where: str) -> np.ndarray:
    """One number for each of `count` features, from as many or from one for all."""
    array = to_array(value, where).astype(float).reshape(-1)
    if array.size not in (1, count):
        raise ValueError(f"{where}: {array.size} values for {count} coordinates")
    return np.broadcast_to(array, count)
