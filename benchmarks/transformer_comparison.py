# SPDX-License-Identifier: MIT
"""Transformers against each other on alanine dipeptide: equal numbers of parameters, equal training time, equal loss and data.

    python benchmarks/transformer_comparison.py DATA.h5 ... -o DIR [--seconds 300] [--docs docs]

Every flow has the same couplings. What differs is the transformer, and the width of the networks, which is that which comes nearest to the
number of parameters. Training time is processor time of one thread, measured before training; the number of steps follows from it, so that
a run is repeatable on a machine that does other things as well. Then, for each:

  - negative log-likelihood and force RMSE of held-out frames, measure "cartesian";
  - fluctuation of the total energy at constant energy (docs/theory.md, "How figures are defined") with steps of 0.5, 1 and 2 fs on the CPU
    platform, from held-out frames, and its exponent in the step size, next to the force field's from the same starts;
  - Kish's effective samples of samples of the flow that are reweighted to the force field;
  - microseconds a step of Langevin dynamics on the CPU platform, one thread.

Each part is written when it is done, so that an interrupted command goes on when it is given again, and so that contestants (--only) and
seeds (--seed) can be added later. Writes DIR/transformers.json, and with --docs the table of transformers.md there, between its marks, and
figures and plots in the folder transformers/. The time of a step in dynamics wants a machine that does nothing else: `--retime` measures that
again, and nothing else.
"""
from __future__ import annotations

import argparse
import json
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import openmm
import torch
from head_comparison import of_size
from matplotlib.figure import Figure
from openmm import unit
from openmmflow import FlowModel, analysis, atomic, builder, dataset, model_file, reweighting
from openmmflow.benchmark import systems, timing
from openmmflow.certify.frames import read_frames
from openmmflow.processor import one_core
from openmmflow.sampling import PotentialEnergy
from openmmflow.stored_run import maxwell_velocities
from openmmflow_training import FlowModule, TrainingConfig, train
from openmmflow_training.data import Frames
from openmmflow_training.losses import likelihood_and_force_loss
from tqdm import tqdm

