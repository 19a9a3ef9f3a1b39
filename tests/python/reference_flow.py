# SPDX-License-Identifier: MIT
"""An independent evaluation of model files: plain PyTorch in double precision with autograd, for tests only.

Written from the mathematics (the theory page and docs/model_format.md) and on purpose not from the engine: what the two have in
common is the model file. It is slow and says each thing in the most direct way.
"""
import math

import numpy as np
import torch
from reference_transformers import TRANSFORMERS

ACTIVATIONS = {"silu": torch.nn.functional.silu, "tanh": torch.tanh, "sin": torch.sin, "gelu": torch.nn.functional.gelu,
               "softplus": torch.nn.functional.softplus}


class ReferenceFlow:
    """The density of a model: architecture (dict) and tensors (arrays by name), as ``openmmflow.model_file`` reads them."""

    def __init__(self, architecture, tensors):
        self.architecture = architecture
        self.tensors = {name: torch.from_numpy(np.array(tensor, dtype=np.float64)) for name, tensor in tensors.items()}
        self.particles = architecture["numParticles"]

    def log_prob(self, positions):
        """ln p (batch,) of positions (batch, particles, 3) in nm, a float64 tensor; -inf outside of the support."""
        return self.to_latent(positions)[1]

    def log_prob_and_gradient(self, positions):
        """ln p (batch,) and d ln p/dx (batch, particles, 3) per nm, as NumPy arrays."""
        x = torch.tensor(np.asarray(positions), dtype=torch.float64, requires_grad=True)
        log_prob = self.log_prob(x)
        gradient, = torch.autograd.grad(log_prob.sum(), x)
        return log_prob.detach().numpy(), gradient.numpy()

    def to_latent(self, positions):
        """The latents (batch, coordinates) and ln p (batch,)."""
        first, *layers = self.architecture["layers"]
        make_coordinates = self._mixed_coordinates if first["type"] == "mixedCoordinates" else self._internal_coordinates
        y, log_det, circular = make_coordinates(first, positions)
        inside = torch.ones(len(y), dtype=torch.bool)
        for index, layer in enumerate(layers, start=1):
            if layer["type"] == "marginal":
                y, term, within = self._marginal(f"layers.{index}", layer, y)
                inside = inside & within
            elif layer["type"] == "permutation":
                y, circular, term = y[:, layer["order"]], circular[layer["order"]], 0.0
            elif layer["type"] in ("affineNormalization", "logit", "logistic", "circularShift"):
                y, term = self._elementwise(f"layers.{index}", layer, y)
            else:
                y, term = self._coupling(f"layers.{index}", layer, y, circular)
            log_det = log_det + term
        log_prob = log_det
        for index, entry in enumerate(self.architecture["base"]):
            log_prob = log_prob + self._base(f"base.{index}", entry, y)
        return y, torch.where(inside, log_prob, -math.inf)

    def _internal_coordinates(self, layer, x):
        """Bonds (nm), angles/pi and torsions in [0,1), ln|det| of the map, and which coordinates are circular."""
        rows = layer["zMatrix"]
        f0, = (i for i, j, _, _ in rows if j < 0)
        first, = ((i, j) for i, j, k, _ in rows if j >= 0 and k < 0)
        second, = ((i, j, k) for i, j, k, l in rows if k >= 0 and l < 0)
        assert first[1] == f0 and set(second[1:]) == {f0, first[0]}
        full = torch.tensor([row for row in rows if row[3] >= 0], dtype=torch.long).reshape(-1, 4)
        bond_atoms = torch.tensor([first, second[:2], *full[:, :2].tolist()])
        angle_atoms = torch.tensor([second, *full[:, :3].tolist()])
        bonds, angles, torsions = self._bonds_angles_torsions(x, bond_atoms, angle_atoms, full)

        # Volume elements of spherical coordinates, then the normalizations.
        log_det = -(2 * bonds[:, 2:].log() + angles[:, 1:].sin().log()).sum(-1)
        if self.architecture["measure"] == "cartesian":
            log_det = (log_det - 2 * bonds[:, 0].log() - 2 * bonds[:, 1].log() - angles[:, 0].sin().log()
                       - math.log(8 * math.pi**2))
        else:
            log_det = log_det - bonds[:, 1].log()
        log_det = log_det - angles.shape[1] * math.log(math.pi) - torsions.shape[1] * math.log(2 * math.pi)
        y = torch.cat([bonds, angles / math.pi, (torsions + math.pi) / (2 * math.pi)], dim=-1)
        circular = torch.arange(y.shape[1]) >= y.shape[1] - torsions.shape[1]
        return y, log_det, circular

    def _mixed_coordinates(self, layer, x):
        """The same with a block in Cartesians, by eigenvectors and determinants from torch.linalg."""
        rows = torch.tensor(layer["zMatrix"], dtype=torch.long).reshape(-1, 4)
        bonds, angles, torsions = self._bonds_angles_torsions(x, rows[:, :2], rows[:, :3], rows)
        log_det = -(2 * bonds.log() + angles.sin().log() + math.log(2 * math.pi**2)).sum(-1)
        reference, whitening = self.tensors["layers.0.reference"], self.tensors["layers.0.whitening"]
        block = x[:, layer["block"]]
        if self.architecture["measure"] == "frame":
            log_det = log_det + 0.5 * torch.linalg.slogdet(whitening @ whitening.T)[1]
        else:
            reference = reference - reference.mean(0)
            block = align(block - block.mean(1, keepdim=True), reference)
            # The space of aligned conformations is what is orthogonal to translations and rotations of the reference.
            unit = torch.eye(3, dtype=x.dtype)
            moves = torch.stack([*(e.expand_as(reference) for e in unit),
                                 *(torch.linalg.cross(e.expand_as(reference), reference) for e in unit)]).reshape(6, -1)
            space = torch.linalg.svd(moves)[2][6:]
            log_det = (log_det + torch.linalg.slogdet(whitening @ space.T)[1] - log_inertia(block, reference)
                       + 0.5 * log_inertia(reference[None], reference) - 1.5 * math.log(len(reference)) - math.log(8 * math.pi**2))
        w = (block - reference).flatten(1) @ whitening.T
        y = torch.cat([bonds, angles / math.pi, (torsions + math.pi) / (2 * math.pi), w], dim=-1)
        circular = torch.zeros(y.shape[1], dtype=torch.bool)
        circular[2 * len(rows):3 * len(rows)] = True
        return y, log_det, circular

    @staticmethod
    def _bonds_angles_torsions(x, bond_atoms, angle_atoms, full):
        """nm and rad, each (batch, rows)."""
        bonds = (x[:, bond_atoms[:, 0]] - x[:, bond_atoms[:, 1]]).norm(dim=-1)
        u, v = (x[:, angle_atoms[:, side]] - x[:, angle_atoms[:, 1]] for side in (0, 2))
        angles = torch.atan2(torch.linalg.cross(u, v).norm(dim=-1), (u * v).sum(-1))
        b1, b2, b3 = (x[:, full[:, n + 1]] - x[:, full[:, n]] for n in range(3))
        n1, n2 = torch.linalg.cross(b1, b2), torch.linalg.cross(b2, b3)
        return bonds, angles, torch.atan2(b2.norm(dim=-1) * (b1 * n2).sum(-1), (n1 * n2).sum(-1))

    def _elementwise(self, prefix, layer, y):
        x = y[:, layer["coordinates"]]
        if layer["type"] == "affineNormalization":
            value = (x - self.tensors[f"{prefix}.shift"]) / self.tensors[f"{prefix}.scale"]
            log_slope = -self.tensors[f"{prefix}.scale"].log().expand_as(x)
        elif layer["type"] == "logit":
            value, log_slope = torch.logit(x), -(x * (1 - x)).log()
        elif layer["type"] == "logistic":
            value = torch.sigmoid(x)
            log_slope = (value * (1 - value)).log()
        else:
            value, log_slope = (x + self.tensors[f"{prefix}.shift"]).remainder(1.0), torch.zeros_like(x)
        y = y.clone()
        y[:, layer["coordinates"]] = value
        return y, log_slope.sum(-1)

    def _marginal(self, prefix, layer, y):
        """The cumulative distribution function of each coordinate, ln of its density, and whether all lie in the support."""
        get = lambda name: self.tensors[f"{prefix}.{name}"]
        x = y[:, layer["coordinates"]]
        if layer["distribution"] == "uniform":
            lower, upper = get("lower"), get("upper")
            value = (x - lower) / (upper - lower)
            log_density = -(upper - lower).log().expand_as(x)
        else:
            normal = torch.distributions.Normal(get("mean"), get("std"), validate_args=False)
            lower_cdf, mass = 0.0, torch.ones(())
            if layer["distribution"] == "truncatedNormal":
                lower_cdf = normal.cdf(get("lower"))
                mass = normal.cdf(get("upper")) - lower_cdf
            value = (normal.cdf(x) - lower_cdf) / mass
            log_density = normal.log_prob(x) - mass.log()
        inside = ((value >= 0) & (value <= 1)).all(-1)
        y = y.clone()
        y[:, layer["coordinates"]] = value
        return y, log_density.sum(-1), inside

    def _coupling(self, prefix, layer, y, circular):
        conditioned_on = torch.tensor(layer["conditionedOn"], dtype=torch.long)
        transformed = torch.tensor(layer["transformed"])
        inputs, turns = y[:, conditioned_on], circular[conditioned_on]
        phases = 2 * math.pi * inputs[:, turns]
        features = torch.cat([inputs[:, ~turns], phases.cos(), phases.sin()], dim=-1)

        activation = ACTIVATIONS[layer["conditioner"]["activation"]]
        outputs = []
        for network, widths in enumerate(layer["conditioner"]["networks"]):
            h = features
            for m in range(len(widths) + 1):
                name = f"{prefix}.networks.{network}.{m}"
                h = h @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"]
                if m < len(widths):
                    h = activation(h)
            outputs.append(h)
        make = TRANSFORMERS.get(layer["transformer"]["type"], SmoothMixture)
        transformer = make(layer["transformer"], torch.cat(outputs, dim=-1), circular[transformed])
        x = y[:, transformed]
        if layer["transformer"]["closedForm"] == "density":
            value, slope = transformer(x)
            term = slope.log().sum(-1)
        else:
            value, slope = transformer.inverse(x)
            term = -slope.log().sum(-1)
        y = y.clone()
        y[:, transformed] = value if make is SmoothMixture else torch.where(circular[transformed], value.remainder(1.0), value)
        return y, term

    def _base(self, prefix, entry, y):
        z = y[:, entry["coordinates"]]
        if entry["distribution"] == "uniform":
            return torch.zeros(len(z), dtype=z.dtype)
        normal = torch.distributions.Normal(self.tensors[f"{prefix}.mean"], self.tensors[f"{prefix}.std"], validate_args=False)
        log_density = normal.log_prob(z)
        if entry["distribution"] == "truncatedNormal":
            one = torch.ones((), dtype=z.dtype)
            log_density = log_density - (normal.cdf(one) - normal.cdf(0 * one)).log()
        return log_density.sum(-1)


