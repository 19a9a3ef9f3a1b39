# SPDX-License-Identifier: MIT
"""Metadynamics in a flow, against its own independent samples: OpenMM's Metadynamics class over -ln p or over the torsion φ.

    python examples/metadynamics.py -o runs/metadynamics --variable phi --steps 1000000 --walkers 4

Runs alanine dipeptide in the shipped flow with a well-tempered bias (Barducci, Bussi and Parrinello 2008) on one variable. As a flow can also be sampled
directly, the free energy of the variable is known from independent samples: plot and JSON have both, with errors, those of metadynamics from the walkers,
which know nothing of each other.

``energy`` is -ln p, what the flow knows of a conformation: the bias flattens the distribution of the energy, whatever the barriers are made of, and
nothing is said about φ. ``phi`` is the slow torsion itself. A bias that takes the molecule out of the flow's support biases walls, so it grows
gently, the support exits are printed, and a walker that did not come back is left out.
"""
import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openmm
from matplotlib.figure import Figure
from openmm import app, unit
from openmmflow import FlowForce, FlowModel, analysis, atomic, collective_variables, dataset, plots, shipped
from openmmflow.benchmark import machine

LEAST_SAMPLES = 100
"""Of a bin that is compared."""
MOST_EXITS = 1e-3
"""Of the steps of a walker that is compared: more is no dynamics in the flow."""


@dataclass(frozen=True)
class Variable:
    """What is biased, and its values in independent samples of the flow."""

    name: str
    label: str
    bias: Callable[[], app.BiasVariable]
    """Makes one for each walker, as a System takes its Force."""
    hill: dict
    """Bias factor, height (kJ/mol) and frequency (steps)."""
    edges: np.ndarray
    """Of the bins (bins + 1,) in which free energies are compared."""
    samples: np.ndarray


def variable_of(name: str, model: FlowModel, samples: int) -> Variable:
    """``energy`` or ``phi``, with so many samples of the flow."""
    positions, log_prob = model.sample(samples, seed=1)
    if name == "energy":
        values = -log_prob
        # The bias is defined between these; far enough out that the dynamics does not leave them.
        mean, spread = values.mean(), values.std()

        def bias():
            return app.BiasVariable(collective_variables.negative_log_prob(model, range(22)), mean - 10 * spread, mean + 10 * spread, 0.3 * spread,
                                    gridWidth=400)
        return Variable(name, "-ln p", bias, {"biasFactor": 3.0, "height": 0.25, "frequency": 200},
                        np.linspace(*np.quantile(values, [0.002, 0.998]), 41), values)

    def bias():
        torsion = openmm.CustomTorsionForce("theta")
        torsion.addTorsion(*_phi_atoms(), [])
        return app.BiasVariable(torsion, -np.pi, np.pi, 0.25, periodic=True, gridWidth=181)
    return Variable(name, "φ / radian", bias, {"biasFactor": 6.0, "height": 0.8, "frequency": 500}, np.linspace(-np.pi, np.pi, 61),
                    analysis.torsion_angles(positions, _phi_atoms()))


def _phi_atoms():
    return analysis.backbone_torsions(dataset.alanine_dipeptide().topology)[0][0]


