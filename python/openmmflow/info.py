# SPDX-License-Identifier: MIT
"""What is installed, where FlowForce runs, and what a model file holds: ``openmmflow info``."""
from __future__ import annotations

import textwrap
from collections import Counter
from pathlib import Path

import openmm

import openmmflow

from . import model_file, model_summary
from .hashes import sha256


def describe_installation() -> str:
    """Versions, and what became of the plugin in the OpenMM that is running."""
    lines = [f"openmmflow {openmmflow.__version__}, OpenMM {openmm.Platform.getOpenMMVersion()}"]
    mismatch = openmmflow.version_mismatch()
    if mismatch:
        lines.append(mismatch)
    lines += openmmflow.registration_message().splitlines()
    return "\n".join(lines)


_GPU_PLATFORMS = {"CUDA": "openmm[cuda13]", "OpenCL": "openmm", "HIP": "openmm[hip6]"}
"""And what brings OpenMM's library for them."""


def describe_platforms() -> str:
    """One line for each of OpenMM's platforms: whether FlowForce runs there, and if not, why. Then the plugins that did not load."""
    lines, loaded = [], set()
    for index in range(openmm.Platform.getNumPlatforms()):
        name = openmm.Platform.getPlatform(index).getName()
        loaded.add(name)
        reason = openmmflow.why_not_supported(name)
        lines.append(f"  {name:<10} {'no: ' + reason if reason else 'yes'}")
    lines.insert(0, "FlowForce runs on")
    failures = list(openmm.Platform.getPluginLoadFailures())
    for name, package in _GPU_PLATFORMS.items():
        if name not in loaded:
            reason = ("its library did not load (below); usually the driver is missing" if any(f"libOpenMM{name}." in f for f in failures)
                      else f"OpenMM's library for it is not installed; pip install {package}")
            lines.append(f"  {name:<10} no: {reason}")
    if failures:
        lines += ["OpenMM plugins that did not load", *(f"  {failure.strip()}" for failure in failures)]
    return "\n".join(lines)


def describe_model(path) -> str:
    """What a model file holds. Raises FlowModelError when it is not a valid one."""
    model = openmmflow.FlowModel.load(path)
    architecture = model.architecture
    data = model.data
    rows = [
        ("file", f"{path} ({Path(path).stat().st_size:,} bytes)"),
        ("SHA-256", sha256(path)),
        ("checksum", model.checksum),
        ("format version", architecture["version"]),
        ("particles", f"{model.num_particles} ({model.num_coordinates} internal coordinates, {len(model.bonds)} bonds)"),
        ("temperature", f"{model.temperature:g} K"),
        ("measure", model.measure),
        ("constraints", _constraints(model.constraints)),
        ("force field", _text(data.get("forceField"))),
        ("environment", _text(data.get("environment"))),
        ("method", _text(data.get("method"))),
        ("parameters", f"{model.num_parameters:,}"),
        ("layers", _layers(architecture["layers"])),
        ("base density", ", ".join(f"{entry['distribution']} ({len(entry['coordinates'])})" for entry in architecture["base"])),
    ]
    # Samples come from the running of the flow, so only where it runs.
    if not openmmflow.why_not_supported("Reference"):
        rows.append(("inner support", _inner_support(model)))
    shown = ("forceField", "environment", "method", "temperature", "constraints")
    rows += [(key, _text(value)) for key, value in data.items() if key not in shown]
    width = max(len(name) for name, _ in rows)
    lines = [_entry(name, value, width) for name, value in rows]
    return "\n".join([*lines, "", model_summary.layer_table(*model_file.unpack(model.to_bytes()))])


def _inner_support(model) -> str:
    from . import inner_support    # which needs the compiled part

    fraction = inner_support.fraction_inside(model)
    verdict = "" if fraction >= inner_support.DEMANDED_FRACTION else f": LESS THAN {inner_support.DEMANDED_FRACTION:.1%}"
    return f"{fraction:.2%} of {inner_support.SAMPLES:,} samples of the flow are within its margins{verdict}"


def _text(value) -> str:
    if value is None:
        return "not recorded"
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    if isinstance(value, dict):
        # What an entry holds in turn would hide the rest; the file has it.
        return ", ".join(f"{key} {'{...}' if isinstance(entry, dict) else _text(entry)}" for key, entry in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def _entry(name: str, value: object, width: int) -> str:
    """Name and value, broken into lines."""
    return textwrap.fill(str(value), 120, initial_indent=f"{name:<{width}}  ", subsequent_indent=" " * (width + 2), break_long_words=False,
                         break_on_hyphens=False)


def _constraints(constraints) -> str:
    if not constraints:
        return "none"
    distances = [distance for _, _, distance in constraints]
    return f"{len(constraints)} distances, {min(distances):.4f} to {max(distances):.4f} nm"


def _layers(layers) -> str:
    """For example "internalCoordinates, 2 marginal, 8 coupling (smoothMixture)"."""
    counts = Counter(layer["type"] + (f" ({layer['transformer']['type']})" if "transformer" in layer else "") for layer in layers)
    return ", ".join(name if count == 1 else f"{count} {name}" for name, count in counts.items())
