# SPDX-License-Identifier: MIT
"""How cost grows: exponents fitted to the timings of a run."""
from __future__ import annotations

import numpy as np

from .speed import Results


def exponent(points: list[tuple[float, float]]) -> float | None:
    """The a of time ∝ size^a: slope of the least-squares line through (ln size, ln time); None for less than two sizes."""
    if len({size for size, _ in points}) < 2:
        return None
    sizes, times = np.log(np.array(points, dtype=float)).T
    return float(np.polyfit(sizes, times, 1)[0])


def by_parameters(results: Results) -> dict[str, list[tuple[float, float]]]:
    """For each potential (parameters, µs of processor time): energy and forces of one molecule on one thread."""
    series = {}
    for timing in results.timings:
        if timing["quantity"] == "forces" and timing["molecules"] == timing["threads"] == 1:
            series.setdefault(timing["potential"], []).append((results.models[timing["size"]]["parameters"], 1e6 * timing["cpu"]))
    return series


def by_molecules(results: Results, size: str) -> dict[str, list[tuple[float, float]]]:
    """For FlowForce and PyTorch with each number of threads (molecules, µs elapsed): energy and forces of all molecules."""
    series = {}
    for timing in results.timings:
        if timing["quantity"] == "forces" and timing["size"] == size and timing["potential"] in ("FlowForce CPU", "PyTorch eager"):
            name = f"{timing['potential']}, {timing['threads']} thread{'s' if timing['threads'] > 1 else ''}"
            series.setdefault(name, []).append((timing["molecules"], 1e6 * timing["wall"]))
    return series


def table(results: Results) -> list[dict]:
    """Exponents of FlowForce: over all models for one molecule, and for each model from 16 molecules on, where blocks are full."""
    rows = []
    for potential in ("FlowForce CPU", "engine", "floor"):
        points = by_parameters(results).get(potential, [])
        rows.append({"what": f"{potential}, one molecule: time ∝ parameters", "points": points, "exponent": exponent(points)})
    for size in results.models:
        for name, points in by_molecules(results, size).items():
            if name.startswith("FlowForce"):
                points = [point for point in points if point[0] >= 16]
                rows.append({"what": f"{name}, {size}: time ∝ molecules", "points": points, "exponent": exponent(points)})
    return [row for row in rows if row["exponent"] is not None]
