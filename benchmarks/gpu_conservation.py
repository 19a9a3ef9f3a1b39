# SPDX-License-Identifier: MIT
"""Conservation of energy on a GPU platform over 100 ps at 1 fs, next to Reference from the same starts.

    python benchmarks/gpu_conservation.py CUDA|OpenCL|HIP [--precision mixed] [--starts 4] [--picoseconds 100] [--folder DIR] [--json FILE]

The runs lie in a folder and go on where they stopped. Fluctuation and drift are those of docs/theory.md, of one molecule. Over 100 ps
trajectories on two platforms are not the same: rounding parts them within some picoseconds. So the fluctuations of a start differ by chance,
and the means over starts are compared.
"""
from __future__ import annotations

import argparse
import datetime
import json
import sys
from pathlib import Path

import numpy as np

import openmmflow
from openmmflow import analysis, dataset, shipped
from openmmflow.benchmark import conservation, systems
from openmmflow.stored_run import Settings, StoredRun

LARGEST_DIFFERENCE = 0.1
"""Of the ratio of fluctuations from 1."""
LARGEST_DRIFT = 1e-4
"""kJ/mol/ps per degree of freedom."""


def measure(model: openmmflow.FlowModel, platform: str, precision: str, starts: int, picoseconds: float,
            folder: Path) -> dict[str, list[analysis.EnergyConservation]]:
    """Of each start, on the platform and on Reference."""
    system = systems.flow_system(model)
    degrees = analysis.degrees_of_freedom(system)
    found = {platform: [], "Reference": []}
    for number, (positions, velocities) in enumerate(conservation.equilibrated(system, starts)):
        for name in found:
            settings = Settings(ensemble="nve", step_size=1.0, report_interval=conservation.STEPS_PER_SAMPLE, trajectory_interval=10000,
                                platform=name, precision=None if name == "Reference" else precision)
            with StoredRun(folder / f"{name}-{number}", dataset.alanine_dipeptide().topology, system, settings,
                           description={"model": model.checksum, "start": number}, start=lambda: (positions, velocities)) as run:
                run.advance(round(1000 * picoseconds))
                run.write_checkpoint()
                energies = run.energies()
            found[name].append(analysis.energy_conservation(energies.time, energies.total, degrees))
            print(f"{name}, start {number}: fluctuation {found[name][-1].fluctuation:.5f} kJ/mol, "
                  f"drift {found[name][-1].drift:.2e} kJ/mol/ps", flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("platform", choices=("CUDA", "OpenCL", "HIP"))
    parser.add_argument("--precision", default="mixed", choices=("single", "mixed", "double"))
    parser.add_argument("--starts", type=int, default=4)
    parser.add_argument("--picoseconds", type=float, default=100.0)
    parser.add_argument("--model", default=str(shipped.MODEL))
    parser.add_argument("--folder", type=Path, default=Path("build/gpu_conservation"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    reason = openmmflow.why_not_supported(options.platform)
    if reason:
        parser.exit(1, f"{reason}\n")
    model = openmmflow.FlowModel.load(options.model)
    found = measure(model, options.platform, options.precision, options.starts, options.picoseconds, options.folder)
    fluctuations = {name: np.array([figure.fluctuation for figure in figures]) for name, figures in found.items()}
    drifts = {name: float(np.mean([figure.drift for figure in figures])) for name, figures in found.items()}
    comparison = conservation.compare(fluctuations[options.platform], fluctuations["Reference"],
                                      f"{options.platform} ({options.precision})", LARGEST_DIFFERENCE)
    print(comparison.verdict)
    print("Drift, mean over starts:", ", ".join(f"{name} {drift:.2e}" for name, drift in drifts.items()),
          f"kJ/mol/ps per degree of freedom; at most {LARGEST_DRIFT:g}: {'met' if drifts[options.platform] <= LARGEST_DRIFT else 'NOT met'}.")
    if options.json:
        options.json.write_text(json.dumps({
            "date": datetime.date.today().isoformat(), "model": model.checksum, "platform": options.platform, "precision": options.precision,
            "picoseconds": options.picoseconds, "ratio": comparison.ratio, "ratio_error": comparison.error, "drift": drifts,
            "starts": {name: [{"fluctuation": figure.fluctuation, "drift": figure.drift} for figure in figures]
                       for name, figures in found.items()}}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
