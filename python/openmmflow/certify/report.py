# SPDX-License-Identifier: MIT
"""The page docs/certification.md and the table of README.md, from the JSON documents of the parts."""
from __future__ import annotations

import json
from pathlib import Path

from .. import atomic
from .bounds import BOUNDS


def read_parts(directory) -> dict[str, dict]:
    """The JSON documents of a folder by name of the part."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(Path(directory).glob("*.json"))}


def report(directory) -> str:
    """docs/certification.md from the JSON documents."""
    parts = read_parts(directory)
    lines = ["# Certification of the shipped model", "",
             "Written by `./dev certify` from the JSON files in `certification/`; the definitions are in",
             "[theory.md](theory.md#how-figures-are-defined).", ""]
    for document in sorted({(p["model"]["file"], p["model"]["sha256"]) for p in parts.values()}):
        lines.append(f"- Model: `{document[0]}`, SHA-256 `{document[1]}`")
    for text in sorted({f"{p['machine']['cpu']}, {p['machine']['cores']} cores, "
                        f"OpenMM {p['versions']['openmm']}, {p['date']}" for p in parts.values()}):
        lines.append(f"- Computed on: {text}")
    lines += ["", "| figure | value | bound | |", "|---|---|---|---|"]
    for bound in BOUNDS:
        if bound.part not in parts:
            lines.append(f"| {bound.meaning} | not run | {bound} | |")
            continue
        value = parts[bound.part]["figures"][bound.figure]
        lines.append(f"| {bound.meaning} | {'not known' if value is None else f'{value:.4g} {bound.unit}'} | {bound} | {'holds' if bound.holds(value) else '**misses**'} |")
    lines += ["", "## All figures", ""]
    for name, document in parts.items():
        lines += [f"### {name}", "", "```json", json.dumps(document["figures"], indent=1), "```", ""]
    return "\n".join(lines)


README_BEGIN, README_END = "<!-- figures, written by ./dev certify -->\n", "<!-- end of figures -->\n"


def readme_table(directory) -> str:
    """The figures that README.md shows, a Markdown table with a line for each part that was run."""
    figures = {name: document["figures"] for name, document in read_parts(directory).items()}
    lines = ["| figure | flow | for comparison |", "|---|---|---|"]
    if "accuracy" in figures:
        f = figures["accuracy"]
        lines += [f"| force RMSE on {f['frames']:,} held-out frames, k_BT/nm | {f['forceRmse']:.1f} | "
                  f"RMS force {f['forceRms']:.0f}; published flow 55.6 |",
                  f"| negative log-likelihood, measure \"cartesian\" / \"frame\" | {f['negativeLogLikelihood']:.1f} / "
                  f"{f['negativeLogLikelihoodFrame']:.1f} | published flow, on its own data: - / -210.9 |"]
    if "published" in figures:
        f = figures["published"]
        lines.append(f"| the same, measure \"frame\", next to the published checkpoint on the same frames | "
                     f"{f['negativeLogLikelihoodFrameOfShippedModel']:.2f} | {f['negativeLogLikelihoodFrame']:.2f} |")
    if "ensemble" in figures:
        f = figures["ensemble"]
        lines += [f"| KL(data, flow), k_BT | {f['divergence']:.3f} ± {f['divergenceError']:.3f} | 0 |",
                  f"| {f['samples']:,} samples reweighted to the force field: Kish effective sample size, largest weight, Pareto k | "
                  f"{100 * f['effectiveFraction']:.0f} %, {100 * f['largestWeightShare']:.2f} %, {f['paretoK']:.2f} | |",
                  f"| free energy of the basin φ > 0 by reweighting, k_BT | {f['state']['freeEnergy']:.2f} ± {f['state']['error']:.2f} | "
                  f"force field {f['state']['forceField']:.2f} ± {f['state']['forceFieldError']:.2f} |"]
    if "populations" in figures:
        f = figures["populations"]
        lines.append(f"| free energy of the basin φ > 0, k_BT | {f['flow']['freeEnergy']:.2f} ± {f['flow']['error']:.2f} | force field "
                     f"{f['forceField']['freeEnergy']:.2f} ± {f['forceField']['error']:.2f} |")
    if "nve" in figures:
        f = figures["nve"]
        title = f"NVE, {f['starts']} × {f['length']:g} ps at {f['stepSize']:g} fs, per degree of freedom"
        lines += [f"| {title}: energy fluctuation, kJ/mol | {f['fluctuation']:.4f} | Amber {f['fluctuationAmber']:.4f} |",
                  f"| the same: energy drift, kJ/mol/ps | {f['drift']:.1e} | Amber {f['driftAmber']:.1e} |"]
    if "step_size" in figures:
        f = figures["step_size"]
        lines.append(f"| exponent of the step size in the fluctuation, {f['stepSizes'][0]:g} to {f['stepSizes'][-1]:g} fs | "
                     f"{f['exponent']:.2f} ± {f['exponentError']:.2f} | Amber {f['exponentAmber']:.2f}; smooth potential 2 |")
    if "nvt" in figures:
        f = figures["nvt"]
        lines.append(f"| NVT, {f['basins']} × {f['length'] / 1000:g} ns: frames where U is exactly -k_BT ln p, least of the runs | "
                     f"{100 * f['smallestFractionInInnerSupport']:.2f} % | |")
    if "long_nve" in figures:
        f = figures["long_nve"]
        lines.append(f"| NVE, {f['length'] / 1000:g} ns at {f['stepSize']:g} fs, per degree of freedom: energy drift, kJ/mol/ps | {f['drift']:.1e} | |")
    if "long_nvt" in figures:
        f = figures["long_nvt"]
        lines.append(f"| NVT, {f['length'] / 1000:g} ns at {f['stepSize']:g} fs: mean temperature, K | "
                     f"{f['temperature']:.2f} ± {f['temperatureError']:.2f} | thermostat 300 |")
    return "\n".join(lines) + "\n"


def update_readme(path, directory):
    """Put the table between its two marks in README.md; a file without them is left alone."""
    text = Path(path).read_text()
    if README_BEGIN in text and README_END in text:
        before, after = text.split(README_BEGIN)[0], text.split(README_END)[1]
        atomic.write_bytes(path, (before + README_BEGIN + readme_table(directory) + README_END + after).encode())
