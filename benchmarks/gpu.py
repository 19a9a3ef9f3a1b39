# SPDX-License-Identifier: MIT
"""FlowForce on a GPU platform: launches of a step, one molecule, many molecules, next to the same flow in PyTorch on the same device.

    python benchmarks/gpu.py CUDA|OpenCL|HIP [--models 314k shipped] [--molecules 4096] [--json FILE]
                             [--shapes TILE,GROUP_SIZE[,BYTES[,CLUSTER]] ...]

Models are those of openmmflow.benchmark.models (314k is the published flow where its checkpoint is at hand, else one of that size with random
weights, which cost the same), the shipped one, or files. Before anything is timed, forces are compared with Reference. Launches are counted by
PoCL, so they are printed on OpenCL over PoCL only (on CUDA and HIP test_emulated_gpus.py counts them). If PyTorch sees a CUDA device it is
timed there: in eager mode within openmm.PythonForce, as users run it, and as one CUDA graph of a whole evaluation with its gradient, which leaves
the interpreter out. `--shapes` times other shapes of the kernel than the one that is chosen, in single precision; on a GPU several by default.
The machine should have nothing else to do.
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
from openmmflow.benchmark import models, systems

STEPS = 10
COMPARED = 64
"""Molecules at either end whose forces are compared with Reference."""
LIMITS = {"single": 1e-4, "mixed": 2e-5, "double": 1e-9}
"""Of the force error, of the RMS force."""
SHAPES = {"one": ("1,128", "1,256", "1,512", "1,768", "1,512,48000,1", "1,512,48000,2", "1,512,48000,4"),
          "many": ("8,256", "8,512", "16,256", "16,512", "32,256", "32,512", "32,768", "64,512")}
"""Tiles, work-items of groups, bytes of local memory and groups of clusters that are tried on a GPU, for one molecule and for many."""


def make_context(model, platform: str, precision: str, count: int, shape: str | None = None) -> openmm.Context:
    """Molecules at independent samples of the model, with a Verlet integrator."""
    model = openmmflow.FlowModel.load(model)
    if shape:
        os.environ["OPENMMFLOW_KERNEL_SHAPE"] = shape
    try:
        context = openmm.Context(systems.flow_system(model, count), openmm.VerletIntegrator(1e-4), openmm.Platform.getPlatform(platform),
                                 {"Precision": precision})
    finally:
        os.environ.pop("OPENMMFLOW_KERNEL_SHAPE", None)
    context.setPositions(model.sample(count, 1)[0].reshape(-1, 3))
    return context


def force_error(context: openmm.Context, model, count: int) -> float:
    """Of the first and the last molecules against Reference, of their RMS force."""
    state = context.getState(positions=True, forces=True)
    shape = (count, model.num_particles, 3)
    positions, forces = (values._value.reshape(shape) for values in (state.getPositions(asNumpy=True), state.getForces(asNumpy=True)))
    chosen = np.unique(np.r_[:min(count, COMPARED), max(0, count - COMPARED):count])
    reference = openmm.Context(systems.flow_system(model, len(chosen)), openmm.VerletIntegrator(1e-4),
                               openmm.Platform.getPlatform("Reference"))
    reference.setPositions(positions[chosen].reshape(-1, 3))
    expected = reference.getState(forces=True).getForces(asNumpy=True)._value.reshape(forces[chosen].shape)
    return float(np.sqrt(np.mean((forces[chosen] - expected)**2) / np.mean(expected**2)))


def seconds_per_step(context: openmm.Context, seconds: float = 1.5) -> float:
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


def seconds_per_call(call, *, least: int = 20, seconds: float = 1.0) -> float:
    """Median wall time of a call that waits for its result."""
    call()
    samples = []
    while len(samples) < least or sum(samples) < seconds:
        begin = time.perf_counter()
        call()
        samples.append(time.perf_counter() - begin)
    return float(np.median(samples))


def overhead(platform: str, precision: str, particles: int) -> float:
    """Wall time of energy and forces of a System without any force, seconds: launches, copies and the kinetic energy of OpenMM itself."""
    system = openmm.System()
    for _ in range(particles):
        system.addParticle(12)
    context = openmm.Context(system, openmm.VerletIntegrator(1e-4), openmm.Platform.getPlatform(platform), {"Precision": precision})
    context.setPositions(np.random.default_rng(0).normal(size=(particles, 3)))
    return seconds_per_call(lambda: context.getState(energy=True, forces=True))


def torch_seconds(model, platform: str, count: int) -> dict[str, float]:
    """Energy and forces of a batch in PyTorch on its CUDA device, seconds; empty if there is none. What fails is said and left out."""
    try:
        import torch
    except ImportError:
        return {}
    if not torch.cuda.is_available():
        return {}
    from openmmflow import model_file
    from openmmflow.benchmark.torch_flow import TorchFlow

    positions = openmmflow.FlowModel.load(model).sample(count, 1)[0]
    flow = TorchFlow(*model_file.read(model)).cuda()
    x = torch.from_numpy(positions.astype(np.float32)).cuda().requires_grad_(True)

    def evaluate():
        return torch.autograd.grad(flow(x).sum(), x)

    def in_python_force():
        context = openmm.Context(systems.torch_system(model, count, flow=flow, device="cuda"), openmm.VerletIntegrator(1e-4),
                                 openmm.Platform.getPlatform(platform))
        context.setPositions(positions.reshape(-1, 3))
        return seconds_per_call(lambda: context.getState(energy=True, forces=True))

    def as_graph():
        # What a graph holds must have run before, on a stream of its own.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                evaluate()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            evaluate()
        return seconds_per_call(lambda: (graph.replay(), torch.cuda.synchronize()))

    seconds = {}
    # The graph last: after a capture that failed PyTorch may be of no more use.
    for name, part in (("PythonForce, eager", in_python_force), ("eager", lambda: seconds_per_call(lambda: (evaluate(), torch.cuda.synchronize()))),
                       ("CUDA graph", as_graph)):
        try:
            seconds[name] = part()
        except (RuntimeError, openmm.OpenMMException) as error:
            print(f"PyTorch, {name}, {count} molecules: {error}", flush=True)
    return seconds


def single_precision_peak() -> float | None:
    """Operations a second of PyTorch's CUDA device: 128 multiply-adds a clock and multiprocessor, 64 up to compute capability 8.0."""
    try:
        import torch
        device = torch.cuda.get_device_properties(0)
        clock = subprocess.run(["nvidia-smi", "--query-gpu=clocks.max.sm", "--format=csv,noheader,nounits", "--id=0"],
                               capture_output=True, text=True, check=True).stdout
        lanes = 64 if device.major < 8 or (device.major, device.minor) == (8, 0) else 128
        return device.multi_processor_count * lanes * 2 * 1e6 * float(clock)
    except (ImportError, AssertionError, RuntimeError, ValueError, OSError, subprocess.CalledProcessError):
        return None


