# SPDX-License-Identifier: MIT
"""Results as tables for people, and as files."""
from __future__ import annotations

import dataclasses
from pathlib import Path

from .. import atomic
from ..plots import save
from . import plots, scaling, targets
from .speed import Results


def text(results: Results) -> str:
    """All timings, then the ratios that are demanded, then how cost grows."""
    lines = []
    versions = ", ".join(f"{name} {version}" for name, version in results.machine["versions"].items())
    lines.append(f"{results.machine['processor']}, {results.machine['cores']} cores, load {results.machine['loadAverage'][0]:.1f}; {versions}")
    lines += [f"  {size}: {model['parameters']} parameters, {model['what']}" for size, model in results.models.items()]
    groups = {}
    for timing in results.timings:
        groups.setdefault((timing["size"], timing["molecules"], timing["threads"]), {}).setdefault(
            timing["potential"], {})[timing["quantity"]] = timing
    lines.append(f"\n{'model':<7}{'molecules':>9}{'threads':>8}  {'potential':<22}"
                 f"{'forces, µs':>12}{'of processor':>14}{'step, µs':>12}{'of processor':>14}")
    for (size, molecules, threads), potentials in groups.items():
        for potential, quantities in potentials.items():
            cells = "".join(f"{1e6 * quantities[quantity][clock]:>{width}.1f}" if quantity in quantities else " " * width
                            for quantity in ("forces", "step") for clock, width in (("wall", 12), ("cpu", 14)))
            lines.append(f"{size:<7}{molecules:>9}{threads:>8}  {potential:<22}{cells}")
    rows = targets.table(results)
    if rows:
        lines.append(f"\n{'ratio':<72}{'measured':>9}{'demanded':>15}")
        lines += [f"{row['what']:<72}{row['ratio']:>9.2f}{row['demanded']:>10}{row['bound']:>5g}  {row['verdict']}" for row in rows]
    exponents = scaling.table(results)
    if exponents:
        lines.append(f"\n{'growth':<72}{'exponent':>9}")
        lines += [f"{row['what']:<72}{row['exponent']:>9.2f}" for row in exponents]
    lines += [f"note: {note}" for note in results.notes]
    return "\n".join(lines)


def write(results: Results, folder: Path):
    """benchmark.json, and the plots that the results allow."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write_json(folder / "benchmark.json", {**dataclasses.asdict(results), "targets": targets.table(results),
                                                "exponents": scaling.table(results)})
    if any(timing["molecules"] == 1 for timing in results.timings):
        save(plots.parameters(results), folder / "parameters.png")
    size = "314k" if "314k" in results.models else next(iter(results.models), None)
    if any(timing["molecules"] > 1 and timing["size"] == size for timing in results.timings):
        save(plots.molecules(results, size), folder / "molecules.png")
