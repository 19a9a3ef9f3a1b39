# SPDX-License-Identifier: MIT
"""The curves of a training run as a picture."""
from __future__ import annotations

import json
from pathlib import Path


def plot_curves(log, picture) -> None:
    """Draw negative log-likelihood and force RMSE over the steps of a log of the trainer (JSON lines) into a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    records = [json.loads(line) for line in Path(log).read_text().splitlines()]
    records = [record for record in records if "validation" in record]
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2)
    for panel, key, label in zip(panels, ("nll", "force_rmse"), ("-ln p / k_BT", "force RMSE / (k_BT/nm)")):
        for part in ("training", "validation"):
            points = [(record["step"], record[part][key]) for record in records if key in record[part]]
            if points:
                panel.plot(*zip(*points), label=part)
        panel.set_xlabel("step")
        panel.set_ylabel(label)
    panels[1].set_yscale("log")
    panels[1].legend()
    figure.savefig(picture, dpi=120)
