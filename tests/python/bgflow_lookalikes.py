# SPDX-License-Identifier: MIT
"""Modules with the names and attributes of bgflow's, for tests of its importer where bgflow is not installed.

They compute the density direction alone, in the most direct way, and share no code with the importer or the engine.
"""
import math

import numpy as np
import torch
from torch.nn import Linear, Module, SiLU

from reference_flow import SmoothMixture


class Flow(Module):
    def forward(self, *xs, inverse=False):
        return self._inverse(*xs) if inverse else self._forward(*xs)


class SequentialFlow(Flow):
    def __init__(self, blocks):
        super().__init__()
        self._blocks = torch.nn.ModuleList(blocks)

    def _inverse(self, *xs):
        log_det = 0.0
        for block in reversed(self._blocks):
            *xs, term = block(*xs, inverse=True)
            log_det = log_det + term
        return *xs, log_det


class InverseFlow(Flow):
    def __init__(self, delegate):
        super().__init__()
        self._delegate = delegate

    def _forward(self, *xs):
        return self._delegate._inverse(*xs)

    def _inverse(self, *xs):
        return self._delegate._forward(*xs)


class WrapFlow(Flow):
    def __init__(self, flow, indices, out_indices=None):
        super().__init__()
        self._flow, self._indices, self._out_indices = flow, tuple(indices), tuple(out_indices or indices)

    def _inverse(self, *xs):
        *ys, log_det = self._flow(*(xs[i] for i in self._out_indices), inverse=True)
        rest = [x for i, x in enumerate(xs) if i not in self._out_indices]
        for position, y in sorted(zip(self._indices, ys), key=lambda item: item[0]):
            rest.insert(position, y)
        return *rest, log_det


class SplitFlow(Flow):
    def __init__(self, *sizes_or_indices):
        super().__init__()
        by_size = isinstance(sizes_or_indices[0], int)
        self._sizes, self._indices = (sizes_or_indices, None) if by_size else (None, sizes_or_indices)

    def _forward(self, x):
        parts = x.split(self._sizes, dim=-1) if self._sizes else [x[:, list(indices)] for indices in self._indices]
        return *parts, torch.zeros(len(x), 1)

    def _inverse(self, *xs):
        if self._sizes:
            return torch.cat(xs, dim=-1), torch.zeros(len(xs[0]), 1)
        merged = torch.empty(len(xs[0]), sum(len(indices) for indices in self._indices), dtype=xs[0].dtype)
        for x, indices in zip(xs, self._indices):
            merged[:, list(indices)] = x
        return merged, torch.zeros(len(merged), 1)


class MergeFlow(InverseFlow):
    def __init__(self, *sizes):
        super().__init__(SplitFlow(*sizes))


class SwapFlow(Flow):
    def _inverse(self, *xs):
        return xs[1], xs[0], *xs[2:], torch.zeros(len(xs[0]), 1)


class SetConstantFlow(Flow):
    def __init__(self, indices, values):
        super().__init__()
        self.indices, self.values = indices, values

    def _inverse(self, *xs):
        return *(x for i, x in enumerate(xs) if i not in self.indices), torch.zeros(len(xs[0]), 1)


class CircularShiftFlow(Flow):
    def __init__(self, shift):
        super().__init__()
        self.register_buffer("_shift", torch.as_tensor(shift))

    def _inverse(self, x):
        return (x - self._shift) % 1, torch.zeros(len(x), 1)


class AffineFlow(Flow):
    def __init__(self, log_sigma, mu):
        super().__init__()
        self._log_sigma, self._mu = torch.nn.Parameter(log_sigma), torch.nn.Parameter(mu)

    def _inverse(self, x):
        return (x - self._mu) * torch.exp(-self._log_sigma), -self._log_sigma.sum().expand(len(x), 1)


class CDFTransform(Flow):
    def __init__(self, distribution):
        super().__init__()
        self.distribution = distribution

    def _forward(self, x):
        return self.distribution.cdf(x), self.distribution.log_prob(x).sum(-1, keepdim=True)


# Distributions

