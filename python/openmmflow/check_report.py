# SPDX-License-Identifier: MIT
"""The page that ``openmmflow check`` writes: verdict, figures and plots of one model."""
from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from . import atomic
from .check import Certificate
from .plots import COLOURS

A4 = (8.27, 11.69)
"""inches"""


def page(certificate: Certificate, title: str) -> Figure:
    """One page with all that a certificate holds."""
    figure = Figure(figsize=A4, layout="constrained")
    head, *rows = figure.subfigures(4, 1, height_ratios=[3.4, 2.6, 2.6, 2.6])
    _draw_verdict(head.subplots(), certificate, title)
    left, right = rows[0].subplots(1, 2)
    _draw_gradient(left, *certificate.series["gradient"])
    _draw_fluctuations(right, *certificate.series["fluctuations"])
    _draw_energies(rows[1].subplots(), certificate.series["energies"], certificate.series["degrees of freedom"])
    for axis, kind in zip(rows[2].subplots(1, 3), ("bond", "angle", "torsion")):
        if kind in certificate.series:
            _draw_walk(axis, kind, *certificate.series[kind])
    return figure


def write(certificate: Certificate, path, title: str) -> tuple[Path, Path]:
    """Write the page as PDF, and the figures beside it as JSON. Returns both paths."""
    path = Path(path).with_suffix(".pdf")
    temporary = path.with_name("." + path.name)
    page(certificate, title).savefig(temporary, format="pdf")
    temporary.replace(path)
    atomic.write_json(path.with_suffix(".json"), certificate.document())
    return path, path.with_suffix(".json")


def _draw_verdict(axis, certificate, title):
    axis.axis("off")
    verdict, colour = ("passed", COLOURS[2]) if certificate.passed else ("FAILED", COLOURS[1])
    axis.set_title(f"{title}: {verdict}", fontsize=13, color=colour, loc="left")
    cells = [[f.meaning, f"{f.value:.3g}", f.bound, f.note, "ok" if f.holds else "FAIL"] for f in certificate.figures]
    table = axis.table(cells, colLabels=["", "found", "demanded", "", ""], colWidths=[0.56, 0.11, 0.13, 0.14, 0.06], loc="upper center",
                       cellLoc="left", edges="horizontal")
    table.auto_set_font_size(False)
    table.set_fontsize(7)
    for row, figure in enumerate(certificate.figures, start=1):
        table[row, 4].get_text().set_color(COLOURS[2] if figure.holds else COLOURS[1])
    remarks = [certificate.series.get("note", ""), *certificate.series.get("left out", [])]
    axis.text(0, 0, "\n".join(remark[:140] for remark in remarks if remark), fontsize=6, transform=axis.transAxes, va="bottom")


def _draw_gradient(axis, steps, errors):
    axis.loglog(steps, errors, "o-", color=COLOURS[0])
    axis.set(title="force against finite differences", xlabel="displacement / nm", ylabel="error / RMS force")


def _draw_fluctuations(axis, step_sizes, fluctuations):
    finite = np.all(np.isfinite(fluctuations), axis=0)
    axis.set(title="NVE fluctuation", xlabel="step size / fs", ylabel="kJ/mol per degree of freedom")
    if not finite.any():
        axis.text(0.5, 0.5, "every run exploded", ha="center", transform=axis.transAxes)
        return
    sizes, values = step_sizes[finite], fluctuations[:, finite]
    axis.loglog(sizes, values.T, ".", color=COLOURS[0], alpha=0.5)
    mean = values.mean(axis=0)
    axis.loglog(sizes, mean, "o-", color=COLOURS[0], label="mean over starts")
    axis.loglog(sizes, mean[0] * (sizes / sizes[0]) ** 2, "--", color="black", label="∝ (step size)²")
    axis.legend(fontsize="small")


def _draw_energies(axis, energies, degrees_of_freedom):
    for colour, (name, run) in zip(COLOURS, reversed(energies.items())):
        axis.plot(run.time, (run.total - run.total.mean()) / degrees_of_freedom, color=colour, linewidth=0.7, label=name)
    axis.set(title="total energy in NVE, first start", xlabel="time / ps", ylabel="(E - ⟨E⟩) / (kJ/mol)\nper degree of freedom")
    if energies:
        axis.legend(fontsize="small", loc="upper right")


def _draw_walk(axis, kind, grid, energies, points, name):
    scale = 1 if kind == "bond" else 180 / np.pi
    axis.plot(scale * grid, energies, color=COLOURS[0])
    for point in points:
        axis.axvline(scale * point, color=COLOURS[1], linewidth=0.7)
    axis.set(title=name, xlabel=f"{kind} / {'nm' if kind == 'bond' else '°'}")
    # Walls rise far beyond what thermal motion reaches.
    lowest = np.min(energies)
    axis.set_ylim(lowest - 2, min(lowest + 60, np.max(energies) + 2))
    if kind == "bond":
        axis.set_ylabel("U / k_BT; lines: edges, seam")
