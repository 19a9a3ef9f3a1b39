# SPDX-License-Identifier: MIT
"""FlowForce on a GPU platform: launches of a step, one molecule, many molecules.

    python benchmarks/gpu.py CUDA|OpenCL|HIP [--molecules 4096] [--model FILE] [--json FILE]

Launches are counted by PoCL, so they are printed on OpenCL over PoCL only; the kernels are the same everywhere. If PyTorch sees the same
device, its evaluation of the same batch is timed, too. The machine should have nothing else to do.
"""
from __future__ import annotations

import argparse
import collections
import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import openmm

import openmmflow
from openmmflow import shipped
from openmmflow.benchmark import systems

STEPS = 10


def make_context(model, platform: str, precision: str, count: int) -> openmm.Context:
    """Molecules at independent samples of the model, with a Verlet integrator."""
    model = openmmflow.FlowModel.load(model)
    context = openmm.Context(systems.flow_system(model, count), openmm.VerletIntegrator(1e-4), openmm.Platform.getPlatform(platform),
                             {"Precision": precision})
    context.setPositions(model.sample(count, 1)[0].reshape(-1, 3))
    return context


def seconds_per_step(context: openmm.Context, seconds: float = 3.0) -> float:
    """Wall time of a step of dynamics, from as many as fit into some seconds."""
    integrator, steps = context.getIntegrator(), 1
    integrator.step(2)
    while True:
        context.getState(energy=True)    # waits for the device
        begin = time.perf_counter()
        integrator.step(steps)
        context.getState(energy=True)
        spent = time.perf_counter() - begin
        if spent > seconds:
            return spent / steps
        steps *= 2


def launches_per_step(model) -> dict[str, int]:
    """Launches of each kernel in a step of one molecule, counted by PoCL's tracer in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace"
        program = (f"import runpy; gpu = runpy.run_path({__file__!r}); context = gpu['make_context']({str(model)!r}, 'OpenCL', 'mixed', 1); "
                   f"context.getIntegrator().step({STEPS})")
        subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL,
                       env=os.environ | {"POCL_TRACING": "text", "POCL_TRACING_OPT": str(trace)})
        if not trace.exists():
            return {}
        counts = collections.Counter(re.findall(r"ndrange_kernel \| complete.*?name=(\w+)", trace.read_text()))
    # Kernels that run less often than once a step belong to the set-up. The forces of the first step have one launch more.
    return {name: count // STEPS for name, count in counts.items() if count >= STEPS}


def torch_seconds(model, count: int) -> float | None:
    """Energy and forces of a batch in eager PyTorch on its CUDA device; None if there is none."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    from openmmflow import model_file
    from openmmflow.benchmark.torch_flow import TorchFlow

    flow = TorchFlow(*model_file.read(model)).cuda()
    x = torch.from_numpy(openmmflow.FlowModel.load(model).sample(count, 1)[0].astype(np.float32)).cuda().requires_grad_(True)

    def evaluate():
        torch.autograd.grad(flow(x).sum(), x)
        torch.cuda.synchronize()

    evaluate()
    samples = []
    for _ in range(20):
        begin = time.perf_counter()
        evaluate()
        samples.append(time.perf_counter() - begin)
    return float(np.median(samples))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("platform", choices=("CUDA", "OpenCL", "HIP"))
    parser.add_argument("--molecules", type=int, default=4096)
    parser.add_argument("--model", default=str(shipped.MODEL))
    parser.add_argument("--precisions", nargs="+", default=["single", "mixed", "double"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    reason = openmmflow.why_not_supported(options.platform)
    if reason:
        parser.exit(1, f"{reason}\n")

    figures = {"date": datetime.date.today().isoformat(), "platform": options.platform, "seconds_per_step": {}, "torch_seconds": {}}
    if options.platform == "OpenCL":
        figures["launches_per_step"] = launches_per_step(options.model)
        print("launches per step, one molecule:", ", ".join(f"{name} {n:g}" for name, n in figures["launches_per_step"].items())
              or "not known to this OpenCL")
    for precision in options.precisions:
        for count in (1, options.molecules):
            context = make_context(options.model, options.platform, precision, count)
            figures.setdefault("device", context.getPlatform().getPropertyValue(context, "DeviceName"))
            spent = seconds_per_step(context)
            figures["seconds_per_step"][f"{precision} {count}"] = spent
            print(f"{figures['device']}, {precision}, {count} molecules: {1e6 * spent:.1f} µs a step, "
                  f"{count / spent:.4g} molecules a second", flush=True)
            del context
    for count in (1, options.molecules):
        spent = torch_seconds(options.model, count)
        if spent is not None:
            figures["torch_seconds"][str(count)] = spent
            print(f"eager PyTorch, single, {count} molecules: {1e6 * spent:.1f} µs")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