class SloppyUniform(torch.distributions.Uniform):
    def __init__(self, low, high):
        super().__init__(low, high, validate_args=False)


class UniformDistribution(Module):
    def __init__(self, low, high):
        super().__init__()
        self._delegate = torch.distributions.Independent(SloppyUniform(low, high), 1, validate_args=False)

    def energy(self, x):
        return -self._delegate.log_prob(x)[:, None]


class NormalDistribution(Module):
    def __init__(self, mean):
        super().__init__()
        self.register_buffer("_mean", mean)
        self._has_cov = False

    def energy(self, x):
        return (0.5 * (x - self._mean)**2 + 0.5 * math.log(2 * math.pi)).sum(-1, keepdim=True)


class TruncatedNormalDistribution(Module):
    """Its energy leaves the normalization out, as bgflow's does."""

    def __init__(self, mu, sigma, lower, upper):
        super().__init__()
        for name, value in (("_mu", mu), ("_logsigma", sigma.log()), ("_lower_bound", lower), ("_upper_bound", upper)):
            self.register_buffer(name, value)

    def energy(self, x):
        return (0.5 * ((x - self._mu) / self._logsigma.exp())**2).sum(-1, keepdim=True)

    def _normal(self):
        return torch.distributions.Normal(self._mu, self._logsigma.exp(), validate_args=False)

    def _mass(self):
        return self._normal().cdf(self._upper_bound) - self._normal().cdf(self._lower_bound)

    def cdf(self, x):
        return (self._normal().cdf(x) - self._normal().cdf(self._lower_bound)) / self._mass()

    def log_prob(self, x):
        return self._normal().log_prob(x) - self._mass().log()


class ProductEnergy(Module):
    def __init__(self, components):
        super().__init__()
        self._components = torch.nn.ModuleList(components)


class ProductDistribution(Module):
    def __init__(self, components):
        super().__init__()
        self._delegate_energy = ProductEnergy(components)

    def energy(self, *xs):
        return sum(component.energy(x) for component, x in zip(self._delegate_energy._components, xs))


class BoltzmannGenerator:
    def __init__(self, prior, flow):
        self._prior, self._flow = prior, flow


# Networks

class DenseNet(Module):
    def __init__(self, widths, activation=SiLU):
        super().__init__()
        steps = []
        for inputs, outputs in zip(widths, widths[1:]):
            steps += [Linear(inputs, outputs), activation()]
        self._layers = torch.nn.Sequential(*steps[:-1])

    def forward(self, x):
        return self._layers(x)


class WrapPeriodic(Module):
    """Upstream has cosines and sines first, the published code has them last."""

    def __init__(self, net, indices, circular_first=True):
        super().__init__()
        self.net, self.indices, self.circular_first = net, indices, circular_first

    def forward(self, x):
        others = np.setdiff1d(np.arange(x.shape[-1]), self.indices)
        phases = 2 * math.pi * x[..., self.indices]
        parts = [phases.cos(), phases.sin(), x[..., others]]
        return self.net.forward(torch.cat(parts if self.circular_first else [parts[2], *parts[:2]], dim=-1))


# Couplings

class CouplingFlow(Flow):
    def __init__(self, transformer, transformed_indices, cond_indices):
        super().__init__()
        self.transformer, self.transformed_indices, self.cond_indices = transformer, transformed_indices, cond_indices

    def _inverse(self, *xs):
        xs = list(xs)
        inputs = torch.cat([xs[i] for i in self.transformed_indices], dim=-1)
        outputs, log_det = self.transformer(torch.cat([xs[i] for i in self.cond_indices], dim=-1), inputs, inverse=True)
        for i, part in zip(self.transformed_indices, outputs.split([xs[i].shape[-1] for i in self.transformed_indices], dim=-1)):
            xs[i] = part
        return *xs, log_det


