# SPDX-License-Identifier: MIT
"""The options of ``openmmflow benchmark``, and what it does."""
from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

POTENTIALS = ("reference", "eager", "compiled", "forcefield", "roots", "kernels")
MODES = ("speed", "accuracy", "nve")


def add_options(parser: argparse.ArgumentParser):
    """Declare the options."""
    parser.add_argument("--quick", action="store_true", help="the published size, 1 and 128 molecules, short timings, nothing compiled")
    parser.add_argument("--mode", choices=MODES, nargs="+", default=["speed"],
                        help="speed; accuracy of single precision; nve: conservation of energy in single precision")
    parser.add_argument("--only", choices=POTENTIALS, nargs="*", default=list(POTENTIALS),
                        help="what FlowForce on CPU is compared with")
    parser.add_argument("--sizes", nargs="+", default=["60k", "314k", "758k", "3M"], help="parameters of the models")
    parser.add_argument("--compiled-sizes", nargs="*", default=["758k"], help="those that torch.compile is tried on (minutes each)")
    parser.add_argument("--molecules", nargs="+", type=int, default=[1, 16, 128, 1024], help="in one System")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="of the CPU platform and of PyTorch")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of each timing")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds after which no further timings are begun")
    parser.add_argument("--kernels", type=Path, default=None, help="the program FlowBenchmarks of a build with OPENMMFLOW_BUILD_BENCHMARKS")
    parser.add_argument("--models", type=Path, default=None, help="folder of model files SIZE.safetensors to measure instead of random ones")
    parser.add_argument("--model", type=Path, default=argparse.SUPPRESS, help="of --mode accuracy and nve; the shipped one otherwise")
    parser.add_argument("--frames", type=int, default=10_000, help="of --mode accuracy; a tenth as many near edges of the support")
    parser.add_argument("--starts", type=int, default=100, help="of --mode nve")
    parser.add_argument("--picoseconds", type=float, default=2.0, help="of each start of --mode nve")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmark"), help="folder for JSON files and plots")


def run(options: argparse.Namespace) -> int:
    """Measure, print, write. The exit status: 0; what is short of a target is printed, not an error."""
    for mode in options.mode:
        {"speed": _speed, "accuracy": _accuracy, "nve": _nve}[mode](options)
    return 0


def _speed(options):
    from . import models, report, speed

    unknown = set(options.sizes + options.compiled_sizes) - set(models.SIZES)
    if unknown:
        raise ValueError(f"there is no model of size {', '.join(sorted(unknown))}; sizes are {', '.join(models.SIZES)}")
    chosen = speed.Options(sizes=options.sizes, molecules=options.molecules, threads=options.threads, potentials=set(options.only),
                           compiled_sizes=options.compiled_sizes, seconds=options.seconds, limit=options.limit, kernels=options.kernels, models=options.models)
    if options.quick:
        chosen = dataclasses.replace(chosen, sizes=["314k"], molecules=[1, 128], seconds=0.2, compiled_sizes=[])
    results = speed.measure(chosen, say=lambda line: print(line, flush=True))
    print("\n" + report.text(results))
    report.write(results, options.output)
    print(f"\nwritten to {options.output}")


def _accuracy(options):
    from .. import FlowModel, atomic
    from . import accuracy, machine, models

    model = FlowModel.load(_model(options))
    frames = models.conformations(200 if options.quick else options.frames)
    figures = {}
    for name, some in (("MD frames", frames), ("near edges", accuracy.near_edges(model, frames[::10]))):
        figure = figures[name] = accuracy.compare(model, some, threads=1)
        print(f"{name}: {figure.frames} frames, RMS force {figure.force_rms:.1f} k_BT/nm, error {figure.force_error:.1e} of it "
              f"(at most {accuracy.LIMITS['force_error']:g}); |ΔU| RMS {figure.energy_rms:.1e}, max {figure.energy_max:.1e} k_BT "
              f"(at most {accuracy.LIMITS['energy_rms']:g}, {accuracy.LIMITS['energy_max']:g}): "
              f"{'met' if figure.within_limits() else 'NOT met'}", flush=True)
    options.output.mkdir(parents=True, exist_ok=True)
    atomic.write_json(options.output / "accuracy.json", {
        "machine": machine.description(), "model": model.checksum, "limits": accuracy.LIMITS,
        "figures": {name: dataclasses.asdict(figure) for name, figure in figures.items()}})


def _nve(options):
    from .. import FlowModel, atomic
    from . import conservation, machine
    from ..processor import one_core

    model = FlowModel.load(_model(options))
    picoseconds, count = (0.5, 10) if options.quick else (options.picoseconds, options.starts)
    with one_core():
        figures, comparison = conservation.measure(model, starts=count, picoseconds=picoseconds)
    for platform, figure in figures.items():
        print(f"{platform}: fluctuation {figure.fluctuation:.6f} ± {figure.fluctuation_error:.6f} kJ/mol, |drift| {figure.drift:.1e} "
              f"kJ/mol/ps, per degree of freedom; {count} starts of {picoseconds:g} ps")
    print(comparison.verdict, flush=True)
    options.output.mkdir(parents=True, exist_ok=True)
    atomic.write_json(options.output / "conservation.json", {
        "machine": machine.description(), "model": model.checksum, "picoseconds": picoseconds, "starts": count,
        "figures": {platform: _numbers(figure) for platform, figure in figures.items()}, "comparison": _numbers(comparison)})


def _numbers(figure) -> dict:
    """The fields of a dataclass; None for what is not a number, as JSON wants it."""
    return {name: None if value != value else value for name, value in dataclasses.asdict(figure).items()}


def _model(options) -> Path:
    from ..shipped import MODEL

    return getattr(options, "model", MODEL)
