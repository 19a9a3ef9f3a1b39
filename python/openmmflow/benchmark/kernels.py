# SPDX-License-Identifier: MIT
"""The C++ program of benchmarks/: the engine without OpenMM, and what bounds it."""
from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
from pathlib import Path

from ..shipped import STRUCTURE


REPETITIONS = 5


def run(program: Path, model: Path, *, pattern: str, seconds: float) -> dict[str, dict[str, float]]:
    """Run those benchmarks of the program whose names match a regular expression.

    Returns
    -------
    name of the benchmark -> "wall" and "cpu" time in seconds, medians over interleaved repetitions.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        command = [str(program), f"--benchmark_filter={pattern}", f"--benchmark_min_time={seconds / REPETITIONS:g}",
                   f"--benchmark_repetitions={REPETITIONS}", "--benchmark_enable_random_interleaving=true",
                   f"--benchmark_out={out}", "--benchmark_out_format=json",
                   str(STRUCTURE), str(model)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{program} failed: {done.stderr.strip()[-500:]}")
        results = json.loads(out.read_text(encoding="utf-8"))["benchmarks"]
    units = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
    times = {}
    for result in results:
        if result["run_type"] == "iteration":
            name = result.get("run_name", result["name"])
            times.setdefault(name, []).append([units[result["time_unit"]] * result[key] for key in ("real_time", "cpu_time")])
    return {name: dict(zip(("wall", "cpu"), map(statistics.median, zip(*samples)))) for name, samples in times.items()}
