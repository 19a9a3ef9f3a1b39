# SPDX-License-Identifier: MIT
"""Time against parameters and against molecules."""
from __future__ import annotations

from matplotlib.figure import Figure

from ..plots import COLOURS
from . import scaling
from .speed import Results

MARKERS = "osD^v"


def parameters(results: Results) -> Figure:
    """Energy and forces of one molecule on one thread, against the parameters of the model."""
    return _figure(scaling.by_parameters(results), "parameters", "energy and forces of one molecule, µs of one processor")


def molecules(results: Results, size: str) -> Figure:
    """Energy and forces of many molecules in one System, against their number, for each number of threads."""
    return _figure(scaling.by_molecules(results, size), "molecules in the System", f"energy and forces, {size} parameters, µs")


def _figure(series: dict[str, list[tuple[float, float]]], x: str, y: str) -> Figure:
    figure = Figure(figsize=(9.5, 5), layout="constrained")
    axis = figure.subplots()
    for index, (name, points) in enumerate(series.items()):
        exponent = scaling.exponent(points)
        label = name if exponent is None else f"{name} (exponent {exponent:.2f})"
        axis.loglog(*zip(*sorted(points)), label=label, marker=MARKERS[index % len(MARKERS)], markersize=4,
                    color=COLOURS[index % len(COLOURS)], linestyle="-" if index < len(COLOURS) else "--", linewidth=1)
    first = min((point for points in series.values() for point in points), key=lambda point: (point[1], point[0]), default=None)
    if first is not None:
        last = max(point[0] for points in series.values() for point in points)
        axis.loglog([first[0], last], [first[1], first[1] * last / first[0]], color="0.6", linewidth=0.8, linestyle=":",
                    label="proportional")
    axis.set(xlabel=x, ylabel=y)
    axis.grid(color="0.9", linewidth=0.6, which="both")
    axis.set_axisbelow(True)
    figure.legend(fontsize=8, loc="outside right upper")
    return figure
