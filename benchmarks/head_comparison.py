# SPDX-License-Identifier: MIT
"""The project's head of the smooth mixture against the published one: equal size, steps, batches and data.

    python benchmarks/head_comparison.py alanine_dipeptide.pdb DATA.h5 -o DIR

Both flows have the same couplings and loss and differ in what a coupling's networks put out: the head, with its bounds, and one network against
three. The width is that which comes nearest to the number of parameters. The learning rate of each head is the best of those given.
Prints a table, writes heads.json and heads.png.
"""
from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
from matplotlib.figure import Figure
from openmm import app
from openmmflow import atomic, builder, model_file
from openmmflow_training import TrainingConfig, train

ROUNDS = {"bond_rounds": 2, "shape_rounds": 2, "torsion_rounds": 2}
HEADS = {
    "free": builder.FlowOptions(head="free", **ROUNDS),
    # B, range of alpha and floor as in the alanine dipeptide flows of Köhler et al. 2021.
    "published": builder.FlowOptions(head="published", log_steepness_bound=1.0, first_log_steepness_bound=1.0, alpha_range=10.0,
                                     minimum_floor=1e-6, **ROUNDS),
}


def of_size(options: builder.FlowOptions, parameters: int, topology, positions) -> builder.FlowOptions:
    """The options with the width that comes nearest to a number of parameters."""
    def size(width):
        return builder.num_weights(builder.build(topology, positions, temperature=300.0, options=replace(options, width=width))[1])

    low, high = 4, 1024
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(middle) <= parameters else (low, middle)
    return replace(options, width=min((low, high), key=lambda width: abs(size(width) - parameters)))


def run(arguments) -> dict:
    topology = app.PDBFile(arguments.topology).topology
    with h5py.File(arguments.data, "r", locking=False) as file:
        positions = file["positions"][:200]
    results = {}
    for head, options in HEADS.items():
        flow = of_size(options, arguments.parameters, topology, positions)
        for rate in arguments.learning_rates:
            config = TrainingConfig(steps=arguments.steps, batch=arguments.batch, learning_rate=rate, flow=flow, threads=1, report=False,
                                    force_start=0.1, validate_steps=max(1, arguments.steps // 20), seed=arguments.seed)
            output = Path(arguments.output) / f"{head}-{rate:g}.safetensors"
            train(topology, [arguments.data], output, config, progress=not arguments.quiet)
            architecture, tensors = model_file.read(output)
            records = [json.loads(line) for line in output.with_suffix(".jsonl").read_text().splitlines()]
            results[f"{head}, rate {rate:g}"] = {
                "head": head, "learningRate": rate, "parameters": builder.num_weights(tensors), "width": flow.width,
                "seconds": records[-2]["elapsed"], **architecture["data"]["test"],
                "curve": [(r["step"], r["validation"]["nll"], r["validation"]["force_rmse"]) for r in records if "validation" in r]}
            print(_row(f"{head}, rate {rate:g}", results[f"{head}, rate {rate:g}"]), flush=True)
    return results


def plot(results: dict) -> Figure:
    figure = Figure(figsize=(10, 4), layout="constrained")
    for panel, column, label in zip(figure.subplots(1, 2), (1, 2), ("-ln p / k_BT", "force RMSE / (k_BT/nm)")):
        for name, result in results.items():
            curve = np.array(result["curve"])
            panel.plot(curve[:, 0], curve[:, column], label=name)
        panel.set(xlabel="step", ylabel=f"{label}, validation", yscale="log" if column == 2 else "linear")
        panel.grid(color="0.9")
        panel.legend()
    return figure


def _row(name, result):
    return (f"| {name} | {result['parameters']:,} | {result['nll']:.2f} | {result['force_rmse']:.1f} | "
            f"{1000 * result['seconds'] / result['curve'][-1][0]:.0f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("topology")
    parser.add_argument("data")
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--parameters", type=int, default=150_000)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--learning-rates", type=float, nargs="+", default=[3e-3])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quiet", action="store_true")
    arguments = parser.parse_args()
    results = run(arguments)
    output = Path(arguments.output)
    atomic.write_json(output / "heads.json", {"steps": arguments.steps, "batch": arguments.batch, "seed": arguments.seed, "results": results})
    plot(results).savefig(output / "heads.png", dpi=110)
    print("| head | parameters | -ln p, k_BT | force RMSE, k_BT/nm | ms a step |\n|---|---|---|---|---|")
    print("\n".join(_row(name, result) for name, result in results.items()))


if __name__ == "__main__":
    main()