CONTESTANTS = {
    "smooth mixture": builder.FlowOptions(),
    "RQ spline": builder.FlowOptions(transformer="rationalQuadraticSpline"),
    "cubic B-spline": builder.FlowOptions(transformer="cubicBSpline"),
    "analytic": builder.FlowOptions(transformer="analytic"),
    "affine, Möbius": builder.FlowOptions(transformer="affine", circle_transformer="moebius"),
    "analytic, Möbius": builder.FlowOptions(transformer="analytic", circle_transformer="moebius"),
}
"""By name: the shape of each flow, without its width."""
FORCE_FIELD = "force field"
STEP_SIZES = (0.5, 1.0, 2.0)    # fs
TEMPERATURE = 300.0
HELD_OUT = 0.1                  # of each data set, at its end: TrainingConfig.test
MEASURED_STEPS = 12
MARK = re.compile(r"(<!-- figures: comparison -->\n).*?(<!-- end -->)", re.DOTALL)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", type=Path, help="data sets of `openmmflow dataset`")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS), metavar="NAME", help="of: " + ", ".join(CONTESTANTS))
    parser.add_argument("--seed", type=int, default=1, help="of initial weights and batches")
    parser.add_argument("--retime", action="store_true", help="measure the time of a step of dynamics, again where it is known, and train nothing")
    parser.add_argument("--parameters", type=int, default=150_000)
    parser.add_argument("--seconds", type=float, default=300.0, help="of processor time that each is trained for")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--starts", type=int, default=4, help="at constant energy")
    parser.add_argument("--picoseconds", type=float, default=5.0, help="of each run at constant energy")
    parser.add_argument("--samples", type=int, default=20_000, help="that are reweighted")
    parser.add_argument("--docs", type=Path, help="folder of the documentation")
    parser.add_argument("--quiet", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.output.mkdir(parents=True, exist_ok=True)
    results = Results(arguments.output / "transformers.json", {name: getattr(arguments, name) for name in (
        "parameters", "seconds", "batch", "starts", "picoseconds", "samples")})
    starts = starting_points(read_frames(arguments.data).held_out(HELD_OUT), arguments.starts)
    if not arguments.retime:
        compare(results, starts, arguments)
    results.part("all", "speed", lambda: speed({name: r["training"]["model"] for name, r in results.values.items() if "training" in r},
                                               arguments, starts), again=True)
    print("\n".join(table(results.values)))
    if arguments.docs:
        write_page(arguments.docs, results.values, results.settings)


def compare(results: Results, starts, arguments):
    """All but the time of a step."""
    results.part(FORCE_FIELD, "conservation", lambda: conservation(systems.force_field_system(), starts, arguments))
    results.part("all", "shapes", lambda: shapes(arguments, results.values["all"].get("shapes", {})),
                 again=any(name not in results.values.get("all", {}).get("shapes", {}) for name in arguments.only))
    for name in arguments.only:
        entry = name if arguments.seed == 1 else f"{name}, seed {arguments.seed}"
        path = arguments.output / f"{entry.replace(', ', '-').replace(' ', '-').replace('ö', 'oe')}.safetensors"
        results.part(entry, "training", lambda: training(name, path, results.values["all"]["shapes"][name], arguments))
        results.part(entry, "conservation", lambda: conservation(systems.flow_system(path), starts, arguments))
        results.part(entry, "samples", lambda: effective_samples(path, arguments.samples))
        print(row(entry, results.values), flush=True)


class Results:
    """What is done, in a file; a part that is there is not done again."""

    def __init__(self, path: Path, settings: dict):
        self.path, self.settings = path, settings
        self.values = {}
        if path.exists():
            stored = json.loads(path.read_text())
            if stored["settings"] != settings:
                raise SystemExit(f"{path} is of a comparison with other settings: {stored['settings']}. Give them, or another folder")
            self.values = stored["results"]

    def part(self, name: str, part: str, compute, again: bool = False):
        parts = self.values.setdefault(name, {})
        if again or part not in parts:
            parts[part] = compute()
            atomic.write_json(self.path, {"settings": self.settings, "results": self.values})


def shapes(arguments, known: dict) -> dict:
    """Of each flow the width and the processor seconds of a step of force matching, medians of steps in turns: all see the same machine.

    Flows that come later are measured next to one that is known, and see the machine that this one saw then.
    """
    frames = read_frames(arguments.data)
    topology, positions = dataset.alanine_dipeptide().topology, frames.positions[0][:400]
    kT = dataset.MOLAR_GAS_CONSTANT * TEMPERATURE
    some = Frames(torch.from_numpy(positions[:arguments.batch]).double(), torch.from_numpy(frames.forces[0][:arguments.batch]).double() / kT)
    measured = [name for name in CONTESTANTS if name in arguments.only and name not in known or name in list(known)[:1]]
    flows = {name: of_size(CONTESTANTS[name], arguments.parameters, topology, positions) for name in measured}
    modules = {name: FlowModule(builder.build(topology, positions, temperature=TEMPERATURE, options=flow)) for name, flow in flows.items()}
    optimizers = {name: torch.optim.Adam(module.parameters(), lr=0.0, fused=True) for name, module in modules.items()}
    seconds = {name: [] for name in modules}
    for _ in range(MEASURED_STEPS):
        for name, module in modules.items():
            start = time.process_time()
            likelihood, force = likelihood_and_force_loss(module, some, create_graph=True)
            optimizers[name].zero_grad()
            (likelihood + 1e-3 * force).backward()
            optimizers[name].step()
            seconds[name].append(time.process_time() - start)
    medians = {name: float(np.median(taken[1:])) for name, taken in seconds.items()}
    machine = next((known[name]["seconds"] / medians[name] for name in measured if name in known), 1.0)
    return known | {name: {"width": flows[name].width, "seconds": machine * medians[name]} for name in measured if name not in known}


def training(name: str, path: Path, shape: dict, arguments) -> dict:
    steps = max(20, round(arguments.seconds / shape["seconds"]))
    config = TrainingConfig(steps=steps, batch=arguments.batch, flow=replace(CONTESTANTS[name], width=shape["width"]), threads=1, report=False,
                            force_start=0.05, seed=arguments.seed, validate_steps=max(10, steps // 8), validation=0.01, test=HELD_OUT)
    train(dataset.alanine_dipeptide().topology, arguments.data, path, config, progress=not arguments.quiet)
    architecture, tensors = model_file.read(path)
    records = [json.loads(line) for line in path.with_suffix(".jsonl").read_text().splitlines()]
    return {"model": path.name, "parameters": builder.num_weights(tensors), "width": shape["width"], "steps": steps,
            "millisecondsPerStep": 1000 * shape["seconds"], **architecture["data"]["test"],
            "curve": [(r["step"] * shape["seconds"], r["validation"]["nll"], r["validation"]["force_rmse"])
                      for r in records if "validation" in r]}


def starting_points(frames, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Held-out frames, far from each other in time, with thermal velocities."""
    all_positions = np.concatenate(frames.positions)
    system = systems.force_field_system()
    return [(all_positions[index].astype(float), maxwell_velocities(system, TEMPERATURE, np.random.default_rng(seed)))
            for seed, index in enumerate(np.linspace(0, len(all_positions) - 1, count).astype(int))]


def conservation(system: openmm.System, starts, arguments) -> dict:
    """Mean fluctuation at each step size, kJ/mol per degree of freedom, None where a run explodes, and the exponent if none does."""
    degrees = analysis.degrees_of_freedom(system)
    fluctuations = np.full((len(starts), len(STEP_SIZES)), np.inf)
    for column, step in enumerate(STEP_SIZES):
        context = systems.context(system, "CPU", starts[0][0], threads=1, integrator=openmm.VerletIntegrator(step / 1000))
        every = max(1, round(5 / step))    # 5 fs
        count = max(3, round(1000 * arguments.picoseconds / (every * step)))
        for line, (positions, velocities) in enumerate(tqdm(starts, desc=f"{step:g} fs", unit="start", leave=False, disable=arguments.quiet)):
            context.setTime(0)
            context.setPositions(positions)
            context.setVelocities(velocities)
            times, energies = np.empty(count), np.empty(count)
            try:
                for sample in range(count):
                    context.getIntegrator().step(every)
                    state = context.getState(energy=True)
                    times[sample] = state.getTime().value_in_unit(unit.picosecond)
                    energies[sample] = (state.getPotentialEnergy() + state.getKineticEnergy()).value_in_unit(unit.kilojoule_per_mole)
                fluctuations[line, column] = analysis.energy_conservation(times, energies, degrees).fluctuation
            except (openmm.OpenMMException, ValueError):
                break    # has exploded
    result = {"stepSizes": STEP_SIZES, "fluctuations": [f if np.isfinite(f) else None for f in fluctuations.mean(axis=0).tolist()]}
    if np.isfinite(fluctuations).all():
        result["exponent"], result["exponentError"] = analysis.step_size_exponent(STEP_SIZES, fluctuations)
    return result


def effective_samples(path: Path, count: int) -> dict:
    model = FlowModel.load(path)
    positions, log_prob = model.sample(count, seed=1)
    energies = PotentialEnergy(systems.force_field_system(), model.num_particles)(positions)
    quality = reweighting.quality(reweighting.log_weights(log_prob, energies, TEMPERATURE))
    return {"fraction": quality.effective_samples / count, "largestShare": quality.largest_share, "paretoK": quality.pareto_k}


def speed(models: dict[str, str], arguments, starts) -> dict:
    """Processor microseconds of a step of Langevin dynamics, all in turns."""
    with one_core():
        contexts = {name: systems.context(systems.flow_system(arguments.output / path), "CPU", starts[0][0], threads=1)
                    for name, path in models.items()}
        steps = 50
        timings = timing.interleaved({name: (lambda c=c: c.getIntegrator().step(steps)) for name, c in contexts.items()}, seconds=2.0)
    return {name: 1e6 * value.cpu / steps for name, value in timings.items()}


def row(name: str, results: dict) -> str:
    """A line of the table, with gaps for what is not done."""
    own = results[name]
    trained = own.get("training")
    cells = [name]
    cells += [f"{trained['parameters']:,}", f"{trained['steps']:,}", f"{trained['nll']:.2f}", f"{trained['force_rmse']:.1f}"] if trained else [""] * 4
    if "conservation" in own:
        fluctuations = own["conservation"]["fluctuations"]
        cells += [f"{f:.2g}" if is_conserved(f) else "explodes" for f in fluctuations]
        cells.append(f"{own['conservation']['exponent']:.2f} ± {own['conservation']['exponentError']:.2f}" if all(map(is_conserved, fluctuations)) else "")
    else:
        cells += [""] * 4
    cells.append(f"{100 * own['samples']['fraction']:.2g}" if "samples" in own else "")
    time_of_step = results.get("all", {}).get("speed", {}).get(name)
    cells.append(f"{time_of_step:.0f}" if time_of_step else "")
    return "| " + " | ".join(cells) + " |"


def is_conserved(fluctuation: float | None) -> bool:
    """Whether a run has kept its energy at all: to within k_BT per degree of freedom."""
    return fluctuation is not None and fluctuation < dataset.MOLAR_GAS_CONSTANT * TEMPERATURE


def entries(results: dict) -> list[str]:
    """What was compared, further seeds next to their first."""
    return [entry for name in (*CONTESTANTS, FORCE_FIELD) for entry in results
            if results[entry] and (entry == name or re.fullmatch(re.escape(name) + r", seed \d+", entry))]


def table(results: dict) -> list[str]:
    return ["| transformer | parameters | steps | -ln p, k_BT | force RMSE, k_BT/nm | fluctuation at 0.5 fs | 1 fs | 2 fs, kJ/mol | exponent | "
            "effective samples, % | µs a step |", "|" + "---|" * 11, *(row(entry, results) for entry in entries(results))]


def write_page(docs: Path, results: dict, settings: dict):
    """Table, figures and plots of docs/transformers.md."""
    folder = docs / "transformers"
    folder.mkdir(exist_ok=True)
    lines = [f"{settings['seconds']:g} s of processor time each, batches of {settings['batch']}; {settings['starts']} starts of "
             f"{settings['picoseconds']:g} ps for each fluctuation, {settings['samples']:,} samples.", "", *table(results), ""]
    page = docs / "transformers.md"
    atomic.write_bytes(page, MARK.sub(lambda match: match[1] + "\n".join(lines) + match[2], page.read_text()).encode())
    atomic.write_json(folder / "transformers.json", {"settings": settings, "results": results})
    plot_training(results).savefig(folder / "training.png", dpi=110)
    plot_conservation(results).savefig(folder / "conservation.png", dpi=110)


def style(entry: str) -> dict:
    """A colour for each contestant; further seeds have that of the first, and no label."""
    if entry == FORCE_FIELD:
        return {"color": "black", "linestyle": "--", "label": entry}
    name = entry if entry in CONTESTANTS else entry.rsplit(", seed", 1)[0]
    return {"color": f"C{list(CONTESTANTS).index(name)}"} | ({"label": name} if entry == name else {"alpha": 0.5})


def plot_training(results: dict) -> Figure:
    figure = Figure(figsize=(10, 4), layout="constrained")
    trained = [name for name in entries(results) if "training" in results[name]]
    for panel, column, label in zip(figure.subplots(1, 2), (1, 2), ("-ln p / k_BT", "force RMSE / (k_BT/nm)")):
        for name in trained:
            curve = np.array(results[name]["training"]["curve"])
            panel.plot(curve[:, 0], curve[:, column], marker="o", markersize=3, **style(name))
        if column == 1:    # what has not been learned at all would hide the rest
            best = min(min(point[1] for point in results[name]["training"]["curve"]) for name in trained)
            panel.set_ylim(best - 0.5, best + 12)
        panel.set(xlabel="processor time / s", ylabel=f"{label}, validation", yscale="log" if column == 2 else "linear")
        panel.grid(color="0.9")
        panel.legend()
    return figure


def plot_conservation(results: dict) -> Figure:
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    panel = figure.subplots()
    for name in entries(results):
        if "conservation" in results[name]:
            values = [f if is_conserved(f) else np.nan for f in results[name]["conservation"]["fluctuations"]]
            if not np.isfinite(values).any():
                continue
            panel.plot(STEP_SIZES, values, marker="o", **style(name))
    reference = results.get(FORCE_FIELD, {}).get("conservation", {}).get("fluctuations")
    if reference:
        panel.plot(STEP_SIZES, reference[0] * (np.array(STEP_SIZES) / STEP_SIZES[0])**2, color="0.7", label="~ Δt²")
    panel.set(xscale="log", yscale="log", xlabel="step / fs", ylabel="fluctuation of the total energy / (kJ/mol)",
              title="per degree of freedom; what explodes is not shown")
    panel.set_xticks(STEP_SIZES, [f"{s:g}" for s in STEP_SIZES])
    panel.minorticks_off()
    panel.grid(color="0.9")
    panel.legend()
    return figure


if __name__ == "__main__":
    main()
