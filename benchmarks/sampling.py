# SPDX-License-Identifier: MIT
"""Samples a second with ln p, of the published size and of the shipped model: ``python benchmarks/sampling.py -o DIR``.

Measures FlowModel.sample as it is called from Python, with all threads that it takes; elapsed time counts, and processor time
tells how much of the machine it had. The 314k model is the published flow where OPENMMFLOW_SHARED_DATA names the folder of its
checkpoint; its closed form is that of the density direction, so that every coordinate of a sample is a root.
"""
import argparse
import statistics
import tempfile
import time
from pathlib import Path

from openmmflow import FlowModel, atomic, shipped
from openmmflow.benchmark import machine, models

TARGET = 10_000
"""Samples a second of the 314k flow, two threads."""


def measure(model: FlowModel, *, count: int, rounds: int) -> dict:
    """Medians over rounds of ``count`` samples each."""
    model.sample(1000)
    elapsed, used = [], []
    for seed in range(rounds):
        begin, processor = time.perf_counter(), time.process_time()
        model.sample(count, seed)
        elapsed.append(time.perf_counter() - begin)
        used.append(time.process_time() - processor)
    return {"parameters": model.num_parameters, "count": count, "rounds": rounds, "samplesPerSecond": count / statistics.median(elapsed),
            "samplesPerProcessorSecond": count / statistics.median(used)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000, help="samples a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("-o", "--output", type=Path, default=None, help="folder for sampling.json")
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        path, source = models.make("314k", Path(folder))
        for name, model in ((f"314k, {source}", FlowModel.load(path)), ("shipped model", FlowModel.load(shipped.MODEL))):
            results[name] = found = measure(model, count=options.count, rounds=options.rounds)
            verdict = f" (target {TARGET:,})" if name.startswith("314k") else ""
            print(f"{name}, {found['parameters']:,} parameters: {found['samplesPerSecond']:,.0f} samples a second{verdict}, "
                  f"{found['samplesPerProcessorSecond']:,.0f} a second of processor time", flush=True)
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        atomic.write_json(options.output / "sampling.json", {"machine": machine.description(), "target": TARGET, "results": results})


if __name__ == "__main__":
    main()
