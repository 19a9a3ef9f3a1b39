# SPDX-License-Identifier: MIT
"""The page that ``openmmflow check`` writes: verdict, figures and plots of one model."""
from __future__ import annotations

from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import openmm
from matplotlib.figure import Figure

from . import atomic, model_summary
from .check import Certificate
from .html_page import HtmlPage
from .plots import COLOURS

_KINDS = ("bond", "angle", "torsion", "block")


def page_path(path) -> Path:
    """Where the page goes. ValueError for a name that ends in something else than .html."""
    path = Path(path)
    if path.suffix not in ("", ".html"):
        raise ValueError(f"the page is HTML, and {path.name} ends in {path.suffix}: expected a name that ends in .html "
                         "(a browser prints the page as PDF)")
    return path.with_suffix(".html")


def page(certificate: Certificate, title: str) -> HtmlPage:
    """The page with all that a certificate holds."""
    model, series = certificate.model, certificate.series
    page = HtmlPage(f"{title}: {'passed' if certificate.passed else 'FAILED'}")
    failed = sum(not figure.holds for figure in certificate.figures)
    page.verdict("All figures are within their bounds." if certificate.passed else
                 f"{failed} of {len(certificate.figures)} figures {'is' if failed == 1 else 'are'} not within bounds: "
                 "dynamics should not trust this model.", certificate.passed)
    page.table([(f.check, f.meaning, f"{f.value:.3g}", f.bound, f.note, "ok" if f.holds else "FAIL") for f in certificate.figures],
               header=("check", "figure", "found", "demanded", "", ""),
               marked=[row for row, figure in enumerate(certificate.figures) if not figure.holds])
    for remark in [series.get("note", ""), *(f"Left out: {reason}" for reason in series.get("left out", []))]:
        if remark:
            page.paragraph(remark)
    page.paragraph(f"Model {model.checksum}: {model.num_particles} particles, {model.num_parameters:,} weights, {model.temperature:g} K. Checked on "
                   f"{date.today().isoformat()} by openmmflow {version('openmmflow')} with OpenMM {openmm.Platform.getOpenMMVersion()}, on "
                   "samples of the model itself.")
    page.figure("Forces and energy conservation", _figure_of_forces(certificate))
    page.paragraph("Left: each model has its own best displacement, of which the error is in the table; to its right the formula of the differences errs, to "
                   "its left the rounding of energies. Right: the fluctuation falls with the square of the step size where a step resolves the potential.")
    page.figure("Total energy at constant energy", _figure_of_energies(certificate))
    if any(kind in series for kind in _KINDS):
        page.figure("Walks across the edges of the support", _figure_of_walks(certificate))
        page.paragraph("The first bond, angle, torsion and particle of a block that were walked. Lines: edges of the inner support and of the support, and the seam at ±180°. The "
                       "table has the largest jump of the second derivative at all of them.")
    page.heading("The model")
    page.fragment(model_summary.diagram(model))
    return page


def figure(certificate: Certificate) -> Figure:
    """The plots of the page as one figure."""
    figure = Figure(figsize=(10, 9.5), layout="constrained")
    rows = figure.subfigures(3, 1)
    _draw_forces(rows[0], certificate)
    _draw_energies(rows[1].subplots(), certificate.series["energies"], certificate.series["degrees of freedom"])
    _draw_walks(rows[2], certificate)
    return figure


def write(certificate: Certificate, path, title: str) -> tuple[Path, Path]:
    """Write the page as HTML, and the figures beside it as JSON. Returns both paths."""
    path = page_path(path)
    page(certificate, title).write(path)
    atomic.write_json(path.with_suffix(".json"), certificate.document())
    return path, path.with_suffix(".json")


def _figure_of_forces(certificate) -> Figure:
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    _draw_forces(figure, certificate)
    return figure


def _figure_of_energies(certificate) -> Figure:
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    _draw_energies(figure.subplots(), certificate.series["energies"], certificate.series["degrees of freedom"])
    return figure


def _figure_of_walks(certificate) -> Figure:
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    _draw_walks(figure, certificate)
    return figure


def _draw_forces(parent, certificate):
    left, right = parent.subplots(1, 2)
    _draw_gradient(left, *certificate.series["gradient"])
    _draw_fluctuations(right, *certificate.series["fluctuations"])


def _draw_walks(parent, certificate):
    kinds = [kind for kind in _KINDS if kind in certificate.series]
    for axis, kind in zip(parent.subplots(1, max(3, len(kinds))), kinds):
        _draw_walk(axis, kind, *certificate.series[kind])
    for axis in parent.axes[len(kinds):]:
        axis.axis("off")


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
    is_length = kind in ("bond", "block")
    scale = 1 if is_length else 180 / np.pi
    axis.plot(scale * grid, energies, color=COLOURS[0])
    for point in points:
        axis.axvline(scale * point, color=COLOURS[1], linewidth=0.7)
    axis.set(title=name, xlabel=f"{kind} / {'nm' if is_length else '°'}")
    # Walls rise far beyond what thermal motion reaches.
    lowest = np.min(energies)
    axis.set_ylim(lowest - 2, min(lowest + 60, np.max(energies) + 2))
    if kind == "bond":
        axis.set_ylabel("U / k_BT; lines: edges, seam")
