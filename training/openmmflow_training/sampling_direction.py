# SPDX-License-Identifier: MIT
"""The sampling direction z -> x of an architecture as a function of latents and weights, differentiable twice in both.

It consists of the operators of the density direction in the opposite order: couplings are solved for their inverse where their closed form
is the density direction, and the derivatives of a root come from the inverse function theorem (training/operators/SmoothMixture.cpp).
Coordinates stand in rows and samples in the last dimension, as there.
"""
from __future__ import annotations

import math

import torch

from . import operators

LOG_SQRT_2_PI = 0.5 * math.log(2 * math.pi)
SMALLEST_PROBABILITY = 1e-300    # keeps quantiles finite


class SamplingDirection:
    """Holds no weights, as ``operators.DensityDirection``."""

    def __init__(self, architecture: dict):
        first, *layers = architecture["layers"]
        self._placement = _placement(first, architecture["numParticles"], architecture["measure"])
        self.num_coordinates = self._placement.num_coordinates
        circular = self._placement.circular
        self._layers = []
        for index, layer in enumerate(layers, start=1):
            if layer["type"] == "coupling":
                self._layers.append(_Coupling(f"layers.{index}", layer, circular))
            elif layer["type"] == "permutation":
                order = torch.tensor(layer["order"])
                self._layers.append(_Permutation(order))
                circular = circular[order]
            else:
                self._layers.append((_Marginal if layer["type"] == "marginal" else _Elementwise)(f"layers.{index}", layer))
        self._base = [(f"base.{index}", entry["distribution"], torch.tensor(entry["coordinates"]))
                      for index, entry in enumerate(architecture["base"])]

    def sample_latents(self, count: int, tensors, generator: torch.Generator | None = None) -> torch.Tensor:
        """Independent draws (count, coordinates) from the base density, float64."""
        z = torch.rand(self.num_coordinates, count, dtype=torch.float64, generator=generator)
        for name, distribution, coordinates in self._base:
            if distribution != "uniform":
                value, _ = quantile(z[coordinates], distribution, *_numbers(tensors, name, unit_interval=True))
                z[coordinates] = value
        return z.t()

    def __call__(self, latent: torch.Tensor, tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions (N, particles, 3) in nm and ln p (N) of latents (N, coordinates); tensors by name. Both float64.

        Of internal coordinates the first frame atom is at the origin, the second on the positive x axis, the third in the xy plane; mixed
        coordinates stand where their reference does.
        """
        if latent.dim() != 2 or latent.shape[1] != self.num_coordinates:
            raise ValueError(f"latents must have shape (batch, {self.num_coordinates}), got {tuple(latent.shape)}")
        y = latent.t()
        log_prob = torch.zeros(y.shape[1], dtype=torch.float64)
        for name, distribution, coordinates in self._base:
            if distribution != "uniform":
                z = y[coordinates].double()
                log_density = operators.marginal(z, distribution, *_numbers(tensors, name, unit_interval=True))[1]
                log_prob = log_prob + log_density.sum(0)
        couplings = [layer for layer in self._layers if isinstance(layer, _Coupling)]
        if couplings:
            y = y.to(tensors[couplings[0].weight_name].dtype)
        for layer in reversed(self._layers):
            y, log_det = layer(y, tensors)
            log_prob = log_prob + log_det
            if couplings and layer is couplings[0]:
                y = y.double()
        positions, log_det = self._placement(y.double(), tensors)
        return positions, log_prob + log_det


def quantile(y, distribution: str, lower, upper, mean, std) -> tuple[torch.Tensor, torch.Tensor]:
    """The inverse of ``operators.marginal``: x (D, N) of probabilities y (D, N), and ln of the density at x."""
    if distribution == "uniform":
        width = (upper - lower)[:, None]
        return lower[:, None] + width * y, -width.log().expand_as(y)
    mean, std = mean[:, None], std[:, None]
    below = above = torch.zeros_like(mean)
    if distribution == "truncatedNormal":
        below = torch.special.ndtr((lower[:, None] - mean) / std)
        above = torch.special.ndtr((mean - upper[:, None]) / std)
    mass = 1 - below - above
    # Either tail is counted from its own end, so that neither loses digits.
    first_half = y < 0.5
    probability = torch.where(first_half, below + y * mass, above + (1 - y) * mass).clamp(min=SMALLEST_PROBABILITY)
    t = torch.where(first_half, 1.0, -1.0) * torch.special.ndtri(probability)
    return mean + std * t, -0.5 * t * t - LOG_SQRT_2_PI - std.log() - mass.log()


class _Marginal:
    """A marginal layer, from [0,1] to the coordinates. As the other layers: calls return y and ln|det| of the density direction."""

    def __init__(self, name: str, layer: dict):
        self.name, self.distribution, self.coordinates = name, layer["distribution"], torch.tensor(layer["coordinates"])

    def __call__(self, y, tensors):
        value, log_density = quantile(y[self.coordinates].double(), self.distribution, *_numbers(tensors, self.name))
        return y.index_copy(0, self.coordinates, value.to(y.dtype)), log_density.sum(0)


class _Elementwise:
    """A layer of single coordinates without a network; the inverse of each of them is another."""

    INVERSES = {"affineNormalization": "affineNormalization", "logit": "logistic", "logistic": "logit", "circularShift": "circularShift"}

    def __init__(self, name: str, layer: dict):
        self.name, self.type, self.coordinates = name, layer["type"], torch.tensor(layer["coordinates"])

    def __call__(self, y, tensors):
        shift, scale = (None if t is None else t.double() for t in (tensors.get(f"{self.name}.shift"), tensors.get(f"{self.name}.scale")))
        if scale is not None:
            shift, scale = -shift / scale, 1 / scale
        elif shift is not None:
            shift = -shift
        value, log_slope = operators.elementwise(y[self.coordinates].double(), self.INVERSES[self.type], shift, scale)
        return y.index_copy(0, self.coordinates, value.to(y.dtype)), -log_slope.sum(0)


class _Permutation:
    def __init__(self, order):
        self.inverse = order.argsort()

    def __call__(self, y, tensors):
        return y[self.inverse], 0.0


class _Coupling:
    """One coupling, from its output to its input."""

    def __init__(self, prefix: str, layer: dict, circular: torch.Tensor):
        given = torch.tensor(layer["conditionedOn"], dtype=torch.long)
        self.transformed = torch.tensor(layer["transformed"])
        self.plain, self.turns = given[~circular[given]], given[circular[given]]
        self.networks = [[f"{prefix}.networks.{n}.{m}" for m in range(len(widths) + 1)]
                         for n, widths in enumerate(layer["conditioner"]["networks"])]
        self.weight_name = f"{self.networks[0][0]}.weight"
        self.activation = layer["conditioner"]["activation"]
        self.transformer = _transformer(layer["transformer"], [int(c) for c in circular[self.transformed]])

    def __call__(self, y, tensors):
        angles = 2 * math.pi * y[self.turns]
        features = torch.cat([y[self.plain], angles.cos(), angles.sin()])
        outputs = []
        for network in self.networks:
            h = features
            for m, name in enumerate(network):
                if m > 0:
                    h = operators.activation(h, self.activation)
                h = torch.addmm(tensors[f"{name}.bias"].unsqueeze(1), tensors[f"{name}.weight"], h)
            outputs.append(h)
        value, log_slope = self.transformer(y[self.transformed].contiguous(), torch.cat(outputs))
        return y.index_copy(0, self.transformed, value), -log_slope.sum(0)


def _transformer(transformer: dict, circular: list[int]):
    """The operator of a coupling in sampling direction: a function of x (D, N) and all outputs of the networks, (R, N)."""
    inverse = transformer["closedForm"] == "density"
    if transformer["type"] == "smoothMixture":
        shape = (5, len(circular), transformer["components"], -1)
        settings = (transformer["head"] == "published", transformer["exponent"], transformer["alphaOffset"], transformer["alphaRange"],
                    transformer["logSteepnessBound"], transformer["minimumFloor"])
        return lambda x, raw: operators.smooth_mixture(x, raw.reshape(shape), circular, inverse, *settings)
    size_key, *keys = operators.transformer_keys(transformer["type"])
    size, settings = transformer.get(size_key, 1), [float(transformer[key]) for key in keys]
    return lambda x, raw: operators.transformer(x, raw, transformer["type"], circular, inverse, size, settings)


def _placement(layer: dict, num_particles: int, measure: str):
    if layer["type"] == "internalCoordinates":
        return Placement(layer["zMatrix"], num_particles, measure)
    return MixedPlacement(layer, num_particles, measure)


class Placement:
    """Positions of internal coordinates, the inverse of ``operators.internal_coordinates``."""

    def __init__(self, z_matrix, num_particles: int, measure: str):
        first, = (row for row in z_matrix if list(row).count(-1) == 3)
        second, = (row for row in z_matrix if list(row).count(-1) == 2)
        self._frame = first[0], second[0], next(row for row in z_matrix if list(row).count(-1) == 1)
        self._num_particles = num_particles
        self.num_coordinates = 3 * num_particles - 6
        self.circular = torch.arange(self.num_coordinates) >= 2 * num_particles - 3
        # Powers of b and sin(theta) in the volume element, docs/theory.md "Measures".
        bonds = torch.full((num_particles - 1, 1), 2.0, dtype=torch.float64)
        angles = torch.full((num_particles - 2, 1), 1.0, dtype=torch.float64)
        if measure == "frame":
            bonds[:2, 0], angles[0] = torch.tensor([0.0, 1.0]), 0.0
        self._bond_powers, self._angle_powers = bonds, angles
        self._constant = -(num_particles - 2) * math.log(math.pi) - (num_particles - 3) * math.log(2 * math.pi)
        if measure != "frame":
            self._constant -= math.log(8 * math.pi**2)
        self._rows = _FullRows(z_matrix, {first[0], second[0], self._frame[2][0]})

    def __call__(self, coordinates, tensors=None):
        """Positions (N, particles, 3) and ln|det d coordinates/d positions| (N) of coordinates (3 particles - 6, N)."""
        P = self._num_particles
        bonds, angles = coordinates[:P - 1], math.pi * coordinates[P - 1:2 * P - 3]
        torsions = 2 * math.pi * coordinates[2 * P - 3:] - math.pi
        log_det = self._constant - (self._bond_powers * bonds.log()).sum(0) - (self._angle_powers * angles.sin().log()).sum(0)

        f0, f1, (f2, j, k, _) = self._frame
        zero = torch.zeros_like(bonds[0])
        x = {f0: torch.stack([zero, zero, zero], dim=-1), f1: torch.stack([bonds[0], zero, zero], dim=-1)}
        towards = 1.0 if j == f0 else -1.0    # from the atom that f2 is placed from to the other one, along x
        x[f2] = x[j] + bonds[1, :, None] * torch.stack([towards * angles[0].cos(), angles[0].sin(), zero], dim=-1)
        self._rows.place(x, bonds[2:], angles[1:], torsions)
        return torch.stack([x[atom] for atom in range(P)], dim=1), log_det


class MixedPlacement:
    """Positions of mixed coordinates, the inverse of ``operators.mixed_coordinates``: docs/theory.md, "Mixed coordinates"."""

    def __init__(self, layer: dict, num_particles: int, measure: str):
        self._block, self._num_rows, self._num_particles = layer["block"], len(layer["zMatrix"]), num_particles
        self._aligned = measure != "frame"
        self.num_coordinates = 3 * self._num_rows + layer["blockDimensions"]
        index = torch.arange(self.num_coordinates)
        self.circular = (index >= 2 * self._num_rows) & (index < 3 * self._num_rows)
        self._rows = _FullRows(layer["zMatrix"], set(self._block))

    def __call__(self, coordinates, tensors):
        """Positions (N, particles, 3) and ln|det d coordinates/d positions| (N) of coordinates (3 rows + dimensions of the block, N).

        ln|det| is -inf where no conformation that is aligned to the reference has these coordinates.
        """
        Q = self._num_rows
        bonds, angles, torsions, block = coordinates.split([Q, Q, Q, len(coordinates) - 3 * Q])
        angles, torsions = math.pi * angles, 2 * math.pi * torsions - math.pi
        reference, unwhitening, constant = operators.block_whitening(tensors["layers.0.reference"], tensors["layers.0.whitening"], not self._aligned)
        positions = reference + (unwhitening @ block).t().reshape(-1, *reference.shape)
        log_det = constant - Q * math.log(2 * math.pi**2) - 2 * bonds.log().sum(0) - angles.sin().log().sum(0)
        if self._aligned:
            c = torch.einsum("nbi,bj->nij", positions, reference)
            a = c.diagonal(dim1=1, dim2=2).sum(-1)[:, None, None] * torch.eye(3, dtype=c.dtype) - (c + c.mT) / 2
            definite = (a[:, 0, 0] > 0) & (torch.linalg.det(a[:, :2, :2]) > 0) & (torch.linalg.det(a) > 0)
            # The other branch must have finite derivatives, too.
            a = torch.where(definite[:, None, None], a, torch.eye(3, dtype=c.dtype))
            log_det = torch.where(definite, log_det - torch.linalg.det(a).log(), -math.inf)
        x = {atom: positions[:, i] for i, atom in enumerate(self._block)}
        self._rows.place(x, bonds, angles, torsions)
        return torch.stack([x[atom] for atom in range(self._num_particles)], dim=1), log_det


class _FullRows:
    """The rows of a Z-matrix without -1. Those whose references are all placed go together."""

    def __init__(self, z_matrix, placed: set[int]):
        waiting = {index: row for index, row in enumerate(row for row in z_matrix if -1 not in row)}
        placed = set(placed)
        self._levels = []
        while waiting:
            ready = [index for index, row in waiting.items() if placed.issuperset(row[1:])]
            self._levels.append((torch.tensor(ready), [waiting.pop(index) for index in ready]))
            placed.update(row[0] for row in self._levels[-1][1])

    def place(self, x: dict, bonds, angles, torsions):
        """Adds to x, positions (N, 3) by atom, those of bonds (nm), angles and torsions (radians), (rows, N) each."""
        for index, rows in self._levels:
            xj, xk, xl = (torch.stack([x[row[place]] for row in rows]) for place in (1, 2, 3))
            axis = torch.nn.functional.normalize(xj - xk, dim=-1)
            normal = torch.nn.functional.normalize(torch.linalg.cross(xk - xl, axis), dim=-1)
            across = torch.linalg.cross(normal, axis)
            b, theta, phi = (t[index].unsqueeze(-1) for t in (bonds, angles, torsions))
            xi = xj + b * (-theta.cos() * axis + theta.sin() * (phi.cos() * across + phi.sin() * normal))
            x.update((row[0], xi[i]) for i, row in enumerate(rows))


def _numbers(tensors, name: str, unit_interval: bool = False):
    """lower, upper, mean and std of a distribution, those that it has."""
    values = [tensors.get(f"{name}.{key}") for key in ("lower", "upper", "mean", "std")]
    values = [None if v is None else v.double() for v in values]
    if unit_interval:
        values[0], values[1] = torch.zeros_like(values[2]), torch.ones_like(values[2])
    return values