def align(centred, reference):
    """Blocks (batch, B, 3) turned onto the reference (B, 3): the rotation is the leading eigenvector of Horn's matrix."""
    s = centred.transpose(1, 2) @ reference
    antisymmetric = torch.stack([s[:, 1, 2] - s[:, 2, 1], s[:, 2, 0] - s[:, 0, 2], s[:, 0, 1] - s[:, 1, 0]], -1)
    trace = s.diagonal(dim1=1, dim2=2).sum(-1)
    inner = s + s.transpose(1, 2) - trace[:, None, None] * torch.eye(3, dtype=s.dtype)
    horn = torch.cat([torch.cat([trace[:, None], antisymmetric], -1)[:, None],
                      torch.cat([antisymmetric[..., None], inner], -1)], 1)
    w, v = torch.linalg.eigh(horn)[1][..., -1].split([1, 3], -1)
    v, w = v[:, None].expand_as(centred), w[:, None]
    return centred + 2 * torch.linalg.cross(v, torch.linalg.cross(v, centred) + w * centred)


def log_inertia(aligned, reference):
    """ln det(tr(C) - C), C the sum of a r^T: (batch,)."""
    c = aligned.transpose(1, 2) @ reference
    return torch.linalg.slogdet(c.diagonal(dim1=1, dim2=2).sum(-1)[:, None, None] * torch.eye(3, dtype=c.dtype) - c)[1]


