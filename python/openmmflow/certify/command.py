# SPDX-License-Identifier: MIT
"""``python -m openmmflow.certify``"""
from __future__ import annotations

import argparse
import datetime
import os
import sys
import time
from pathlib import Path
from typing import Callable

import numpy as np
import openmm

import openmmflow

from .. import atomic, dataset, shipped
from ..simulate import InterruptFlag
from .certification import PARTS, Certification
from .published import published_flow
from .report import report, update_readme
from .runs import is_complete, run_jobs

CERTIFICATION = Path("docs/certification")
"""Where the figures of the shipped model are, relative to the repository."""


def machine() -> dict:
    """What the figures were computed on."""
    cpu = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), "unknown")
    return {"cpu": cpu, "cores": os.cpu_count()}


def certify(parts, certification: Certification, output, *, processes: int, deadline: float = np.inf,
            interrupted: Callable[[], bool] = lambda: False, progress: bool = True) -> list[str]:
    """Run parts and write the figures of those that are complete into the folder ``output``; returns the names of the others."""
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    jobs = [job for part in parts for job in certification.jobs(part)]
    incomplete = []
    complete = run_jobs(jobs, processes=processes, deadline=deadline, interrupted=interrupted, progress=progress)
    for part in parts:
        if not complete and not all(is_complete(job) for job in certification.jobs(part)):
            incomplete.append(part)
            continue
        atomic.write_json(output / f"{part}.json", {
            "part": part, "model": {"file": certification.model_path.name, "sha256": certification.model_hash},
            "data": certification.frames.names, "date": datetime.date.today().isoformat(), "machine": machine(),
            "versions": {"openmmflow": openmmflow.__version__, "openmm": openmm.Platform.getOpenMMVersion(), "numpy": np.__version__},
            "figures": certification.parts[part]()})
    atomic.write_bytes(output.with_suffix(".md"), report(output).encode())
    return incomplete


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m openmmflow.certify", description=sys.modules[__package__].__doc__.splitlines()[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--only", action="append", choices=PARTS, help="this part; may be given several times; all if not given")
    parser.add_argument("-o", "--output", type=Path, default=CERTIFICATION, help="folder of the JSON files")
    parser.add_argument("--model", type=Path, default=shipped.MODEL, help="the model file")
    parser.add_argument("--frames", type=Path, nargs="+", help="data sets; all of runs/alanine_dipeptide/*.h5 if not given, "
                                                               "and if there is none, one is made in the folder of the runs")
    parser.add_argument("--held-out", type=float, default=0.1, help="fraction at the end of each file that training has not seen")
    parser.add_argument("--runs", type=Path, default=Path("runs/certification"), help="folder of the runs")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="runs side by side")
    parser.add_argument("--minutes", type=float, help="stop after this time; the same command goes on")
    options = parser.parse_args(arguments)
    deadline = np.inf if options.minutes is None else time.monotonic() + 60 * options.minutes
    frames = options.frames or sorted(Path("runs/alanine_dipeptide").glob("*.h5"))
    held_out = options.held_out
    if not frames:
        # Frames that no training has seen: all of them are held out.
        frames, held_out = [options.runs / "frames.h5"], 1.0
        dataset.make_alanine_dipeptide_dataset(frames[0], frames=20_000, seed=4242)
    certification = Certification(options.model, frames, options.runs, held_out_fraction=held_out, published=published_flow())
    names = [part for part in options.only or PARTS if part in certification.parts]
    if "published" in (options.only or PARTS) and "published" not in names:
        print("the published checkpoint is not at hand (OPENMMFLOW_SHARED_DATA): its part is left as it is", file=sys.stderr)
    with InterruptFlag() as interrupted:
        incomplete = certify(names, certification, options.output, processes=options.processes, deadline=deadline,
                             interrupted=interrupted)
    if options.output == CERTIFICATION and Path("README.md").exists():
        update_readme("README.md", options.output)
    print(report(options.output).split("\n## ", 1)[0])
    if incomplete:
        print(f"not complete: {', '.join(incomplete)}; the same command goes on", file=sys.stderr)
        return 1
    return 0