def verdicts(figures: dict, molecules: int, peak: float | None) -> list[str]:
    """Ratios that are demanded of CUDA, from what was measured of a model."""
    # Of many molecules a step, in which nothing leaves the device, as in PyTorch's batch.
    one, many = figures["seconds"].get("single 1"), figures["seconds_per_step"].get(f"single {molecules}")
    step = figures["seconds_per_step"].get("single 1")
    torch_one, torch_many = (figures["torch_seconds"].get(str(count), {}) for count in (1, molecules))
    lines = []

    def compare(what, value, bound, at_least):
        met = value >= bound if at_least else value <= bound
        lines.append(f"{what}: {value:.4g}, demanded at {'least' if at_least else 'most'} {bound:g}: {'met' if met else 'MISSED'}")

    if one:
        compare("one molecule, energy and forces, µs", 1e6 * one, 100, False)
        for name, bound in (("PythonForce, eager", 50), ("CUDA graph", 3)):
            if name in torch_one:
                compare(f"one molecule, faster than PyTorch ({name})", torch_one[name] / one, bound, True)
        if step and "CUDA graph" in torch_one:
            # A graph copies neither positions nor forces; nor does a step.
            lines.append(f"one molecule, a step faster than a CUDA graph of PyTorch: {torch_one['CUDA graph'] / step:.4g}")
    if many and "eager" in torch_many:
        compare(f"{molecules} molecules, faster than a PyTorch batch", torch_many["eager"] / many, 2, True)
    if many and peak:
        # Each weight is multiplied and added twice, once in either direction.
        needed = 4 * figures["parameters"] * molecules / peak
        compare(f"{molecules} molecules, slower than the products alone at single-precision peak", many / needed, 3, False)
    return lines


