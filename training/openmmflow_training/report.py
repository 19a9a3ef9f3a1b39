# SPDX-License-Identifier: MIT
"""The report of a training run: one HTML file with the curves, and the model's samples next to the data."""
from __future__ import annotations

import base64
import html
import io
import json
import math
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from openmmflow import analysis, atomic, builder, plots

from .flow_module import FlowModule

DATA, MODEL = "#555555", "#0072B2"
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
    pictures["Energies"] = energy_histograms(energies)
    pictures |= marginals(positions, samples, module.architecture["layers"][0]["zMatrix"], topology)
    data = module.architecture["data"]
    figures = [(part, key, f"{value:.4g}") for part in ("validation", "test") for key, value in data.get(part, {}).items()]
    parts = [
        "<!DOCTYPE html><html lang=en><meta charset=utf-8><title>Training report</title>",
        "<style>body{font:15px/1.5 sans-serif;max-width:75em;margin:2em auto;padding:0 1em}img{max-width:100%}"
        "td,th{padding:.15em 1em .15em 0;text-align:left}pre{background:#f4f4f4;padding:1em;overflow:auto}</style>",
        f"<h1>{html.escape(Path(path).stem)}</h1><p>{module.num_particles} particles, "
        f"{sum(p.numel() for p in module.parameters()):,} weights, {module.temperature:g} K. Data is held out; samples are of the model.</p>",
        "<table><tr><th>part<th>figure<th>value</tr>", *("<tr>" + "".join(f"<td>{html.escape(c)}" for c in row) + "</tr>" for row in figures),
        "</table><p>nll: mean of -ln p, k_BT; force_rmse and roughness: k_BT/nm.</p>"]
    for title, figure in pictures.items():
        parts.append(f'<h2>{html.escape(title)}</h2><img alt="{html.escape(title)}" src="data:image/png;base64,{_png(figure)}">')
    parts.append(f"<h2>Record</h2><pre>{html.escape(json.dumps(data, indent=1))}</pre></html>")
    atomic.write_bytes(path, "\n".join(parts).encode())


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


def energy_histograms(energies: dict[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """One panel for each entry, name: (of the data, of the samples). Beyond the quantiles of the data, values are counted, not drawn."""
    figure = Figure(figsize=(5.5 * len(energies), 3.6), layout="constrained")
    for panel, (name, (data, samples)) in zip(figure.subplots(1, len(energies), squeeze=False)[0], energies.items()):
        low, high = np.quantile(data[np.isfinite(data)], (0.001, 0.999))
        edges = np.linspace(low - 0.3 * (high - low), high + 0.7 * (high - low), 80)
        beyond = np.mean(~(samples <= edges[-1]))
        panel.hist(data, edges, density=True, color=DATA, alpha=0.4, label="held-out data")
        panel.hist(samples, edges, weights=np.full(len(samples), 1 / (len(samples) * (edges[1] - edges[0]))), histtype="step", color=MODEL,
                   label=f"samples of the model ({beyond:.1%} above)")
        panel.set(xlabel=name, yticks=[])
        panel.legend(fontsize="small")
    return figure


def marginals(positions, samples, z_matrix, topology) -> dict[str, Figure]:
    """Histograms of all bonds, angles and torsions of the Z-matrix."""
    names = [atom.name for atom in topology.atoms()]
    second, third = (next(row for row in z_matrix if list(row).count(-1) == missing) for missing in (2, 1))
    full = [row for row in z_matrix if -1 not in row]
    kinds = {"Bonds / nm": [row[:2] for row in (second, third, *full)], "Angles / °": [row[:3] for row in (third, *full)],
             "Torsions / °": full}
    data, model = (builder.internal_coordinates(x, z_matrix) for x in (positions, samples))
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
            a, b = (values[:, start + index] * scale + shift for values in (data, model))
            if len(row) == 4:
                edges = np.linspace(-180, 180, 73)
            else:
                edges = np.linspace(min(a.min(), np.quantile(b, 0.001)), max(a.max(), np.quantile(b, 0.999)) + 1e-9, 50)
            panel.hist(a, edges, density=True, color=DATA, alpha=0.4)
            panel.hist(b, edges, density=True, histtype="step", color=MODEL)
            panel.set_title("-".join(names[atom] for atom in row), fontsize=7)
            panel.tick_params(labelsize=6)
            panel.locator_params(axis="x", nbins=4)
            panel.set_yticks([])
        for panel in panels[len(rows):]:
            panel.set_axis_off()
        figures[f"{kind}: data grey, model blue"] = figure
        start += len(rows)
    return figures


def _png(figure: Figure) -> str:
    content = io.BytesIO()
    figure.savefig(content, dpi=100, format="png")
    return base64.b64encode(content.getvalue()).decode()
