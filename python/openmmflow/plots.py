# SPDX-License-Identifier: MIT
"""Plots of dynamics and of samples: Ramachandran maps, energies over time, histograms, weights."""
from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from . import builder
from .trajectory import Energies

# Colour-blind safe (Okabe and Ito), one for each potential in the order given.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_STYLE = {"linewidth": 0.9, "alpha": 0.9}


def save(figure: Figure, path):
    """Write a PNG file; it appears complete or not at all."""
    path = Path(path)
    temporary = path.with_name("." + path.name)
    figure.savefig(temporary, dpi=150, format="png")
    temporary.replace(path)


def ramachandran(series: dict[str, tuple[np.ndarray, np.ndarray]], *, title: str = "") -> Figure:
    """One map for each entry, name: (φ, ψ), both (frames,) in radian: single frames over a smoothed density."""
    figure = Figure(figsize=(4.2 * len(series) + 0.5, 4.9 + 0.3 * bool(title)), layout="constrained")
    axes = figure.subplots(1, len(series), sharex=True, sharey=True, squeeze=False)[0]
    for colour, axis, (name, (phi, psi)) in zip(COLOURS, axes, series.items()):
        phi, psi = np.degrees(phi), np.degrees(psi)
        edges, density = _circular_density(phi, psi)
        levels = density.max() * np.array([0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0])
        axis.contourf(edges, edges, density, levels=levels, cmap="Greys", vmin=0, vmax=2 * density.max())
        axis.scatter(phi, psi, s=3, color=colour, alpha=min(1.0, 60 / np.sqrt(len(phi) + 1) / 2), linewidths=0, rasterized=True)
        axis.set(title=f"{name}\n{len(phi)} frames", xlabel="φ / °", xlim=(-180, 180), ylim=(-180, 180), aspect="equal")
        axis.xaxis.set_major_locator(MultipleLocator(60))
        axis.yaxis.set_major_locator(MultipleLocator(60))
        axis.grid(color="0.9", linewidth=0.6)
        axis.set_axisbelow(True)
    axes[0].set_ylabel("ψ / °")
    if title:
        figure.suptitle(title)
    return figure


def _circular_density(phi, psi, bins=90, width=8.0):
    """Density of (φ, ψ) on a periodic grid, smoothed by a Gaussian of ``width`` degrees: grid points, and density[ψ, φ]."""
    counts, _, _ = np.histogram2d(psi, phi, bins=bins, range=[[-180, 180]] * 2)
    frequencies = np.fft.fftfreq(bins, d=360 / bins)
    damping = np.exp(-2 * (np.pi * width * frequencies) ** 2)
    smooth = np.fft.ifft2(np.fft.fft2(counts) * damping[:, None] * damping[None, :]).real
    centres = -180 + 360 / bins * (np.arange(bins) + 0.5)
    # One more row and column on each side close the seam at ±180°.
    closed = np.concatenate([[centres[-1] - 360], centres, [centres[0] + 360]])
    return closed, np.pad(np.maximum(smooth, 0), 1, mode="wrap")


def energies(series: dict[str, Energies]) -> Figure:
    """Potential, kinetic and total energy over time, each entry in its colour and its own offset of the potential."""
    figure = Figure(figsize=(8, 6), layout="constrained")
    axes = figure.subplots(3, 1, sharex=True)
    for colour, (name, run) in zip(COLOURS, series.items()):
        for axis, values in zip(axes, (run.potential, run.kinetic, run.total)):
            axis.plot(run.time, values, color=colour, label=f"{name}: mean {values.mean():.2f} kJ/mol", **_STYLE)
    for axis, name in zip(axes, ("potential", "kinetic", "total")):
        axis.set_ylabel(f"{name} energy\nkJ/mol")
        axis.legend(loc="upper right", fontsize="small", framealpha=0.9)
        axis.grid(color="0.9", linewidth=0.6)
        axis.margins(x=0, y=0.2)
    axes[-1].set_xlabel("time / ps")
    return figure


def energy_conservation(series: dict[str, Energies], num_degrees_of_freedom: int) -> Figure:
    """Total energy of constant-energy runs about its mean, per degree of freedom: one panel for each entry, one scale for all."""
    figure = Figure(figsize=(8, 2.1 * len(series) + 0.9), layout="constrained")
    axes = figure.subplots(len(series), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for colour, axis, (name, run) in zip(COLOURS, axes, series.items()):
        deviation = (run.total - run.total.mean()) / num_degrees_of_freedom
        slope, intercept = np.polyfit(run.time, deviation, 1)
        axis.plot(run.time, deviation, color=colour, linewidth=0.6)
        axis.plot(run.time, slope * run.time + intercept, color="black", linewidth=1.2,
                  label=f"trend {slope:+.1e} kJ/mol/ps, fluctuation {np.std(deviation - slope * run.time - intercept):.4f} kJ/mol; "
                        f"kinetic energy fluctuates by {run.kinetic.std() / num_degrees_of_freedom:.2f} kJ/mol")
        axis.set_title(name, loc="left", fontsize="medium")
        axis.legend(loc="upper right", fontsize="small", framealpha=0.9)
        axis.grid(color="0.9", linewidth=0.6)
        axis.margins(x=0, y=0.25)
    figure.supylabel(f"(E - ⟨E⟩) / {num_degrees_of_freedom} / (kJ/mol)", fontsize="medium")
    axes[-1].set_xlabel("time / ps")
    return figure


REFERENCE, MODEL = "#555555", "#0072B2"
"""Colours of histograms: what is compared with, filled; and what is compared, as a line."""


def _two_histograms(panel, edges, reference, values, weights=None, labels=(None, None)):
    """Densities: the first filled, the second as a line. Values beyond the edges count, but are not drawn."""
    width = edges[1] - edges[0]
    weights = np.full(len(values), 1 / len(values)) if weights is None else weights / weights.sum()
    if reference is not None:
        panel.hist(reference, edges, weights=np.full(len(reference), 1 / (len(reference) * width)), color=REFERENCE, alpha=0.4,
                   label=labels[0])
    panel.hist(values, edges, weights=weights / width, histtype="step", color=MODEL, label=labels[1])
    panel.set_yticks([])


def histograms(panels: dict[str, tuple[np.ndarray, np.ndarray]], names: tuple[str, str], *, weights=None) -> Figure:
    """One panel for each entry, quantity: (reference, values), both (n,); the range is that of the reference.

    Parameters
    ----------
    names : of reference and values
    weights : (n,) of the values, or None
    """
    figure = Figure(figsize=(5.5 * len(panels), 3.6), layout="constrained")
    for panel, (quantity, (reference, values)) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items()):
        low, high = np.quantile(reference[np.isfinite(reference)], (0.01, 0.98))
        edges = np.linspace(low - 0.4 * (high - low) - 1e-9, high + 0.6 * (high - low) + 1e-9, 80)
        share = np.ones(len(values)) if weights is None else weights
        beyond = share[~(values <= edges[-1])].sum() / share.sum()
        _two_histograms(panel, edges, reference, values, weights, (names[0], f"{names[1]} ({beyond:.1%} above)"))
        panel.set_xlabel(quantity)
        panel.legend(fontsize="small")
    return figure


