# SPDX-License-Identifier: MIT
"""Plots of dynamics: Ramachandran maps, and energies over time."""
from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

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
