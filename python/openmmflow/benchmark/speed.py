# SPDX-License-Identifier: MIT
"""What is timed against what: FlowForce, PyTorch through PythonForce, the force field, and the floor."""
from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..processor import one_core
from . import kernels, machine, models, systems
from .timing import Timing, interleaved

STEPS = 20
"""Of dynamics in one call that is timed. Each call begins at the same state, so that all see the same dynamics."""


@dataclass
class Options:
    """What a run covers.

    Attributes
    ----------
    sizes, molecules, threads : every combination is measured.
    potentials : of "reference", "eager", "compiled", "forcefield", "roots", "kernels"; FlowForce on CPU always is.
    compiled_sizes : of one molecule on one thread; compiling takes minutes each.
    seconds : for the timing of each quantity.
    limit : seconds after which no further group of timings is begun.
    kernels : the C++ program of benchmarks/; without it there is no floor.
    models : a folder whose files SIZE.safetensors are measured instead of models of random weights.
    """

    sizes: list[str] = field(default_factory=lambda: list(models.SIZES))
    molecules: list[int] = field(default_factory=lambda: [1, 16, 128, 1024])
    threads: list[int] = field(default_factory=lambda: [1, 2])
    potentials: set[str] = field(default_factory=lambda: {"reference", "eager", "compiled", "forcefield", "roots", "kernels"})
    compiled_sizes: list[str] = field(default_factory=lambda: ["758k"])
    seconds: float = 1.0
    limit: float = 600.0
    kernels: Path | None = None
    models: Path | None = None


@dataclass
class Results:
    """All timings of a run and where they are from: what the JSON file holds.

    Those of one thread are taken with all of the process on one core (:func:`openmmflow.one_core`), PyTorch's and the force field's alike.
    """

    machine: dict
    models: dict[str, dict] = field(default_factory=dict)
    timings: list[dict] = field(default_factory=list)
    kernels: dict[str, dict] = field(default_factory=dict)
    """Of the C++ program, by the name of the benchmark: "wall" and "cpu", s."""
    notes: list[str] = field(default_factory=list)

    def add(self, potential: str, size: str, molecules: int, threads: int, quantity: str, timing: Timing):
        self.timings.append({"potential": potential, "size": size, "molecules": molecules, "threads": threads, "quantity": quantity,
                             "wall": timing.wall, "cpu": timing.cpu, "rounds": timing.rounds, "calls": timing.calls})

    def find(self, potential: str, size: str, molecules: int, threads: int, quantity: str) -> dict | None:
        """The timing of that, for the force field the one taken beside the model of that size; None if there is none."""
        key = (potential, size, molecules, threads, quantity)
        return next((t for t in self.timings
                     if (t["potential"], t["size"], t["molecules"], t["threads"], t["quantity"]) == key), None)


def measure(options: Options, say=print) -> Results:
    """Run everything that the options ask for; ``say`` is called with a line after each group."""
    results = Results(machine.description())
    begin = time.monotonic()
    have_torch = _have_torch()
    if not have_torch and options.potentials & {"eager", "compiled"}:
        results.notes.append("PyTorch is not installed: nothing was compared with it")
    if options.kernels is None and "kernels" in options.potentials:
        results.notes.append("no program of benchmarks/ was given (--kernels): there is no floor")
    frames = models.conformations(64)
    with tempfile.TemporaryDirectory() as folder:
        for size in options.sizes:
            path, what = models.make(size, Path(folder), options.models)
            results.models[size] = {"what": what, "parameters": _num_parameters(path)}
            if options.kernels is not None and "kernels" in options.potentials:
                with one_core():
                    _measure_kernels(results, size, path, options)
            compiled = None
            if have_torch and "compiled" in options.potentials and size in options.compiled_sizes and 1 in options.molecules:
                import torch

                torch.set_num_threads(1)
                begin_compiling = time.monotonic()
                compiled = systems.torch_flow(path, compile_for=frames[:1])
                say(f"{time.monotonic() - begin:6.0f} s  {size}: torch.compile took {time.monotonic() - begin_compiling:.0f} s")
            # Two threads are compared where there is work for both.
            for molecules, threads in ((m, t) for m in options.molecules for t in options.threads):
                if time.monotonic() - begin > options.limit:
                    results.notes.append(f"the time limit of {options.limit:g} s was reached: "
                                         f"{size} with {molecules} molecules and {threads} threads, and what comes after, is missing")
                    return results
                with one_core() if threads == 1 else contextlib.nullcontext():
                    # Here, because the threads of a Context stay where they were made.
                    tasks = dict(_tasks(size, path, molecules, threads, frames, options, have_torch, compiled))
                    for quantity in ("forces", "step"):
                        calls = {name: by_quantity[quantity] for name, by_quantity in tasks.items() if quantity in by_quantity}
                        for name, timing in interleaved(calls, seconds=options.seconds).items():
                            if quantity == "step":
                                timing = Timing(timing.wall / STEPS, timing.cpu / STEPS, timing.rounds, timing.calls * STEPS)
                            results.add(name, size, molecules, threads, quantity, timing)
                say(f"{time.monotonic() - begin:6.0f} s  {size}, {molecules} molecules, {threads} threads: " + ", ".join(
                    f"{name} {1e6 * results.find(name, size, molecules, threads, 'forces')['wall']:.0f} µs" for name in tasks))
    return results


