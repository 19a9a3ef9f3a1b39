# SPDX-License-Identifier: MIT
"""The report of a training run: one HTML file with the curves, and the model's samples next to the data."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from openmmflow import FlowModel, analysis, builder, model_summary, plots
from openmmflow.html_page import HtmlPage
from openmmflow.plots import MODEL, REFERENCE as DATA

from .flow_module import FlowModule

MOST_FRAMES = 5000


def write_report(path, log, module: FlowModule, frames, topology, potential=None) -> None:
    """Write the report as one HTML file, pictures inside.

    Parameters
    ----------
    log : of the trainer, JSON lines.
    module : the trained flow.
    frames : Frames that it has not seen.
    topology : of the molecule.
    potential : reduced energies of positions, for their histogram; or None.
    """
    frames = frames[::max(1, len(frames) // MOST_FRAMES)]
    with torch.no_grad():
        samples, sample_log_prob = module.to_positions(module.sample_latents(len(frames), torch.Generator().manual_seed(0)))
        log_prob = module.log_prob(frames.positions)
    positions, samples = frames.positions.numpy(), samples.numpy()
    pictures = {"Curves": curves(log)}
    torsions = analysis.backbone_torsions(topology)
    if torsions:
        angles = [tuple(np.concatenate([analysis.torsion_angles(x, pair[side]) for pair in torsions]) for side in (0, 1))
                  for x in (positions, samples)]
        pictures["Backbone torsions"] = plots.ramachandran({"held-out data": angles[0], "samples of the model": angles[1]})
    energies = {"-ln p / k_BT": (-log_prob.numpy(), -sample_log_prob.numpy())}
    if potential is not None:
        energies["U / k_BT"] = potential.energies_and_forces(positions)[0], potential.energies_and_forces(samples)[0]
    pictures["Energies"] = plots.histograms(energies, ("held-out data", "samples of the model"))
    names = [atom.name for atom in topology.atoms()]
    pictures |= {f"{kind}: data grey, model blue": figure for kind, figure in
                 plots.marginals(positions, samples, builder.covering_z_matrix(module.architecture), names).items()}
    data = module.architecture["data"]
    figures = [(part, key, f"{value:.4g}") for part in ("validation", "test") for key, value in data.get(part, {}).items()]
    page = HtmlPage(f"Training of {Path(path).stem}")
    page.paragraph(f"{module.num_particles} particles, {sum(p.numel() for p in module.parameters()):,} weights, {module.temperature:g} K. Data is "
                   "held out; samples are of the model.")
    page.table(figures, header=("part", "figure", "value"))
    page.paragraph("nll: mean of -ln p, k_BT; force_rmse and roughness: k_BT/nm.")
    for title, figure in pictures.items():
        page.figure(title, figure)
    page.heading("The model")
    page.fragment(model_summary.diagram(FlowModel.from_bytes(module.to_bytes())))
    page.record("Record", data)
    page.write(path)


def curves(log) -> Figure:
    """Losses over the steps of a log of the trainer, of training (running means) and of held-out frames."""
    records = [json.loads(line) for line in Path(log).read_text().splitlines()]
    records = [record for record in records if "validation" in record]
    labels = {"nll": "-ln p / k_BT", "force_rmse": "force RMSE / (k_BT/nm)", "roughness": "roughness / (k_BT/nm)",
              "reverse_kl": "reverse KL + constant / k_BT"}
    present = [key for key in labels if any(key in record[part] for record in records for part in ("training", "validation"))]
    figure = Figure(figsize=(4.4 * max(2, len(present)), 3.6), layout="constrained")
    panels = figure.subplots(1, len(present), squeeze=False)[0] if present else []
    for panel, key in zip(panels, present):
        for part, colour in (("training", DATA), ("validation", MODEL)):
            points = [(record["step"], record[part][key]) for record in records if key in record[part]]
            if points:
                panel.plot(*zip(*points), label=part, color=colour, marker="." if len(points) < 20 else None)
        panel.set(xlabel="step", ylabel=labels[key])
        if key in ("force_rmse", "roughness"):
            panel.set_yscale("log")
        panel.grid(color="0.9")
        panel.legend()
    return figure
