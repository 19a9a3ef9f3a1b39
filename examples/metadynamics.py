# SPDX-License-Identifier: MIT
"""Metadynamics over what a flow knows: -ln p as the collective variable of OpenMM's Metadynamics class.

    python examples/metadynamics.py -o runs/metadynamics --steps 500000

Runs alanine dipeptide in the shipped flow, with a well-tempered bias on -ln p. As a flow can also be sampled directly, the free energy of
the variable is known from independent samples: the plot shows both, and φ along the run. The bias flattens the distribution of the energy,
whatever the barriers are made of: nothing is said about φ. A bias that takes the molecule out of the flow's support would bias walls, so it grows
gently, and the support exits are printed.
"""
import argparse
from pathlib import Path

import numpy as np
import openmm
from matplotlib.figure import Figure
from openmm import app, unit
from openmmflow import FlowForce, FlowModel, analysis, collective_variables, dataset, plots, shipped

BINS = 60


def variable_of(model: FlowModel) -> tuple[app.BiasVariable, np.ndarray]:
    """The variable, and its values in independent samples of the flow."""
    values = -model.sample(5000, seed=1)[1]
    # The bias is defined between these; far enough out that the dynamics does not leave them.
    reach = 10 * values.std()
    return app.BiasVariable(collective_variables.negative_log_prob(model, range(22)), values.mean() - reach, values.mean() + reach,
                            0.3 * values.std(), gridWidth=400), values


def run(steps: int, *, equilibration: int = 3000, seed: int = 1, report_interval: int = 100, platform: str = "Reference") -> dict:
    """Free energies (k_BT) of the variable by metadynamics and by sampling; values of the variable, frames (nm) and φ (radian) along the run; how
    often φ went between its basins, and how often the molecule was outside of the inner support."""
    model = FlowModel.load(shipped.MODEL)
    pdb = dataset.alanine_dipeptide()
    system = openmm.System()
    for atom in pdb.topology.atoms():
        system.addParticle(atom.element.mass)
    flow = FlowForce(model)
    flow.addMolecule(range(22))
    system.addForce(flow)
    variable, samples = variable_of(model)
    bias = app.Metadynamics(system, [variable], model.temperature, biasFactor=3.0, height=0.25, frequency=200)

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

    edges = np.linspace(*np.quantile(samples, [0.002, 0.998]), BINS + 1)
    centres = (edges[1:] + edges[:-1]) / 2
    grid = np.linspace(variable.minValue, variable.maxValue, variable.gridWidth)
    free_energy = np.interp(centres, grid, bias.getFreeEnergy().value_in_unit(unit.kilojoule_per_mole)) / (
        dataset.MOLAR_GAS_CONSTANT * model.temperature)
    density = np.histogram(samples, edges, density=True)[0]
    weights = density / density.sum()
    exact = -np.log(np.maximum(density, 1e-12))
    shift = np.sum(weights * (free_energy - exact))
    atoms, _ = analysis.backbone_torsions(pdb.topology)[0]
    phi = analysis.torsion_angles(np.array(frames), atoms)
    return {"centres": centres, "free_energy": free_energy - shift, "exact": exact, "weights": weights, "values": np.array(values),
            "frames": np.array(frames), "phi": phi, "exits": flow.getNumSupportExits(simulation.context) - exits, "crossings": int(np.count_nonzero(np.diff(analysis.in_alpha_l(phi))))}


def plot(path: Path, result: dict) -> None:
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(result["centres"], result["exact"], color=plots.COLOURS[0], label="independent samples")
    left.plot(result["centres"], result["free_energy"], color=plots.COLOURS[1], label="metadynamics")
    left.set(xlabel="-ln p", ylabel="free energy / k_BT")
    left.legend(frameon=False)
    right.plot(np.degrees(result["phi"]), ".", markersize=2, color=plots.COLOURS[0])
    right.set(xlabel="frame", ylabel="φ / °", ylim=(-180, 180))
    plots.save(figure, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/metadynamics"), help="folder")
    parser.add_argument("--steps", type=int, default=500_000, help="of 1 fs")
    parser.add_argument("--platform", default="Reference")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    result = run(options.steps, platform=options.platform)
    difference = np.sqrt(np.sum(result["weights"] * (result["free_energy"] - result["exact"])**2))
    print(f"{options.steps} steps: the free energy of -ln p differs from that of independent samples by {difference:.2f} k_BT (root mean square); "
          f"φ crossed {result['crossings']} times; {result['exits']} support exits")
    plot(options.output / "metadynamics.png", result)


if __name__ == "__main__":
    main()
