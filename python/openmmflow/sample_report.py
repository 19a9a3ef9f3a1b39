# SPDX-License-Identifier: MIT
"""The page about a file of samples, beside it: ``samples.html`` of ``samples.h5``."""
from __future__ import annotations

from pathlib import Path
from typing import Optional

import h5py
import mdtraj
import numpy as np
from openmm import app

from . import FlowModel, analysis, builder, model_summary, plots, reweighting, sampling
from .html_page import HtmlPage

MOST_FRAMES = 5000
"""Drawn from a file with more."""


def write(path, model: FlowModel, topology: Optional[app.Topology] = None) -> Path:
    """Write the page of a finished file of samples: ln p, and with weights what they are worth and what they change.

    Parameters
    ----------
    path : of the samples, .h5 or .dcd
    model : that they are of
    topology : names of the atoms, for the Ramachandran map; or None

    Returns the path of the page.
    """
    path = Path(path)
    samples = sampling.read(path)
    chosen = np.unique(np.linspace(0, len(samples.log_prob) - 1, MOST_FRAMES).astype(int))
    positions = _positions(path, model, chosen)
    page = HtmlPage(f"{len(samples.log_prob):,} samples: {path.name}")
    rows = [("mean -ln p, k_BT", f"{-samples.log_prob.mean():.3f}")]
    weights = None
    if samples.log_weights is not None:
        quality = reweighting.quality(samples.log_weights)
        mean, error = reweighting.expectation(samples.log_weights, samples.energies)
        rows += [("reweighted to, K", f"{samples.temperature:g}"), ("Kish's effective samples", f"{quality.effective_samples:,.0f}"),
                 ("largest weight, of the sum", f"{quality.largest_share:.2%}"), ("Pareto k of the weights", f"{quality.pareto_k:.2f}"),
                 ("-ln Z, k_BT", f"{quality.free_energy:.3f} ± {quality.free_energy_error:.3f}"),
                 ("mean potential energy, kJ/mol", f"{mean:.3f} ± {error:.3f}")]
        weights = np.exp(samples.log_weights[chosen] - samples.log_weights[chosen].max())
    page.table(rows)
    if weights is not None:
        if not quality.pareto_k <= reweighting.TRUSTED_PARETO_K:
            page.paragraph(f"Pareto k is above {reweighting.TRUSTED_PARETO_K}: averages with these weights cannot be trusted.")
        page.figure("Weights", plots.importance_weights(samples.log_weights))
        page.figure("Energies", plots.histograms({"-ln p / k_BT": (-samples.log_prob, -samples.log_prob),
                                                  "U / (kJ/mol)": (samples.energies, samples.energies)},
                                                 ("samples", "reweighted"), weights=np.exp(samples.log_weights - samples.log_weights.max())))
    torsions = [] if topology is None else analysis.backbone_torsions(topology)
    if torsions:
        maps = {"samples": positions}
        if weights is not None:
            drawn = np.random.default_rng(0).choice(len(positions), len(positions), p=weights / weights.sum())
            maps["reweighted (drawn by weight)"] = positions[drawn]
        page.figure("Backbone torsions", plots.ramachandran({
            name: tuple(np.concatenate([analysis.torsion_angles(x, pair[side]) for pair in torsions]) for side in (0, 1))
            for name, x in maps.items()}))
    names = [str(i) for i in range(model.num_particles)] if topology is None else [atom.name for atom in topology.atoms()]
    legend = "samples" if weights is None else "samples grey, reweighted blue"
    for title, figure in plots.marginals(None if weights is None else positions, positions, builder.covering_z_matrix(model.architecture),
                                         names, weights=weights).items():
        page.figure(f"{title}: {legend}", figure)
    page.heading("The model")
    page.fragment(model_summary.diagram(model))
    return page.write(path.with_suffix(".html"))


def _positions(path: Path, model: FlowModel, chosen: np.ndarray) -> np.ndarray:
    """Chosen frames of a file, (frames, particles, 3) in nm."""
    if path.suffix != ".dcd":
        with h5py.File(path, "r") as file:
            return file["coordinates"][chosen].astype(float)
    with mdtraj.formats.DCDTrajectoryFile(str(path)) as file:
        stride = max(1, len(chosen) and (chosen[-1] + 1) // len(chosen))
        return file.read(n_frames=len(chosen), stride=stride)[0].astype(float) / 10
