# SPDX-License-Identifier: MIT
"""The page about a run of dynamics: ``report.html`` in its folder."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from . import analysis, builder, model_summary, plots
from .html_page import HtmlPage
from .inner_support import flow_forces, support_exits
from .stored_run import SETTINGS, StoredRun

REPORT = "report.html"
SAMPLES = 2000
"""Of the flow, next to the frames of the run."""
MOST_FRAMES = 5000
"""Drawn of a run with more."""
_UNITS = {"step_size": "step size, fs", "temperature": "temperature, K", "friction": "friction, 1/ps", "report_interval": "report interval, steps",
          "trajectory_interval": "trajectory interval, steps", "equilibrationSteps": "equilibration, steps"}


def write(run: StoredRun) -> Path:
    """Write the page of an open run: settings, energies, and for a flow what it thinks of the frames, next to its own samples.

    Returns the path. What the run is too short for is left out.
    """
    page = HtmlPage(f"{run.directory.name}: {run.step:,} steps, {run.settings.ensemble.upper()}")
    page.table([(_UNITS.get(name, name), "" if value is None else value) for name, value in _flattened(json.loads((run.directory / SETTINGS).read_text()))])
    if run.step >= run.settings.report_interval:
        energies = run.energies()
        page.heading("Means")
        page.table(_figures(run, energies), header=("", "mean", "standard deviation"))
        page.figure("Energies", plots.energies({run.settings.ensemble.upper(): energies}))
        if run.settings.ensemble == "nve" and len(energies.step) >= 3:
            count = analysis.degrees_of_freedom(run.system)
            page.figure("Energy conservation", plots.energy_conservation({"total energy": energies}, count))
    if run.step >= run.settings.trajectory_interval:
        _add_frames(page, run)
    return page.write(run.directory / REPORT)


def _flattened(document: dict) -> list[tuple[str, object]]:
    """Names and values of a JSON document, those of objects within it in their place."""
    rows = []
    for name, value in document.items():
        rows += _flattened(value) if isinstance(value, dict) else [(name, value)]
    return rows


def _figures(run: StoredRun, energies) -> list[tuple[str, str, str]]:
    rows = [(f"{name} energy, kJ/mol", values) for name, values in
            (("potential", energies.potential), ("kinetic", energies.kinetic), ("total", energies.total))]
    return [(name, f"{values.mean():.3f}", f"{values.std():.3f}") for name, values in [*rows, ("temperature, K", energies.temperature)]]


def _add_frames(page: HtmlPage, run: StoredRun):
    positions = run.positions()
    stride = -(-len(positions) // MOST_FRAMES)
    time = run.settings.step_size * 1e-3 * run.settings.trajectory_interval * np.arange(1, len(positions) + 1)[::stride]
    positions = positions[::stride]
    force = next((force for force in flow_forces(run.system) if force.getModel().num_particles == positions.shape[1]), None)
    torsions = analysis.backbone_torsions(run.topology)
    if force is None:
        if torsions:
            page.figure("Backbone torsions", plots.ramachandran({"dynamics": _angles(torsions, positions)}))
        return
    model = force.getModel()
    samples, sample_log_prob = model.sample(SAMPLES, seed=0)
    page.paragraph(f"Outside of the inner support, where the potential is continued: {support_exits(run.simulation.context):,} evaluations "
                   f"of the last session. Samples are {SAMPLES:,} independent ones of the flow.")
    page.figure("What the flow thinks of the frames", plots.log_prob_over_time(time, model.log_prob(positions), sample_log_prob))
    if torsions:
        page.figure("Backbone torsions", plots.ramachandran({"dynamics": _angles(torsions, positions),
                                                             "samples of the flow": _angles(torsions, samples)}))
    names = [atom.name for atom in run.topology.atoms()]
    for title, figure in plots.marginals(samples, positions, builder.covering_z_matrix(model.architecture), names).items():
        page.figure(f"{title}: samples of the flow grey, dynamics blue", figure)
    page.heading("The model")
    page.fragment(model_summary.diagram(model))


def _angles(torsions, positions):
    return tuple(np.concatenate([analysis.torsion_angles(positions, pair[side]) for pair in torsions]) for side in (0, 1))
