# SPDX-License-Identifier: MIT
"""A model file as a lean PyTorch module: what FlowForce is measured against.

Written as one would who wants speed from PyTorch: single precision, every operation over the whole batch and all components of a
coupling at once, all that depends on weights alone prepared when the module is made, gradients by autograd. It evaluates all that
docs/model_format.md describes, in density direction. Needs torch.
"""
from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional

ACTIVATIONS = {"silu": functional.silu, "tanh": torch.tanh, "sin": torch.sin, "gelu": functional.gelu,
               "softplus": functional.softplus}
EDGE = 2.5e-3
"""Beyond this distance from 0 and 1 a ramp is flat; the clamp keeps its powers finite."""
BISECTIONS = 24
"""Of a root in [0,1] before the last Newton step, which then is exact in single precision."""


class TorchFlow(torch.nn.Module):
    """ln p of conformations (batch, particles, 3) in nm, (batch,), from what ``openmmflow.model_file`` reads."""

    def __init__(self, architecture: dict, tensors: dict[str, np.ndarray]):
        super().__init__()
        tensors = {name: torch.tensor(np.asarray(values), dtype=torch.float32) for name, values in tensors.items()}
        first, *layers = architecture["layers"]
        kinds = {layer["type"] for layer in layers} | {layer["transformer"]["type"] for layer in layers if "transformer" in layer}
        unknown = kinds - {"marginal", "coupling", "smoothMixture"} | {first["type"]} - {"internalCoordinates"}
        if unknown:
            raise ValueError(f"this flow in PyTorch, which FlowForce is compared with, has no {', '.join(sorted(unknown))}")
        circular = np.arange(3 * architecture["numParticles"] - 6) >= 2 * architecture["numParticles"] - 3
        self.internal_coordinates = InternalCoordinates(first["zMatrix"], architecture["measure"])
        self.layers = torch.nn.ModuleList()
        for index, layer in enumerate(layers, start=1):
            own = _with_prefix(tensors, f"layers.{index}")
            self.layers.append(Marginal(layer, own) if layer["type"] == "marginal" else Coupling(layer, own, circular))
        self.base = torch.nn.ModuleList(BaseDensity(entry, _with_prefix(tensors, f"base.{index}"))
                                        for index, entry in enumerate(architecture["base"]) if entry["distribution"] != "uniform")

    def forward(self, positions):
        y, log_prob = self.internal_coordinates(positions)
        for layer in self.layers:
            y, log_det = layer(y)
            log_prob = log_prob + log_det
        for distribution in self.base:
            log_prob = log_prob + distribution(y)
        return log_prob


class InternalCoordinates(torch.nn.Module):
    """Positions to bonds (nm), angles/pi and torsions in [0,1), and ln|det J|."""

    def __init__(self, z_matrix, measure: str):
        super().__init__()
        self.cartesian = measure == "cartesian"
        second, = (row for row in z_matrix if list(row).count(-1) == 2)
        third, = (row for row in z_matrix if list(row).count(-1) == 1)
        full = [row for row in z_matrix if -1 not in row]
        rows = np.array([second[:2] + [-1], third[:3], *(row[:3] for row in full)])
        _buffers(self, bond=torch.tensor(rows[:, :2].T.copy()), angle=torch.tensor(rows[1:].T.copy()),
                 torsion=torch.tensor(np.array(full, dtype=np.int64).reshape(-1, 4).T.copy()))
        self.constant = -len(rows[1:]) * math.log(math.pi) - len(full) * math.log(2 * math.pi)
        if self.cartesian:
            self.constant -= math.log(8 * math.pi**2)

    def forward(self, x):
        i, j = x[:, self.bond[0]], x[:, self.bond[1]]
        bonds = (i - j).norm(dim=-1)
        centre = x[:, self.angle[1]]
        u, v = x[:, self.angle[0]] - centre, x[:, self.angle[2]] - centre
        angles = torch.atan2(torch.linalg.cross(u, v).norm(dim=-1), (u * v).sum(-1))
        i, j, k, l = (x[:, atoms] for atoms in self.torsion)
        f, g, h = i - j, j - k, l - k
        a, b = torch.linalg.cross(f, g), torch.linalg.cross(h, g)
        sine = (torch.linalg.cross(b, a) * g).sum(-1) / g.norm(dim=-1)
        torsions = torch.atan2(sine, (a * b).sum(-1))
        log_bonds, log_sines = bonds.log(), angles.sin().log()
        if self.cartesian:
            log_det = self.constant - 2 * log_bonds.sum(-1) - log_sines.sum(-1)
        else:
            log_det = self.constant - 2 * log_bonds[:, 2:].sum(-1) - log_bonds[:, 1] - log_sines[:, 1:].sum(-1)
        return torch.cat([bonds, angles / math.pi, torsions / (2 * math.pi) + 0.5], dim=-1), log_det


