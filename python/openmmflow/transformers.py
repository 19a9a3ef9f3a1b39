# SPDX-License-Identifier: MIT
"""Those transformers of couplings that :mod:`openmmflow.builder` makes flows of: usual settings, raw parameters, and where they begin.

docs/model_format.md, "Transformers", defines them; engine and training know them from flow/model/TransformerDescriptor.cpp.
"""
from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

SIZE_NAMES = {"rationalQuadraticSpline": "bins", "cubicBSpline": "bins", "affine": None, "moebius": "components", "analytic": "steps"}
"""The key of the number of bins, components or steps of each type but the smooth mixture."""
SETTINGS = {"rationalQuadraticSpline": ("minimumWidth", "minimumHeight", "minimumSlope", "slopeSharpness"),
            "cubicBSpline": ("minimumWidth", "minimumIncrement"), "affine": ("logScaleBound",), "moebius": ("radiusBound",),
            "analytic": ("logScaleBound", "radiusBound")}
"""The other numbers of each type, in the order of its descriptor."""
OF_INTERVALS = ("smoothMixture", "rationalQuadraticSpline", "cubicBSpline", "analytic")
OF_BONDS = (*OF_INTERVALS, "affine")
"""What can transform bonds and angles: the affine one as normalized coordinates on the real line."""
OF_CIRCLES = (*OF_INTERVALS, "moebius")


@dataclass(frozen=True)
class Block:
    """A block of raw parameters, (coordinates, rows); ``of_intervals``: only of coordinates on intervals."""

    rows: int
    of_intervals: bool = False


def size_and_settings(transformer: dict) -> tuple[int, list[float]]:
    """The size (1 if it has none) and the settings, in the order of :data:`SETTINGS`, of a transformer of a model's architecture."""
    kind = transformer["type"]
    return transformer[SIZE_NAMES[kind]] if SIZE_NAMES[kind] else 1, [float(transformer[name]) for name in SETTINGS[kind]]


def describe(kind: str, size: int) -> dict:
    """A transformer for the architecture of a model, with moderate settings; its closed form is that of the density direction.

    ``kind`` is a key of :data:`SETTINGS`; ``size`` counts bins, components or steps.
    """
    usual = {
        # On a circle slopes of the analytic one's steps multiply, up to 9 each with this radius.
        # Raw parameters of 0 are the slope 1: docs/model_format.md.
        "rationalQuadraticSpline": (1e-3, 1e-3, 1e-3, math.log(2) / (1 - 1e-3)), "cubicBSpline": (1e-3, 1e-3), "affine": (2.0,),
        "moebius": (0.95,), "analytic": (2.0, 0.8)}[kind]
    transformer = {"type": kind, "closedForm": "density"}
    if SIZE_NAMES[kind]:
        transformer[SIZE_NAMES[kind]] = size
    return transformer | dict(zip(SETTINGS[kind], usual))


def blocks(transformer: dict) -> list[Block]:
    """The blocks of raw parameters, in their order, of a transformer of a model's architecture."""
    kind = transformer["type"]
    if kind == "smoothMixture":
        return [Block(transformer["components"])] * 5
    size, _ = size_and_settings(transformer)
    one = Block(1, of_intervals=True)
    return {"rationalQuadraticSpline": [Block(size)] * 3 + [one], "cubicBSpline": [Block(size), one, one, Block(size), one, one, one, one],
            "affine": [Block(1)] * 2, "moebius": [Block(size)] * 3,
            "analytic": [Block(size), Block(size), Block(1), Block(size - 1, of_intervals=True)]}[kind]


def num_raw_parameters(transformer: dict, intervals: int, circles: int) -> int:
    """How many outputs the networks of a coupling have that transforms so many coordinates on intervals (or the real line) and circles."""
    return sum(block.rows * (intervals + (0 if block.of_intervals else circles)) for block in blocks(transformer))


def initial_raw(transformer: dict, on_circles, samples) -> np.ndarray:
    """Raw parameters (R,), in the order of the model file, of a transformer of SETTINGS that is near the cumulative distribution of samples.

    Parameters
    ----------
    transformer : of a model's architecture.
    on_circles : for each coordinate, whether it is on the circle.
    samples : for each coordinate an array of its values, or None: the identity.
    """
    shape = blocks(transformer)
    coordinates = []
    for circle, values in zip(on_circles, samples):
        rows = [np.zeros(block.rows) for block in shape if not (block.of_intervals and circle)]
        if values is not None and circle:
            rows = _FITS[transformer["type"]](np.asarray(values) % 1.0, transformer)
        elif transformer["type"] == "moebius":
            rows[1:] = _spread(transformer["components"])
        coordinates.append(iter(rows))
    result = []
    for block in shape:
        result += [next(rows) for rows, circle in zip(coordinates, on_circles) if not (block.of_intervals and circle)]
    return np.concatenate(result)


