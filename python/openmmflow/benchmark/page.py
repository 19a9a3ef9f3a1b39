# SPDX-License-Identifier: MIT
"""Renders the figures of benchmark files into docs/performance.md, so that none is typed.

    python -m openmmflow.benchmark.page docs/performance.md README.md

reads the JSON files of the folder ``benchmarks`` beside the page, or of ``docs/benchmarks`` for README.md, and replaces what stands between ``<!-- figures: NAME -->`` and
``<!-- end -->``.
"""
from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

from .. import atomic
from . import scaling, targets
from .speed import Results

MARK = re.compile(r"(<!-- figures: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main(arguments: list[str]) -> int:
    """Render the pages that are named."""
    for path in map(Path, arguments):
        text = path.read_text(encoding="utf-8")
        atomic.write_bytes(path, render(text, folder_of(path)).encode())
    return 0


def folder_of(page: Path) -> Path:
    """Where the figures of a page are."""
    beside = page.parent / "benchmarks"
    return beside if (beside / "benchmark.json").exists() else page.parent / "docs" / "benchmarks"


def render(text: str, folder: Path) -> str:
    """The page with the figures of the files of a folder. ValueError for a mark that is not known."""
    def replace(match):
        if match[2] not in TABLES:
            raise ValueError(f"there are no figures named '{match[2]}'; there are {', '.join(TABLES)}")
        file, table = TABLES[match[2]]
        return match[1] + table(json.loads((folder / file).read_text(encoding="utf-8"))) + match[3]

    return MARK.sub(replace, text)


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table."""
    return "".join("| " + " | ".join(row) + " |\n" for row in [head, ["---"] * len(head), *rows])


def _machine(document: dict) -> str:
    machine = document["machine"]
    versions = machine["versions"]
    return (f"{machine['processor']}, {machine['cores']} cores of a virtual machine, OpenMM {versions['openmm']}, PyTorch "
            f"{versions.get('torch', '–')}, {machine['date'][:10]}; load when the run began: {machine['loadAverage'][0]:.1f}.\n")


def _results(document: dict) -> Results:
    return Results(**{field.name: document[field.name] for field in dataclasses.fields(Results)})


def _ratios(document: dict) -> str:
    return markdown(["ratio", "measured", "demanded", ""], [
        [row["what"], f"{row['ratio']:.2f}", f"{row['demanded']} {row['bound']:g}", row["verdict"]]
        for row in targets.table(_results(document))])


def _exponents(document: dict) -> str:
    return markdown(["", "exponent", "sizes"], [
        [row["what"], f"{row['exponent']:.2f}", ", ".join(f"{size:,}" for size, _ in sorted(row["points"]))]
        for row in scaling.table(_results(document))])


def _microseconds(document: dict, clock: str, **wanted) -> str:
    for timing in document["timings"]:
        if all(timing[key] == value for key, value in wanted.items()):
            value = 1e6 * timing[clock]
            return f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"
    return "–"


def _one_molecule(document: dict) -> str:
    potentials = ["reading", "floor", "engine", "FlowForce CPU", "FlowForce Reference", "PyTorch eager", "PyTorch compiled"]
    return markdown(["model", "parameters", *potentials], [
        [f"{size}, {model['what']}", f"{model['parameters']:,}"] +
        [_microseconds(document, "cpu", potential=potential, size=size, molecules=1, threads=1, quantity="forces")
         for potential in potentials] for size, model in document["models"].items()])


def _bounds(document: dict) -> str:
    results = _results(document)

    def ratio(potential, size, molecules, bound):
        measured, least = results.find(potential, size, molecules, 1, "forces"), results.find(bound, size, 1, 1, "forces")
        return f"{measured['cpu'] / (molecules * least['cpu']):.2f}" if measured and least else "–"

    return markdown(["model", "one molecule: engine, over reading the weights twice",
                     "1,024 molecules: FlowForce CPU, over multiplying and adding twice with each"],
                    [[size, ratio("engine", size, 1, "reading"), ratio("FlowForce CPU", size, 1024, "arithmetic")]
                     for size in document["models"]])


def _step(document: dict) -> str:
    potentials = ["FlowForce CPU", "FlowForce Reference", "PyTorch eager", "force field CPU", "force field Reference", "no force CPU",
                  "no force Reference"]
    return markdown(["potential", "µs a step"], [
        [potential, _microseconds(document, "cpu", potential=potential, size="314k", molecules=1, threads=1, quantity="step")]
        for potential in potentials])


def _molecules(document: dict) -> str:
    counts = sorted({timing["molecules"] for timing in document["timings"]})
    columns = [(potential, threads) for potential in ("FlowForce CPU", "PyTorch eager") for threads in (1, 2)]
    return markdown(["model", "molecules", *(f"{p.removesuffix(' CPU')}, {t} thread{'s' if t > 1 else ''}" for p, t in columns)], [
        [size, f"{count:,}"] + [_microseconds(document, "wall", potential=potential, size=size, molecules=count, threads=threads,
                                              quantity="forces") for potential, threads in columns]
        for size in document["models"] for count in counts])


def _accuracy(document: dict) -> str:
    limits, names = document["limits"], {"MD frames": "of MD at 300 K", "near edges": "with a bond or angle within 2 % of an edge of the support"}
    return markdown(["frames", "force error, of the RMS force", "ΔU RMS, k_BT", "ΔU maximum, k_BT"], [
        ["demanded, at most", *(f"{limits[name]:g}" for name in ("force_error", "energy_rms", "energy_max"))],
        *([f"{figure['frames']:,} {names[name]}", *(f"{figure[key]:.1e}" for key in ("force_error", "energy_rms", "energy_max"))]
          for name, figure in document["figures"].items())])


def _conservation(document: dict) -> str:
    rows = markdown(["", "fluctuation, kJ/mol", "drift, kJ/mol/ps"], [
        [f"{platform}, {document['starts']} starts of {document['picoseconds']:g} ps",
         f"{figure['fluctuation']:.5f}" + (f" ± {figure['fluctuation_error']:.5f}" if figure["fluctuation_error"] is not None else ""),
         f"{figure['drift']:.1e}"] for platform, figure in document["figures"].items()])
    if "comparison" in document:
        rows += "\n" + document["comparison"]["verdict"] + "\n"
    return rows


TABLES: dict[str, tuple[str, Callable[[dict], str]]] = {
    "machine": ("benchmark.json", _machine),
    "ratios": ("benchmark.json", _ratios),
    "exponents": ("benchmark.json", _exponents),
    "one-molecule": ("benchmark.json", _one_molecule),
    "bounds": ("benchmark.json", _bounds),
    "step": ("benchmark.json", _step),
    "molecules": ("benchmark.json", _molecules),
    "accuracy": ("accuracy.json", _accuracy),
    "conservation": ("conservation.json", _conservation),
    "conservation-long": ("conservation-100ps.json", _conservation),
}
"""By the name of the mark: the file, and what makes its table."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