class SmoothMixture:
    """F and F' of one coupling's transformer for a batch; raw (batch, 5 D K), circular (D,)."""

    def __init__(self, transformer, raw, circular):
        components = transformer["components"]
        w, alpha, mu, log_sigma, floor = raw.reshape(len(raw), 5, len(circular), components).unbind(1)
        bound, m0 = transformer["logSteepnessBound"], transformer["minimumFloor"]
        self.beta = transformer["exponent"]
        self.circular = circular
        self.w = w.softmax(-1)
        self.alpha = transformer["alphaOffset"] + transformer["alphaRange"] * alpha.sigmoid()
        self.floor = m0 + (1 - m0) * floor.sigmoid()
        if transformer["head"] == "free":
            prior = (torch.arange(components, dtype=raw.dtype) + 0.5) / components
            self.mu = self._choose(prior + mu, (mu + prior.logit()).sigmoid())
            self.sigma = self._choose(bound * log_sigma.sigmoid(), bound * (log_sigma / bound).tanh()).exp()
        else:
            self.mu = mu.softmax(-1).cumsum(-1)
            constant = torch.tensor(-bound, dtype=raw.dtype).sigmoid().expand_as(log_sigma)
            self.sigma = (bound * self._choose(constant, log_sigma.tanh())).exp()

    def __call__(self, x):
        """F(x) and F'(x) of x (batch, D)."""
        x = x[..., None]
        g, d = (torch.zeros_like(self.mu) for _ in range(2))
        for chosen, component in ((self.circular, self._circle), (~self.circular, self._interval)):
            g[:, chosen], d[:, chosen] = component(x[:, chosen], *(p[:, chosen] for p in (self.mu, self.sigma, self.alpha)))
        F = (self.w * ((1 - self.floor) * g + self.floor * x)).sum(-1)
        F1 = (self.w * ((1 - self.floor) * d + self.floor)).sum(-1)
        return F, F1

    def _interval(self, x, mu, sigma, alpha):
        """The sigmoid at x, normalized by its values at both ends."""
        start = mu - 0.5 / sigma
        value, slope = self._sigmoid(sigma * (x - start), alpha)
        low = self._sigmoid(-sigma * start, alpha)[0]
        mass = self._sigmoid(sigma * (1 - start), alpha)[0] - low
        return (value - low) / mass, sigma * slope / mass

    def _circle(self, x, mu, sigma, alpha):
        """The sigmoid's argument is taken modulo one turn, and the turns are counted."""
        start = mu - 0.5 / sigma
        value, slope = self._sigmoid(sigma * (x - start).remainder(1.0), alpha)
        low = self._sigmoid(sigma * (-start).remainder(1.0), alpha)[0]
        return value - low + (x - start).floor() - (-start).floor(), sigma * slope

    def _choose(self, circle, interval):
        return torch.where(self.circular[:, None], circle, interval)

    def inverse(self, y):
        """The root z of F(z) = y and F'(z). Autograd sees one Newton step at the root, which has the root's derivatives."""
        with torch.no_grad():
            low, high = torch.zeros_like(y), torch.ones_like(y)
            for _ in range(60):
                middle = (low + high) / 2
                below = self(middle)[0] < y
                low, high = torch.where(below, middle, low), torch.where(below, high, middle)
            root = (low + high) / 2
            slope = self(root)[1]
        z = root - (self(root)[0] - y) / slope
        return z, self(z)[1]

    def _sigmoid(self, u, alpha):
        """S(u) and S'(u) of the ramp exp(alpha(1-u^-beta)): a logistic of alpha((1-u)^-beta - u^-beta)."""
        # This close to 0 and 1 the ramp has underflowed, and the clamp keeps the powers finite.
        u = u.clamp(1e-3, 1 - 1e-3)
        s = (alpha * ((1 - u)**-self.beta - u**-self.beta)).sigmoid()
        complement = (-alpha * ((1 - u)**-self.beta - u**-self.beta)).sigmoid()
        return s, s * complement * alpha * self.beta * ((1 - u)**(-self.beta - 1) + u**(-self.beta - 1))