class ConditionalSplineTransformer(Flow):
    _left, _right, _bottom, _top = 0.0, 1.0, 0.0, 1.0

    def __init__(self, params_net, is_circular, identity_init=False):
        super().__init__()
        self._params_net, self._is_circular = params_net, torch.as_tensor(is_circular)
        self._default_settings = {"min_bin_width": 1e-3, "min_bin_height": 1e-3, "min_derivative": 1e-3}
        if identity_init:
            self._default_settings["enable_identity_init"] = True

    def _inverse(self, cond, x):
        raw, D = self._params_net(cond), x.shape[-1]
        circular = self._is_circular.expand(D)
        K = (raw.shape[-1] - int((~circular).sum())) // (3 * D)
        w, h, s = raw[:, :3 * D * K].reshape(len(raw), 3, D, K).unbind(1)
        last = s[..., 0].clone()
        last[:, ~circular] = raw[:, 3 * D * K:]
        slope = 1e-3 + torch.nn.functional.softplus(torch.cat([s, last[..., None]], -1),
                                                    beta=math.log(2) / (1 - 1e-3) if "enable_identity_init" in self._default_settings else 1)
        w, h = (1e-3 + (1 - 1e-3 * K) * r.softmax(-1) for r in (w, h))
        right, top = w.cumsum(-1), h.cumsum(-1)
        bin = (x[..., None] > right[..., :-1]).sum(-1, keepdim=True)
        pick = [a.gather(-1, bin)[..., 0] for a in (w, h, right - w, top - h, slope[..., :-1], slope[..., 1:])]
        width, height, x0, y0, s0, s1 = pick
        xi, mean = (x - x0) / width, height / width
        q = mean + (s0 + s1 - 2 * mean) * xi * (1 - xi)
        y = y0 + height * (mean * xi**2 + s0 * xi * (1 - xi)) / q
        derivative = mean**2 * (s1 * xi**2 + 2 * mean * xi * (1 - xi) + s0 * (1 - xi)**2) / q**2
        return y, derivative.log().sum(-1, keepdim=True)


class AffineTransformer(Flow):
    def __init__(self, shift_transformation=None, scale_transformation=None, init_downscale=1.0, is_circular=False, preserve_volume=False):
        super().__init__()
        self._shift_transformation, self._scale_transformation = shift_transformation, scale_transformation
        self._log_alpha = torch.nn.Parameter(torch.zeros(1) - init_downscale)
        self._is_circular, self._preserve_volume = is_circular, preserve_volume

    def _inverse(self, cond, y):
        log_scale = torch.zeros_like(y)
        if self._scale_transformation is not None:
            log_scale = self._log_alpha.exp() * self._scale_transformation(cond).tanh()
        x = y - self._shift_transformation(cond) if self._shift_transformation is not None else y
        x = x * torch.exp(-log_scale)
        return x % 1 if self._is_circular else x, -log_scale.sum(-1, keepdim=True)


def smooth_ramp_pow1():
    """Only its name matters: it tells the exponent."""


class SmoothRamp(Module):
    def __init__(self, compute_alpha):
        super().__init__()
        self._compute_alpha, self._unimodal, self._ramp_fn = compute_alpha, True, smooth_ramp_pow1
        self.register_buffer("_max_alpha", torch.tensor(6.0))


class AffineSigmoidComponents(Module):
    def __init__(self, conditional_ramp, compute_params, periodic):
        super().__init__()
        self._conditional_ramp, self._param_net, self._periodic = conditional_ramp, compute_params, periodic
        self._zero_boundary_left = self._zero_boundary_right = False
        self.register_buffer("_min_density_lower_bound", torch.tensor(1e-2))
        self.register_buffer("_log_sigma_bound", torch.tensor(1.0))


class MixtureCDFTransformer(Flow):
    def __init__(self, compute_weights, compute_components):
        super().__init__()
        self._compute_weights, self._compute_components = compute_weights, compute_components

    def _mixture(self, cond, D):
        parts = self._compute_components
        raw = torch.cat([self._compute_weights(cond), parts._conditional_ramp._compute_alpha(cond), parts._param_net(cond)], dim=-1)
        K = raw.shape[-1] // (5 * D)
        return SmoothMixture({"components": K, "exponent": 1, "head": "published", "alphaOffset": 0.8656721,
                              "alphaRange": float(parts._conditional_ramp._max_alpha), "logSteepnessBound": float(parts._log_sigma_bound),
                              "minimumFloor": float(parts._min_density_lower_bound)}, raw, torch.full((D,), parts._periodic))

    def _forward(self, cond, x):
        y, slope = self._mixture(cond, x.shape[-1])(x)
        return y, slope.log().sum(-1, keepdim=True)

    def _inverse(self, cond, x):
        y, slope = self._mixture(cond, x.shape[-1]).inverse(x)
        return y, -slope.log().sum(-1, keepdim=True)


