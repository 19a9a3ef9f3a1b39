# SPDX-License-Identifier: MIT
"""The transformers of docs/model_format.md beside the smooth mixture, for :mod:`reference_flow`: float64 PyTorch and autograd.

Each is written in another way than the formulas of the engine: splines from their coefficients by de Boor's recursion, Moebius
transformations in complex numbers, analytic bijections with logarithms. Slopes come from autograd, inverses from bisection.
"""
import math

import torch


class Transformer:
    """F of one coupling for a batch; raw (batch, outputs) of the networks, circular (D,)."""

    def __init__(self, settings, raw, circular):
        self.settings, self.raw, self.circular = settings, raw, circular
        self._used = 0

    def block(self, rows, *, of_intervals=False):
        """The next block of raw parameters, (batch, D, rows); one of intervals has no numbers in the rows of other coordinates."""
        coordinates = torch.arange(len(self.circular))
        if of_intervals:
            coordinates = coordinates[~self.circular]
        part = self.raw[:, self._used:self._used + rows * len(coordinates)].reshape(len(self.raw), len(coordinates), rows)
        self._used += rows * len(coordinates)
        block = torch.full((len(self.raw), len(self.circular), rows), math.nan, dtype=self.raw.dtype)
        return block.index_copy(1, coordinates, part)

    def value(self, x):
        """F(x) of x (batch, D)."""
        raise NotImplementedError

    def __call__(self, x):
        """F(x) and F'(x)."""
        with torch.enable_grad():
            x = x if x.requires_grad else x.clone().requires_grad_(True)
            value = self.value(x)
            slope, = torch.autograd.grad(value.sum(), x, create_graph=True)
        return value, slope

    def inverse(self, y):
        """The root z of F(z) = y, on a circle modulo 1, and F'(z). Autograd sees one Newton step, which has the root's derivatives."""
        with torch.no_grad():
            far = 1e3 if self.settings["type"] == "affine" else 0.0
            low, high = torch.zeros_like(y) - far, torch.ones_like(y) + far
            # A circle may be turned: F runs from F(0) to F(0)+1.
            start = self.value(torch.zeros_like(y))
            turns = torch.where(self.circular, (y - start).floor(), 0.0)
            for _ in range(70):
                middle = (low + high) / 2
                below = self.value(middle) < y - turns
                low, high = torch.where(below, middle, low), torch.where(below, high, middle)
            root = (low + high) / 2
            slope = self(root)[1]
        z = root - (self.value(root) - (y - turns)) / slope
        return z, self(z)[1]


class RationalQuadraticSpline(Transformer):
    def __init__(self, settings, raw, circular):
        super().__init__(settings, raw, circular)
        bins, sharpness = settings["bins"], settings["slopeSharpness"]
        widths, heights = (m + (1 - bins * m) * self.block(bins).softmax(-1)
                           for m in (settings["minimumWidth"], settings["minimumHeight"]))
        slopes, last = self.block(bins), self.block(1, of_intervals=True)
        slopes = torch.cat([slopes, torch.where(circular[:, None], slopes[..., :1], last)], dim=-1)
        self.slopes = settings["minimumSlope"] + torch.nn.functional.softplus(slopes, beta=sharpness, threshold=500)
        self.x, self.y = (torch.nn.functional.pad(sizes.cumsum(-1), (1, 0)) for sizes in (widths, heights))

    def value(self, x):
        k = torch.searchsorted(self.x[..., 1:-1].detach().contiguous(), x.detach()[..., None].contiguous(), right=True)
        x0, x1, y0, y1, s0, s1 = (knots.gather(-1, k + side)[..., 0] for knots in (self.x, self.y, self.slopes) for side in (0, 1))
        s, t = (y1 - y0) / (x1 - x0), (x - x0) / (x1 - x0)
        return y0 + (y1 - y0) * (s * t**2 + s0 * t * (1 - t)) / (s + (s0 + s1 - 2 * s) * t * (1 - t))