def _bins(samples, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Widths of bins of [0,1] with equal numbers of samples, but for a fifth of them evenly spread, and their probabilities."""
    places = np.linspace(0, 1, bins + 1)
    grid = np.linspace(0, 1, 4001)
    cdf = 0.8 * np.searchsorted(np.sort(samples), grid, side="right") / len(samples) + 0.2 * grid
    edges = np.interp(places, cdf, grid)
    edges[[0, -1]] = 0, 1
    widths = np.maximum(np.diff(edges), 2e-3)
    widths /= widths.sum()
    heights = np.diff(np.interp(np.concatenate([[0], np.cumsum(widths)]), grid, cdf - cdf[0]))
    heights = np.maximum(heights, 2e-3)
    return widths, heights / heights.sum()


def _softmax_raw(values, minimum: float) -> np.ndarray:
    """Raw parameters of minimum + (1 - N minimum) softmax."""
    return np.log(np.maximum(values - minimum, 1e-4))


def _fit_rational_quadratic_spline(samples, transformer):
    widths, heights = _bins(samples, transformer["bins"])
    slopes = heights / widths
    at_edges = (slopes * np.roll(widths, 1) + np.roll(slopes, 1) * widths) / (widths + np.roll(widths, 1))
    sharpness = transformer["slopeSharpness"]
    return [_softmax_raw(widths, transformer["minimumWidth"]), _softmax_raw(heights, transformer["minimumHeight"]),
            np.log(np.expm1(sharpness * np.maximum(at_edges - transformer["minimumSlope"], 1e-3))) / sharpness]


def _fit_cubic_b_spline(samples, transformer):
    widths, heights = _bins(samples, transformer["bins"])
    increments = heights / widths * (np.roll(widths, 1) + widths + np.roll(widths, -1)) / 3
    increments = np.roll(increments, 1)    # the first one belongs to the bin before 0
    return [_softmax_raw(increments / increments.sum(), transformer["minimumIncrement"]), _softmax_raw(widths, transformer["minimumWidth"])]


def _disc_raw(centre, radius: float):
    """Raw parameters a and b of a point of the disc of that radius."""
    centre = np.minimum(abs(centre), 0.9 * radius) * np.exp(1j * np.angle(centre)) / radius
    raw = centre / np.sqrt(1 - abs(centre)**2)
    return raw.real, raw.imag


def _spread(components: int):
    """Centres about the disc, whose transformations cancel each other nearly."""
    phases = 2 * np.pi * (np.arange(components) + 0.5) / components
    return 0.3 * np.cos(phases), 0.3 * np.sin(phases)


def _fit_moebius(samples, transformer):
    """Poisson kernels, which are what components add to the density, at quantiles; as wide as these are apart."""
    K = transformer["components"]
    start = _widest_gap(samples)
    unwrapped = np.sort((samples - start) % 1.0)
    centres = np.quantile(unwrapped, (np.arange(K) + 0.5) / K)
    spacing = (np.quantile(unwrapped, np.minimum((np.arange(K) + 1.5) / K, 0.999))
               - np.quantile(unwrapped, np.maximum((np.arange(K) - 0.5) / K, 0.001)))
    return [np.zeros(K), *_disc_raw(np.clip(1 - np.pi * spacing, 0.05, 1) * np.exp(2j * np.pi * (centres + start)), transformer["radiusBound"])]


def _fit_analytic(samples, transformer):
    """The first step is a Moebius transformation: the cumulative distribution of a wrapped Cauchy distribution with the mean of the samples."""
    centres = np.zeros(transformer["steps"], dtype=complex)
    centres[0] = np.exp(2j * np.pi * samples).mean()
    return [*_disc_raw(centres, transformer["radiusBound"]), np.zeros(1)]


def _widest_gap(samples) -> float:
    """The middle of the widest interval of the circle without samples."""
    ordered = np.sort(samples)
    gaps = np.diff(ordered, append=ordered[0] + 1)
    return ordered[np.argmax(gaps)] + gaps.max() / 2


_FITS = {"rationalQuadraticSpline": _fit_rational_quadratic_spline, "cubicBSpline": _fit_cubic_b_spline, "moebius": _fit_moebius,
         "analytic": _fit_analytic}