def run(variable: Variable, steps: int, *, equilibration: int = 3000, seed: int = 1, report_interval: int = 100, platform: str = "Reference") -> dict:
    """One walker: the free energy of the variable at the bins' centres (k_BT); values of the variable, frames (nm) and φ (radian) along the run; how
    often φ went between its basins, and how often the molecule was outside of the inner support."""
    model = FlowModel.load(shipped.MODEL)
    pdb = dataset.alanine_dipeptide()
    system = openmm.System()
    for atom in pdb.topology.atoms():
        system.addParticle(atom.element.mass)
    flow = FlowForce(model)
    flow.addMolecule(range(22))
    system.addForce(flow)
    biased = variable.bias()
    bias = app.Metadynamics(system, [biased], model.temperature, **variable.hill)

    integrator = openmm.LangevinMiddleIntegrator(model.temperature, 5.0, 0.001)
    integrator.setRandomNumberSeed(seed)
    simulation = app.Simulation(pdb.topology, system, integrator, openmm.Platform.getPlatformByName(platform))
    simulation.context.setPositions(pdb.positions)
    simulation.context.setVelocitiesToTemperature(model.temperature, seed)
    simulation.step(equilibration)
    exits = flow.getNumSupportExits(simulation.context)
    frames, values = [], []
    for _ in range(steps // report_interval):
        bias.step(simulation, report_interval)
        values.append(bias.getCollectiveVariables(simulation)[0])
        frames.append(simulation.context.getState(positions=True).getPositions(asNumpy=True)._value)

    grid = np.linspace(biased.minValue, biased.maxValue, biased.gridWidth)
    free_energy = np.interp(_centres(variable), grid, bias.getFreeEnergy().value_in_unit(unit.kilojoule_per_mole))
    phi = analysis.torsion_angles(np.array(frames), _phi_atoms())
    return {"free_energy": free_energy / (dataset.MOLAR_GAS_CONSTANT * model.temperature), "values": np.array(values), "frames": np.array(frames),
            "phi": phi, "exits": flow.getNumSupportExits(simulation.context) - exits,
            "crossings": int(np.count_nonzero(np.diff(analysis.in_alpha_l(phi))))}


def _centres(variable: Variable) -> np.ndarray:
    return (variable.edges[1:] + variable.edges[:-1]) / 2


def compare(variable: Variable, walkers: list[dict]) -> dict:
    """Free energies (bins,) in k_BT by metadynamics and by sampling with their standard errors, in bins with enough samples; elsewhere NaN."""
    counts = np.histogram(variable.samples, variable.edges)[0]
    known = counts >= LEAST_SAMPLES
    weights = np.where(known, counts, 0) / counts[known].sum()
    exact = np.where(known, -np.log(np.maximum(counts, 1) / counts[known].sum()), np.nan)
    # Each curve has its own constant.
    curves = np.array([walker["free_energy"] - np.nansum(weights * (walker["free_energy"] - exact)) for walker in walkers])
    mean = np.where(known, curves.mean(axis=0), np.nan)
    count = len(curves)
    error = curves.std(axis=0, ddof=1) / np.sqrt(count) if count > 1 else np.full(len(mean), np.nan)
    return {"centres": _centres(variable), "exact": exact, "exact_error": np.where(known, 1 / np.sqrt(np.maximum(counts, 1)), np.nan), "weights": weights,
            "free_energy": mean, "free_energy_error": np.where(known, error, np.nan), "curves": curves,
            "difference": float(np.sqrt(np.nansum(weights * (mean - exact)**2)))}


def basins(variable: Variable, walkers: list[dict]) -> dict:
    """-ln(P/(1-P)), k_BT, of the basin of positive φ: by each walker's free energy of φ, their mean with its standard error, and by sampling."""
    inside = analysis.in_alpha_l(_centres(variable))
    found = []
    for walker in walkers:
        population = np.exp(-walker["free_energy"])
        found.append(float(np.log(population[~inside].sum() / population[inside].sum())))
    # Independent samples: a binomial distribution.
    share = float(analysis.in_alpha_l(variable.samples).mean())
    return {"walkers": found, "mean": float(np.mean(found)), "error": float(np.std(found, ddof=1) / np.sqrt(len(found))) if len(found) > 1 else None,
            "samples": float(np.log((1 - share) / share)), "samples_error": float(1 / np.sqrt(len(variable.samples) * share * (1 - share)))}


def plot(path: Path, variable: Variable, result: dict, walkers: list[dict]) -> None:
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, key, colour in (("independent samples", "exact", plots.COLOURS[0]), ("metadynamics", "free_energy", plots.COLOURS[1])):
        left.plot(result["centres"], result[key], color=colour, label=name)
        left.fill_between(result["centres"], result[key] - result[f"{key}_error"], result[key] + result[f"{key}_error"], color=colour, alpha=0.3,
                          linewidth=0)
    left.set(xlabel=variable.label, ylabel="free energy / k_BT")
    left.legend(frameon=False)
    right.plot(np.degrees(walkers[0]["phi"]), ".", markersize=2, color=plots.COLOURS[0])
    right.set(xlabel="frame of a walker", ylabel="φ / °", ylim=(-180, 180))
    plots.save(figure, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/metadynamics"), help="folder")
    parser.add_argument("--variable", choices=("energy", "phi"), default="energy", help="-ln p, or the torsion φ")
    parser.add_argument("--steps", type=int, default=500_000, help="of 1 fs, of each walker")
    parser.add_argument("--walkers", type=int, default=4, help="independent runs")
    parser.add_argument("--samples", type=int, default=100_000, help="of the flow")
    parser.add_argument("--platform", default="Reference")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    model = FlowModel.load(shipped.MODEL)
    variable = variable_of(options.variable, model, options.samples)
    walkers = []
    for seed in range(1, options.walkers + 1):
        walkers.append(run(variable, options.steps, seed=seed, platform=options.platform))
        print(f"walker {seed}: φ crossed {walkers[-1]['crossings']} times; {walkers[-1]['exits']} support exits", flush=True)
    stayed = [walker for walker in walkers if walker["exits"] <= MOST_EXITS * options.steps]
    if not stayed:
        raise SystemExit("every walker has left the flow's support: smaller or rarer hills")
    result = compare(variable, stayed)
    print(f"{len(stayed)} of {options.walkers} walkers × {options.steps} steps: the free energy of {variable.label.split(' /')[0]} differs from that of {options.samples} independent "
          f"samples by {result['difference']:.2f} k_BT (root mean square)")
    document = {"variable": options.variable, "model": model.checksum, "steps": options.steps, "walkers": len(stayed), "hill": variable.hill, "samples": options.samples,
                "difference": result["difference"], "crossings": [walker["crossings"] for walker in walkers],
                "exits": [walker["exits"] for walker in walkers], "platform": options.platform, "machine": machine.description()}
    if options.variable == "phi":
        document["basin"] = found = basins(variable, stayed)
        print(f"basin of positive φ: {found['mean']:.2f} ± {found['error'] or np.nan:.2f} k_BT by metadynamics, "
              f"{found['samples']:.2f} ± {found['samples_error']:.2f} by samples")
    document["curve"] = {key: [None if np.isnan(x) else round(float(x), 4) for x in result[key]]
                         for key in ("centres", "exact", "exact_error", "free_energy", "free_energy_error")}
    atomic.write_json(options.output / f"metadynamics_{options.variable}.json", document)
    plot(options.output / f"metadynamics_{options.variable}.png", variable, result, stayed)


if __name__ == "__main__":
    main()