class Marginal(torch.nn.Module):
    """Cumulative distribution functions of some coordinates."""

    def __init__(self, layer: dict, tensors):
        super().__init__()
        self.normal = layer["distribution"] != "uniform"
        _buffers(self, coordinates=torch.tensor(layer["coordinates"]), **tensors)
        if self.normal:
            lower_cdf, mass = torch.zeros_like(self.mean), torch.ones_like(self.mean)
            if layer["distribution"] == "truncatedNormal":
                lower_cdf = _normal_cdf((self.lower - self.mean) / self.std)
                mass = _normal_cdf((self.upper - self.mean) / self.std) - lower_cdf
            _buffers(self, lower_cdf=lower_cdf, mass=mass, constant=-(self.std * mass * math.sqrt(2 * math.pi)).log().sum())
        else:
            _buffers(self, width=self.upper - self.lower, constant=-(self.upper - self.lower).log().sum())

    def forward(self, y):
        x = y[:, self.coordinates]
        if not self.normal:
            return y.index_copy(1, self.coordinates, (x - self.lower) / self.width), self.constant
        t = (x - self.mean) / self.std
        value = (_normal_cdf(t) - self.lower_cdf) / self.mass
        return y.index_copy(1, self.coordinates, value), self.constant - 0.5 * (t * t).sum(-1)


class Coupling(torch.nn.Module):
    """A coupling with its conditioner; circular and interval coordinates make a mixture each."""

    def __init__(self, layer: dict, tensors, circular):
        super().__init__()
        conditions, transformed = np.array(layer["conditionedOn"], dtype=np.int64), np.array(layer["transformed"])
        _buffers(self, plain=torch.tensor(conditions[~circular[conditions]]), turns=torch.tensor(conditions[circular[conditions]]))
        self.activation = ACTIVATIONS[layer["conditioner"]["activation"]]
        self.networks = torch.nn.ModuleList(
            torch.nn.ModuleList(_linear(tensors, f"networks.{n}.{m}") for m in range(len(widths) + 1))
            for n, widths in enumerate(layer["conditioner"]["networks"]))
        self.shape = (5, len(transformed), layer["transformer"]["components"])
        self.density = layer["transformer"]["closedForm"] == "density"
        self.mixtures = torch.nn.ModuleList()
        for on_circle in (False, True):
            which = np.flatnonzero(circular[transformed] == on_circle)
            if len(which):
                mixture = SmoothMixture(layer["transformer"], on_circle)
                _buffers(mixture, coordinates=torch.tensor(transformed[which]), rows=torch.tensor(which))
                self.mixtures.append(mixture)

    def forward(self, y):
        phases = 2 * math.pi * y[:, self.turns]
        features = torch.cat([y[:, self.plain], phases.cos(), phases.sin()], dim=-1)
        raw = []
        for network in self.networks:
            h = features
            for dense in network[:-1]:
                h = self.activation(dense(h))
            raw.append(network[-1](h))
        raw = torch.cat(raw, dim=-1).view(-1, *self.shape)
        log_det = 0.0
        result = y
        for mixture in self.mixtures:
            parameters = mixture.head(raw if len(self.mixtures) == 1 else raw[:, :, mixture.rows])
            x = y[:, mixture.coordinates]
            value, slope = mixture(x, parameters) if self.density else mixture.inverse(x, parameters)
            result = result.index_copy(1, mixture.coordinates, value)
            log_det = log_det + slope.log().sum(-1)
        return result, log_det if self.density else -log_det