class CubicBSpline(Transformer):
    """S = sum of coefficients times B-splines, shifted and scaled to [0,1]. Coefficients are sums of the increments."""

    def __init__(self, settings, raw, circular):
        super().__init__(settings, raw, circular)
        bins = self.bins = settings["bins"]
        increments = self._shares([self.block(bins), *(self.block(1, of_intervals=True) for _ in range(2))], settings["minimumIncrement"], 2)
        widths = self._shares([self.block(bins), *(self.block(1, of_intervals=True) for _ in range(4))], settings["minimumWidth"], 4)
        widths = widths / widths[..., :bins].sum(-1, keepdim=True)
        # Knots of the bins -2 to K+1, and one at either end that no B-spline of [0,1] depends on but the basis asks for.
        order = torch.cat([widths[..., -2:], widths[..., :-2]], dim=-1)
        knots = torch.nn.functional.pad(order.cumsum(-1), (1, 0)) - order[..., :2].sum(-1, keepdim=True)
        self.knots = torch.cat([knots[..., :1] - 1, knots, knots[..., -1:] + 1], dim=-1)
        self.coefficients = torch.nn.functional.pad(increments.cumsum(-1), (1, 0))
        ends = torch.zeros(raw.shape[0], len(circular), dtype=raw.dtype)
        self.start, self.end = self._spline(ends), self._spline(ends + 1)

    def _shares(self, blocks, minimum, more):
        """Those of an interval are over all blocks, those of a circle over the first, which is repeated."""
        raw = torch.cat(blocks, dim=-1)
        count = self.bins + more
        interval = minimum + (1 - count * minimum) * raw.nan_to_num().softmax(-1)
        circle = minimum + (1 - self.bins * minimum) * blocks[0].softmax(-1)
        wrapped = [circle, circle[..., :2]] + ([circle[..., -2:]] if more == 4 else [])
        return torch.where(self.circular[:, None], torch.cat(wrapped, dim=-1), interval)

    def _spline(self, x):
        x, t = x[..., None], self.knots
        inside = (x >= t[..., :-1]) & (x < t[..., 1:])
        basis = inside.to(x.dtype)
        for degree in (1, 2, 3):
            left = (x - t[..., :-degree - 1]) / (t[..., degree:-1] - t[..., :-degree - 1])
            right = (t[..., degree + 1:] - x) / (t[..., degree + 1:] - t[..., 1:-degree])
            basis = left * basis[..., :-1] + right * basis[..., 1:]
        return (basis * self.coefficients).sum(-1)

    def value(self, x):
        return (self._spline(x) - self.start) / (self.end - self.start)


class Affine(Transformer):
    def __init__(self, settings, raw, circular):
        super().__init__(settings, raw, circular)
        self.shift = self.block(1)[..., 0]
        self.log_scale = settings["logScaleBound"] * self.block(1)[..., 0].tanh()

    def value(self, x):
        return self.log_scale.exp() * x + self.shift


def _disc(a, b, radius):
    return radius * torch.complex(a, b) / (1 + a**2 + b**2).sqrt()


def _moebius(x, centre):
    """The angle, in turns, by which the Moebius transformation with that centre turns x, and 0 not at all."""
    z = torch.exp(2j * math.pi * x)
    return ((1 - centre / z) * (1 - centre).conj()).angle() / math.pi


class Moebius(Transformer):
    def __init__(self, settings, raw, circular):
        super().__init__(settings, raw, circular)
        components = settings["components"]
        self.weights = self.block(components).softmax(-1)
        self.centres = _disc(self.block(components), self.block(components), settings["radiusBound"])

    def value(self, x):
        return x + (self.weights * _moebius(x[..., None], self.centres)).sum(-1)


class Analytic(Transformer):
    def __init__(self, settings, raw, circular):
        super().__init__(settings, raw, circular)
        steps = self.steps = settings["steps"]
        bounded = lambda r: settings["logScaleBound"] * (r / settings["logScaleBound"]).tanh()
        a, b, first = self.block(steps), self.block(steps), self.block(1)
        # Circles have no more of them; their branch on the interval must have finite derivatives.
        c = torch.cat([first, self.block(steps - 1, of_intervals=True).nan_to_num()], -1)
        self.centre = ((torch.arange(steps, dtype=raw.dtype) + 0.5) / steps).logit() + bounded(a)
        self.scale, self.offset = bounded(b).exp(), bounded(c).sinh()
        self.disc, self.turn = _disc(a, b, settings["radiusBound"]), first[..., 0]

    def value(self, x):
        on_circle, on_interval = x, x
        for k in range(self.steps):
            on_circle = on_circle + _moebius((k + 1) * on_circle, self.disc[..., k]) / (k + 1)
            # The ends stay where they are; logarithms of them do not.
            u = on_interval.clamp(1e-15, 1 - 1e-15).logit() - self.centre[..., k]
            on_interval = (self.centre[..., k] + (self.scale[..., k] * u.sinh() + self.offset[..., k]).asinh()).sigmoid()
        return torch.where(self.circular, on_circle + self.turn, on_interval)


TRANSFORMERS = {"rationalQuadraticSpline": RationalQuadraticSpline, "cubicBSpline": CubicBSpline, "affine": Affine,
                "moebius": Moebius, "analytic": Analytic}
