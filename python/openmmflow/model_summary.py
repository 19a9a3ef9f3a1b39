# SPDX-License-Identifier: MIT
"""A model as people read it: a table of its layers, and a diagram of what each does to which coordinates."""
from __future__ import annotations

import html
import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from . import model_file

COLOURS = {"real": "#009E73", "interval": "#0072B2", "circle": "#D55E00"}
"""Of the domains; colour-blind safe (Okabe and Ito)."""

# From one domain to another; layers that are not here keep it.
_DOMAIN_AFTER = {"marginal": "interval", "logistic": "interval", "logit": "real"}


@dataclass(frozen=True)
class Stage:
    """One layer, or the base density."""

    label: str
    """Of the table: the number of the layer, or "base"."""
    name: str
    """Type, with what tells it from others of its type."""
    changed: list[int]
    """Coordinates that it changes, or has the density of."""
    read: list[int]
    """Coordinates that its conditioner reads."""
    networks: list[list[int]]
    """Widths of its dense networks, from the features to the parameters."""
    kinds: list[str]
    """Of each coordinate: bond, angle, torsion, block."""
    domains: list[str]
    """Of each coordinate, after the layer."""
    weights: int = field(default=0)
    """Number of trained weights."""


def stages(architecture: dict, tensors: dict[str, np.ndarray]) -> list[Stage]:
    """The layers of a model in density direction x → z, then its base density.

    Parameters
    ----------
    architecture, tensors : as ``openmmflow.model_file.unpack`` gives them; of a valid model
    """
    result, kinds, domains = [], [], []
    for index, layer in enumerate(architecture["layers"]):
        kind, changed = layer["type"], layer.get("transformed", layer.get("coordinates", []))
        if index == 0:
            kinds = _kinds(architecture)
            domains = ["circle" if kind == "torsion" else "real" for kind in kinds]
            changed = list(range(len(kinds)))
        elif kind == "permutation":
            kinds, domains = ([values[i] for i in layer["order"]] for values in (kinds, domains))
            changed = [i for i, source in enumerate(layer["order"]) if i != source]
        elif kind in _DOMAIN_AFTER:
            domains = [_DOMAIN_AFTER[kind] if i in set(changed) else domain for i, domain in enumerate(domains)]
        networks = _networks(f"layers.{index}", tensors)
        weights = sum(tensor.size for name, tensor in tensors.items() if name.startswith(f"layers.{index}.networks."))
        result.append(Stage(str(index), _name(layer), changed, layer.get("conditionedOn", []), networks, kinds, domains, weights))
    for entry in architecture["base"]:
        result.append(Stage("base", entry["distribution"], entry["coordinates"], [], [], kinds, domains))
    return result


def _kinds(architecture: dict) -> list[str]:
    """What each coordinate of the first layer is."""
    first, particles = architecture["layers"][0], architecture["numParticles"]
    if "block" in first:
        rows = len(first["zMatrix"])
        return ["bond"] * rows + ["angle"] * rows + ["torsion"] * rows + ["block"] * first["blockDimensions"]
    return ["bond"] * (particles - 1) + ["angle"] * (particles - 2) + ["torsion"] * (particles - 3)


def _name(layer: dict) -> str:
    """For example "coupling smoothMixture, 8 components"."""
    if "transformer" not in layer:
        return " ".join(filter(None, (layer["type"], layer.get("distribution"))))
    transformer = layer["transformer"]
    counts = [f"{value} {key}" for key, value in transformer.items() if type(value) is int and key.endswith("s")]
    return ", ".join([f"{layer['type']} {transformer['type']}", *counts])


def _networks(prefix: str, tensors: dict[str, np.ndarray]) -> list[list[int]]:
    widths: dict[int, dict[int, tuple]] = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(re.escape(prefix) + r"\.networks\.(\d+)\.(\d+)\.weight", name)
        if match:
            widths.setdefault(int(match[1]), {})[int(match[2])] = tensor.shape
    return [[layers[0][1], *(layers[i][0] for i in sorted(layers))] for _, layers in sorted(widths.items())]


def _count(values) -> str:
    """For example "10 bonds, 9 angles"."""
    counts = Counter(values)
    return ", ".join(f"{count} {name}{'s' if count > 1 and name in ('bond', 'angle', 'torsion') else ''}" for name, count in counts.items())


def _sizes(networks: list[list[int]]) -> str:
    """For example "40-128-128-400", the same ones counted."""
    counts = Counter("-".join(map(str, widths)) for widths in networks)
    return ", ".join(sizes if count == 1 else f"{count} × {sizes}" for sizes, count in counts.items())