def marginals(reference, positions, z_matrix, atom_names, *, weights=None) -> dict[str, Figure]:
    """Histograms of all bonds, angles and torsions of a Z-matrix, in three figures by their titles.

    Parameters
    ----------
    reference, positions : (frames, particles, 3), nm; the first grey, the second blue. The first may be None
    z_matrix : rows [i, j, k, l], -1 where there is none
    atom_names : of all particles
    weights : (frames,) of the second, or None
    """
    second, third = (next((row for row in z_matrix if list(row).count(-1) == missing), None) for missing in (2, 1))
    full = [row for row in z_matrix if -1 not in row]
    frame = [row for row in (second, third) if row is not None]
    kinds = {"Bonds / nm": [row[:2] for row in (*frame, *full)], "Angles / °": [row[:3] for row in (*frame[1:], *full)], "Torsions / °": full}
    other = builder.internal_coordinates(positions, z_matrix)
    first = other if reference is None else builder.internal_coordinates(reference, z_matrix)
    figures, start = {}, 0
    for kind, rows in kinds.items():
        if not rows:
            continue
        columns = min(7, len(rows))
        lines = math.ceil(len(rows) / columns)
        figure = Figure(figsize=(2.0 * columns, 1.5 * lines + 0.3), layout="constrained")
        panels = figure.subplots(lines, columns, squeeze=False).ravel()
        for index, (panel, row) in enumerate(zip(panels, rows)):
            scale = (1.0, 180.0, 360.0)[len(row) - 2]
            shift = -180.0 if len(row) == 4 else 0.0
            a, b = (values[:, start + index] * scale + shift for values in (first, other))
            if len(row) == 4:
                edges = np.linspace(-180, 180, 73)
            else:
                edges = np.linspace(min(a.min(), np.quantile(b, 0.001)), max(a.max(), np.quantile(b, 0.999)) + 1e-9, 50)
            _two_histograms(panel, edges, None if reference is None else a, b, weights)
            panel.set_title("-".join(atom_names[atom] for atom in row), fontsize=7)
            panel.tick_params(labelsize=6)
            panel.locator_params(axis="x", nbins=4)
        for panel in panels[len(rows):]:
            panel.set_axis_off()
        figures[kind] = figure
        start += len(rows)
    return figures


def importance_weights(log_weights) -> Figure:
    """How even weights (samples,) are: their logarithms, and the part of the sum that the largest have."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    relative = log_weights[np.isfinite(log_weights)] - np.logaddexp.reduce(log_weights) + np.log(len(log_weights))
    low = max(np.quantile(relative, 0.01), relative.max() - 30)
    left.hist(np.clip(relative, low, None), 80, color=MODEL, alpha=0.6)
    left.set(xlabel="ln(w / ⟨w⟩); what is lower stands in the first column", ylabel="samples")
    shares = np.sort(np.exp(relative))[::-1].cumsum() / len(log_weights)
    rank = np.arange(1, len(shares) + 1) / len(log_weights)
    right.plot(rank, shares, color=MODEL)
    right.plot([0, 1], [0, 1], "--", color="black", linewidth=0.8)
    right.set(xlabel="part of the samples, heaviest first", ylabel="part of the sum of weights", xlim=(0, 1), ylim=(0, 1.02))
    for panel in (left, right):
        panel.grid(color="0.9")
    return figure


def log_prob_over_time(time, log_prob, sample_log_prob) -> Figure:
    """-ln p along dynamics, and its distribution next to that of a flow's own samples.

    Parameters
    ----------
    time, log_prob : (frames,), ps; ln p
    sample_log_prob : (samples,)
    """
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[2, 1])
    left.plot(time, -log_prob, color=MODEL, **_STYLE)
    left.set(xlabel="time / ps", ylabel="-ln p / k_BT")
    left.grid(color="0.9")
    finite = log_prob[np.isfinite(log_prob)]
    values = np.concatenate([-finite, np.quantile(-sample_log_prob, (0.001, 0.999))])
    _two_histograms(right, np.linspace(values.min() - 1e-9, values.max() + 1e-9, 60), -sample_log_prob, -finite,
                    labels=("samples of the flow", "dynamics"))
    right.set_xlabel("-ln p / k_BT")
    right.legend(fontsize="small")
    return figure