def measure(path, options, shapes: list[str], done) -> dict:
    """Everything about one model; `done` is called with the figures so far after each measurement."""
    model = openmmflow.FlowModel.load(path)
    figures = {"model": model.checksum, "parameters": model.num_parameters, "seconds_per_step": {}, "seconds": {}, "overhead_seconds": {},
               "first_energy_seconds": {}, "force_error": {}, "shapes": {}, "torch_seconds": {}}
    if options.platform == "OpenCL":
        figures["launches_per_step"] = launches_per_step(path)
        print("launches per step, one molecule:", ", ".join(f"{name} {n:g}" for name, n in figures["launches_per_step"].items())
              or "not known to this OpenCL")
    for precision in options.precisions:
        for count in (1, options.molecules):
            begin = time.perf_counter()
            context = make_context(path, options.platform, precision, count)
            context.getState(energy=True)
            first = time.perf_counter() - begin
            error = force_error(context, model, count)
            spent = seconds_per_step(context)
            state = seconds_per_call(lambda: context.getState(energy=True, forces=True))
            del context
            name = f"{precision} {count}"
            figures["first_energy_seconds"][name], figures["seconds_per_step"][name], figures["seconds"][name] = first, spent, state
            figures["force_error"][name] = error
            figures["overhead_seconds"][name] = without = overhead(options.platform, precision, count * model.num_particles)
            print(f"{precision}, {count} molecules: {1e6 * spent:.1f} µs a step, {count / spent:.4g} molecules a second; "
                  f"{1e6 * state:.1f} µs for energy and forces, of which OpenMM takes {1e6 * without:.1f} without any force; "
                  f"first energy after {first:.1f} s; force error {error:.1e}, "
                  f"at most {LIMITS[precision]:g}: {'met' if error <= LIMITS[precision] else 'MISSED'}", flush=True)
            done(figures)
    for shape in shapes:
        count = 1 if shape.split(",")[0] == "1" else options.molecules
        try:
            context = make_context(path, options.platform, "single", count, shape)
            error = force_error(context, model, count)
            spent = seconds_per_step(context)
            del context
        except openmm.OpenMMException as error:
            print(f"shape {shape}: {error}")
            continue
        figures["shapes"][shape] = spent
        print(f"shape {shape}, single, {count} molecules: {1e6 * spent:.1f} µs a step; force error {error:.1e}", flush=True)
        done(figures)
    for count in (1, options.molecules):
        figures["torch_seconds"][str(count)] = torch_seconds(path, options.platform, count)
        for name, spent in figures["torch_seconds"][str(count)].items():
            print(f"PyTorch, {name}, single precision, {count} molecules: {1e6 * spent:.1f} µs", flush=True)
        done(figures)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("platform", choices=("CUDA", "OpenCL", "HIP"))
    parser.add_argument("--models", nargs="+", default=["314k", "shipped"])
    parser.add_argument("--molecules", type=int, default=4096)
    parser.add_argument("--precisions", nargs="+", default=["single", "mixed", "double"])
    parser.add_argument("--shapes", nargs="*")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    reason = openmmflow.why_not_supported(options.platform)
    if reason:
        parser.exit(1, f"{reason}\n")

    context = make_context(shipped.MODEL, options.platform, "single", 1)
    device = context.getPlatform().getPropertyValue(context, "DeviceName")
    del context
    shapes = options.shapes
    if shapes is None:
        shapes = [] if options.platform == "OpenCL" else [shape for group in SHAPES.values() for shape in group]
    figures = {"date": datetime.date.today().isoformat(), "platform": options.platform, "device": device,
               "single_precision_peak": single_precision_peak(), "models": {}}

    def done(name, of_model):
        figures["models"][name] = of_model
        if options.json:
            options.json.write_text(json.dumps(figures, indent=1) + "\n")

    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            if name == "shipped":
                path, what = shipped.MODEL, "shipped"
            elif name in models.SIZES:
                path, what = models.make(name, Path(folder))
            else:
                path, what = Path(name), "a given file"
            print(f"{device}: {name} ({what})", flush=True)
            of_model = measure(path, options, shapes, lambda so_far, name=name, what=what: done(name, {"what": what} | so_far))
            if options.platform == "CUDA":
                print(*verdicts(of_model, options.molecules, figures["single_precision_peak"]), sep="\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