def layer_table(architecture: dict, tensors: dict[str, np.ndarray]) -> str:
    """The layers as a table for a terminal."""
    rows = [("", "layer", "changes", "reads", "networks", "weights", "domains after it")]
    for stage in stages(architecture, tensors):
        rows.append((stage.label, stage.name, _count(stage.kinds[i] for i in stage.changed), _count(stage.kinds[i] for i in stage.read),
                     _sizes(stage.networks), f"{stage.weights:,}" if stage.weights else "",
                     "" if stage.label == "base" else _count(stage.domains)))
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(f"{cell:>{width}}" if column in (0, 5) else f"{cell:<{width}}" for column, (cell, width) in enumerate(zip(row, widths)))
             for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def text(model) -> str:
    """A FlowModel in a few lines: what it is of, and the table of its layers."""
    return f"{_headline(model)}\n\n{layer_table(*model_file.unpack(model.to_bytes()))}"


def _headline(model) -> str:
    constraints = f", {len(model.constraints)} constraints" if model.constraints else ""
    return (f"FlowModel of {model.num_particles} particles at {model.temperature:g} K, {model.num_coordinates} coordinates, "
            f"{model.num_parameters:,} weights{constraints}, measure {model.measure!r}, checksum {model.checksum}")


_LEFT, _WIDTH, _ROW, _STRIP = 8, 420, 30, 16
"""Pixels: of the diagram's left edge, of the strip of coordinates, of a layer, of the strip's height."""


def diagram(model) -> str:
    """A FlowModel as self-contained HTML: one strip of all coordinates for each layer, x at the top and z at the bottom.

    Colours are domains. Full: the layer changes the coordinate. Pale: its conditioner reads it. Grey: neither.
    """
    steps = stages(*model_file.unpack(model.to_bytes()))
    scale = _WIDTH / len(steps[0].kinds)
    top = 44
    height = top + _ROW * len(steps) + 34
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="960" height="{height}" viewBox="0 0 960 {height}" '
             'font-family="sans-serif" font-size="12" fill="#222" role="img">',
             f'<rect width="960" height="{height}" fill="white"/>']
    for kind, first, count in _runs(steps[0].kinds):
        x, width = _LEFT + scale * first, scale * count
        parts.append(f'<line x1="{x + 1:.1f}" x2="{x + width - 1:.1f}" y1="{top - 8}" y2="{top - 8}" stroke="#888"/>'
                     f'<text x="{x + width / 2:.1f}" y="{top - 14}" text-anchor="middle">{html.escape(_count([kind] * count))}</text>')
    for row, stage in enumerate(steps):
        y = top + _ROW * row
        changed, read = set(stage.changed), set(stage.read)
        cells = [(domain, 1.0 if i in changed else 0.3 if i in read else 0.0) for i, domain in enumerate(stage.domains)]
        for (domain, opacity), first, count in _runs(cells):
            role = "changed" if opacity == 1 else "read" if opacity else "left alone"
            colour = COLOURS[domain] if opacity else "#e4e4e4"
            parts.append(f'<rect x="{_LEFT + scale * first:.2f}" y="{y}" width="{scale * count:.2f}" height="{_STRIP}" fill="{colour}" '
                         f'fill-opacity="{opacity or 1}"><title>coordinates {first} to {first + count - 1}: {domain}, {role}</title></rect>')
        label = "base density: " + stage.name if stage.label == "base" else f"{stage.label}  {stage.name}"
        note = "; ".join(filter(None, (_sizes(stage.networks), f"{stage.weights:,} weights" if stage.weights else "")))
        parts.append(f'<text x="{_LEFT + _WIDTH + 14}" y="{y + 12}">{html.escape(label)}'
                     f'<tspan fill="#777">{"&#160;&#160;" + html.escape(note) if note else ""}</tspan></text>')
    x, y = _LEFT, height - 14
    for name, colour, opacity in [*((domain, colour, 1) for domain, colour in COLOURS.items()), ("read by the conditioner", "#0072B2", 0.3),
                                  ("left alone", "#e4e4e4", 1)]:
        parts.append(f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{colour}" fill-opacity="{opacity}"/>'
                     f'<text x="{x + 14}" y="{y}" font-size="11">{name}</text>')
        x += 32 + 6 * len(name)
    parts.append("</svg>")
    return f'<div><p style="font-family:sans-serif">{html.escape(_headline(model))}</p>{"".join(parts)}</div>'


def _runs(values) -> list[tuple]:
    """Equal neighbours: (value, first index, count)."""
    runs, first = [], 0
    for value, same in groupby(values):
        count = len(list(same))
        runs.append((value, first, count))
        first += count
    return runs