class WrapCDFTransformerWithInverse(Flow):
    def __init__(self, transformer):
        super().__init__()
        self._transformer = transformer

    def _forward(self, *xs):
        return self._transformer._forward(*xs)

    def _inverse(self, *xs):
        return self._transformer._inverse(*xs)


# Coordinates

class RelativeInternalCoordinateTransformation(Flow):
    normalize_angles = True

    def __init__(self, z_matrix, fixed_atoms):
        super().__init__()
        self.z_matrix, self.fixed_atoms = np.asarray(z_matrix), np.asarray(fixed_atoms)

    def _forward(self, x):
        x = x.reshape(len(x), -1, 3)
        i, j, k, l = (x[:, torch.as_tensor(column)] for column in self.z_matrix.T)
        bonds = (i - j).norm(dim=-1)
        angles = torch.acos(((i - j) * (k - j)).sum(-1) / bonds / (k - j).norm(dim=-1))
        axis = (k - j) / (k - j).norm(dim=-1, keepdim=True)
        v, w = (d - (d * axis).sum(-1, keepdim=True) * axis for d in (i - j, l - k))
        torsions = torch.atan2((torch.linalg.cross(axis, v) * w).sum(-1), (v * w).sum(-1))
        log_det = -(2 * bonds.log() + angles.sin().log() + math.log(2 * math.pi**2)).sum(-1, keepdim=True)
        fixed = x[:, torch.as_tensor(self.fixed_atoms)].flatten(1)
        return bonds, angles / math.pi, (torsions + math.pi) / (2 * math.pi), fixed, log_det


class GlobalInternalCoordinateTransformation(Flow):
    normalize_angles = True

    def __init__(self, z_matrix):
        super().__init__()
        z_matrix = np.asarray(z_matrix)
        missing = (z_matrix == -1).sum(-1)
        frame = z_matrix[np.argsort(-missing, kind="stable")[:3], 0]
        self._rel_ic = RelativeInternalCoordinateTransformation(z_matrix[missing == 0], frame)

    def _forward(self, x):
        bonds, angles, torsions, frame, log_det = self._rel_ic._forward(x)
        a, b, c = frame.reshape(len(x), 3, 3).unbind(1)
        d01, d12 = (b - a).norm(dim=-1, keepdim=True), (c - b).norm(dim=-1, keepdim=True)
        angle = torch.acos(((a - b) * (c - b)).sum(-1, keepdim=True) / d01 / d12)
        log_det = log_det - d12.log() - math.log(math.pi)    # bgflow's measure
        return (torch.cat([d01, d12, bonds], -1), torch.cat([angle / math.pi, angles], -1), torsions, a[:, None], 0 * a + 0.5, log_det)


class WhitenFlow(Module):
    def __init__(self, mean, whitening):
        super().__init__()
        self.register_buffer("X0mean", mean)
        self.register_buffer("Twhiten", whitening)


class MixedCoordinateTransformation(Flow):
    normalize_angles = True

    def __init__(self, z_matrix, fixed_atoms, mean, whitening):
        super().__init__()
        self._rel_ic = RelativeInternalCoordinateTransformation(z_matrix, fixed_atoms)
        self._whiten = WhitenFlow(mean, whitening)

    @property
    def fixed_atoms(self):
        return self._rel_ic.fixed_atoms

    def _forward(self, x):
        bonds, angles, torsions, fixed, log_det = self._rel_ic._forward(x)
        volume = 0.5 * torch.logdet(self._whiten.Twhiten.T @ self._whiten.Twhiten)
        return bonds, angles, torsions, (fixed - self._whiten.X0mean) @ self._whiten.Twhiten, log_det + volume