def _tasks(size: str, path: Path, molecules: int, threads: int, frames, options: Options,
           have_torch: bool, compiled) -> Iterable[tuple[str, dict]]:
    """(potential, {quantity: a call that takes it}) of all potentials that are compared in one group."""
    positions = np.resize(frames, (molecules, *frames.shape[1:]))
    single = molecules == 1 and threads == 1

    def calls(context, dynamics=True):
        by_quantity = {"forces": lambda: context.getState(energy=True, forces=True)}
        if dynamics:
            context.setVelocitiesToTemperature(systems.TEMPERATURE, 1)
            start = context.createCheckpoint()
            by_quantity["step"] = lambda: (context.loadCheckpoint(start), context.getIntegrator().step(STEPS))
        return by_quantity

    flow = systems.flow_system(path, molecules)
    yield "FlowForce CPU", calls(systems.context(flow, "CPU", positions, threads=threads))
    if "roots" in options.potentials and single:
        yield "FlowForce CPU, roots", calls(
            systems.context(systems.flow_system(models.with_roots(path)), "CPU", positions, threads=threads), dynamics=False)
    if "reference" in options.potentials and molecules <= 16 and threads == 1:
        yield "FlowForce Reference", calls(systems.context(flow, "Reference", positions))
    if have_torch:
        import torch

        torch.set_num_threads(threads)
        if "eager" in options.potentials:
            yield "PyTorch eager", calls(
                systems.context(systems.torch_system(path, molecules), "CPU", positions, threads=threads), single)
        if compiled is not None and single:
            yield "PyTorch compiled", calls(
                systems.context(systems.torch_system(path, molecules, flow=compiled), "CPU", positions, threads=threads))
    if "forcefield" in options.potentials and molecules == 1:
        for platform in ("CPU", "Reference"):
            yield f"force field {platform}", calls(
                systems.context(systems.force_field_system(), platform, positions, threads=threads))
            # What a step takes before any force does anything.
            yield f"no force {platform}", calls(
                systems.context(systems.molecules_without_force(1), platform, positions, threads=threads))


def _measure_kernels(results: Results, size: str, path: Path, options: Options):
    """The engine without OpenMM, and what bounds it."""
    times = kernels.run(options.kernels, path, seconds=options.seconds,
                        pattern=f"^(Floor/{size}|Roof/(read|multiply)/{size}|Evaluator/single/{size}/.*|(Mixture|Coupling)/(closed|roots)/{size}/.*)$")
    results.kernels.update(times)
    for name, potential in ((f"Floor/{size}", "floor"), (f"Roof/read/{size}", "reading"), (f"Roof/multiply/{size}", "arithmetic"),
                            (f"Evaluator/single/{size}/1", "engine")):
        results.add(potential, size, 1, 1, "forces", Timing(**times[name], rounds=kernels.REPETITIONS, calls=0))


def _num_parameters(path: Path) -> int:
    from .. import FlowModel

    return FlowModel.load(path).num_parameters


def _have_torch() -> bool:
    try:
        import torch  # noqa: F401
    except ImportError:
        return False
    return True