class SmoothMixture(torch.nn.Module):
    """The smooth mixture transformer of coordinates that all lie on intervals or all on circles."""

    def __init__(self, transformer: dict, circular: bool):
        super().__init__()
        self.circular = circular
        self.published = transformer["head"] == "published"
        self.exponent = transformer["exponent"]
        self.alpha_offset, self.alpha_range = transformer["alphaOffset"], transformer["alphaRange"]
        self.bound, self.least_floor = transformer["logSteepnessBound"], transformer["minimumFloor"]
        prior = (torch.arange(transformer["components"]) + 0.5) / transformer["components"]
        _buffers(self, prior=prior, prior_logit=prior.logit())

    def head(self, raw):
        """Weight, alpha, centre, steepness and floor, each (batch, coordinates, components), of raw (batch, 5, ...)."""
        weight, alpha, centre, log_steepness, floor = raw.unbind(1)
        if self.published:
            centre = centre.softmax(-1).cumsum(-1)
        elif self.circular:
            centre = centre + self.prior
        else:
            centre = (centre + self.prior_logit).sigmoid()
        if self.circular and self.published:
            steepness = torch.full_like(weight, math.exp(self.bound / (1 + math.exp(self.bound))))
        elif self.circular:
            steepness = (self.bound * log_steepness.sigmoid()).exp()
        else:
            steepness = (self.bound * (log_steepness if self.published else log_steepness / self.bound).tanh()).exp()
        return (weight.softmax(-1), self.alpha_offset + self.alpha_range * alpha.sigmoid(), centre, steepness,
                self.least_floor + (1 - self.least_floor) * floor.sigmoid())

    def forward(self, x, parameters):
        """F(x) and F'(x) of x (batch, coordinates)."""
        weight, alpha, centre, steepness, floor = parameters
        x = x[..., None]
        start = centre - 0.5 / steepness
        if self.circular:
            t, t0 = x - start, -start
            turns, turns0 = t.floor(), t0.floor()
            S, slope = self._sigmoid(steepness * torch.stack((t - turns, t0 - turns0)), alpha)
            G, D = S[0] - S[1] + (turns - turns0), steepness * slope[0]
        else:
            S, slope = self._sigmoid(steepness * torch.stack((x - start, -start, 1 - start)), alpha)
            mass = S[2] - S[1]
            G, D = (S[0] - S[1]) / mass, steepness * slope[0] / mass
        F = (weight * torch.lerp(G, x.expand_as(G), floor)).sum(-1)
        slope = (weight * torch.lerp(D, torch.ones_like(D), floor)).sum(-1)
        return F, slope

    def inverse(self, y, parameters):
        """The root x of F(x) = y, and F'(x). Autograd sees one Newton step, which has the derivatives of the root."""
        turns = y.detach().floor() if self.circular else torch.zeros_like(y)
        target = y - turns
        with torch.no_grad():
            low, high = torch.zeros_like(y), torch.ones_like(y)
            for _ in range(BISECTIONS):
                middle = 0.5 * (low + high)
                below = self(middle, parameters)[0] < target
                low, high = torch.where(below, middle, low), torch.where(below, high, middle)
            root = 0.5 * (low + high)
            slope = self(root, parameters)[1]
        root = root - (self(root, parameters)[0] - target) / slope
        return root + turns, self(root, parameters)[1]

    def _sigmoid(self, u, alpha):
        """S(u) and S'(u): a logistic of alpha((1-u)^-beta - u^-beta)."""
        u = u.clamp(EDGE, 1 - EDGE)
        p, q = u.reciprocal(), (1 - u).reciprocal()
        h, h1 = (q - p, q * q + p * p) if self.exponent == 1 else (q * q - p * p, 2 * (q * q * q + p * p * p))
        g = alpha * h
        S = g.sigmoid()
        return S, S * (-g).sigmoid() * alpha * h1


class BaseDensity(torch.nn.Module):
    """ln p of those latents that are not uniformly distributed."""

    def __init__(self, entry: dict, tensors):
        super().__init__()
        _buffers(self, coordinates=torch.tensor(entry["coordinates"]), **tensors)
        mass = torch.ones_like(self.std)
        if entry["distribution"] == "truncatedNormal":
            mass = _normal_cdf((1 - self.mean) / self.std) - _normal_cdf(-self.mean / self.std)
        self.register_buffer("constant", -(self.std * mass * math.sqrt(2 * math.pi)).log().sum())

    def forward(self, z):
        t = (z[:, self.coordinates] - self.mean) / self.std
        return self.constant - 0.5 * (t * t).sum(-1)


def _normal_cdf(t):
    return 0.5 * torch.erfc(t * -math.sqrt(0.5))


def _with_prefix(tensors, prefix: str) -> dict:
    return {name[len(prefix) + 1:]: tensor for name, tensor in tensors.items() if name.startswith(prefix + ".")}


def _linear(tensors, name: str) -> torch.nn.Linear:
    weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    layer.bias = torch.nn.Parameter(bias, requires_grad=False)
    return layer


def _buffers(module: torch.nn.Module, **tensors):
    for name, tensor in tensors.items():
        module.register_buffer(name, tensor)
