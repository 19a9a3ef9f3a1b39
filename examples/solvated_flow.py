# SPDX-License-Identifier: MIT
"""A flow that was trained in vacuum as one part of a solvated system: N-methylacetamide in water.

    python examples/solvated_flow.py -o runs/solvated_flow

makes data of the molecule in vacuum, trains a flow on it (openmmflow_training), puts it into a box of TIP3P water in place of the molecule's own
force field, and runs dynamics of both, the mixed System and the force field. Compared are how water is arranged about the carbonyl
oxygen, and the molecule's own energy. The force field that the flow learned is ff14SB, so the two should agree. The temperature, how often the
molecule left the flow's support, and whether the energy of the mixed System is what its parts add up to are told, too. Every step is a function, to be
used alone; what is there already is not made again.
"""
import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openmm
from matplotlib.figure import Figure
from openmm import app, unit
from openmmflow import FlowForce, FlowModel, analysis, atomic, builder, dataset, plots, replaceMolecule
from openmmflow.benchmark import machine

STRUCTURE = Path(__file__).parent / "molecules" / "ace-nme.pdb"
FORCE_FIELD = ("amber14/protein.ff14SB.xml", "amber14/tip3p.xml")
FLOW = builder.FlowOptions(width=48, depth=2, bond_rounds=2, shape_rounds=3, torsion_rounds=2)


def make_data(path: Path, *, frames: int = 8_000, progress: bool = True, **options) -> Path:
    """Data of the molecule in vacuum: positions, forces, and forces a time step ahead and behind. Options are those of make_molecule_dataset."""
    options = {"highest_temperature": 450.0, "replicas": 2, "steps_per_frame": 150, **options}
    return dataset.make_molecule_dataset(path, app.PDBFile(str(STRUCTURE)), frames=frames, force_field=FORCE_FIELD[:1], environment="vacuum",
                                         progress=progress, **options)


def train(data: Path, model: Path, *, minutes: float | None = 3.0, steps: int | None = None, progress: bool = True) -> Path:
    """A flow of the molecule in vacuum, trained for some minutes, or steps of the optimizer."""
    from openmmflow_training import TrainingConfig, train

    config = TrainingConfig(minutes=None if steps else minutes, steps=steps, batch=128, learning_rate=3e-3, force_start=0.3, force_weight=1e-3, roughness_start=0.5,
                            roughness_weight=0.02, flow=FLOW)
    return train(app.PDBFile(str(STRUCTURE)).topology, [data], model, config, progress=progress)


def solvate(*, box: float = 2.4) -> tuple[app.Topology, unit.Quantity, openmm.System, list[int]]:
    """Topology, positions and System (PME, rigid water) of the molecule in a cubic box of water, nm; and the molecule's atoms."""
    pdb = app.PDBFile(str(STRUCTURE))
    field = app.ForceField(*FORCE_FIELD)
    modeller = app.Modeller(pdb.topology, pdb.positions)
    modeller.addSolvent(field, boxSize=openmm.Vec3(box, box, box) * unit.nanometer)
    system = field.createSystem(modeller.topology, nonbondedMethod=app.PME, nonbondedCutoff=1.0 * unit.nanometer)
    return modeller.topology, modeller.positions, system, list(range(pdb.topology.getNumAtoms()))


@dataclass(frozen=True)
class Trajectory:
    """Frames of a run."""

    positions: np.ndarray
    """(frames, particles, 3), nm."""
    temperature: np.ndarray
    """(frames,), K."""
    potential: np.ndarray
    """Potential energies (frames,), kJ/mol."""
    exits: int
    """Evaluations outside of the inner support of the System's flow, those of the equilibration left out."""


def run(topology: app.Topology, positions, system: openmm.System, *, picoseconds: float, equilibration: float = 5.0, interval: int = 50,
        temperature: float = 300.0, seed: int = 1, platform: str = "CPU") -> Trajectory:
    """NVT dynamics with steps of 1 fs, a frame every ``interval`` steps."""
    integrator = openmm.LangevinMiddleIntegrator(temperature, 2.0, 0.001)
    integrator.setRandomNumberSeed(seed)
    simulation = app.Simulation(topology, system, integrator, openmm.Platform.getPlatformByName(platform))
    context = simulation.context
    context.setPositions(positions)
    simulation.minimizeEnergy(maxIterations=100)
    context.setVelocitiesToTemperature(temperature, seed)
    simulation.step(int(equilibration * 1000))
    flows = [FlowForce.cast(force) for force in system.getForces() if FlowForce.isinstance(force)]
    before = sum(flow.getNumSupportExits(context) for flow in flows)
    # The centre of mass is held in place.
    degrees = analysis.degrees_of_freedom(system) - 3
    frames, temperatures, potentials = [], [], []
    for _ in range(int(picoseconds * 1000) // interval):
        simulation.step(interval)
        state = context.getState(positions=True, energy=True)
        frames.append(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
        temperatures.append(2 * state.getKineticEnergy()._value / degrees / dataset.MOLAR_GAS_CONSTANT)
        potentials.append(state.getPotentialEnergy()._value)
    return Trajectory(np.array(frames), np.array(temperatures), np.array(potentials),
                      sum(flow.getNumSupportExits(context) for flow in flows) - before)


def _distances(topology: app.Topology, frames: np.ndarray) -> np.ndarray:
    """Of each oxygen of water from the carbonyl oxygen, (frames, waters), nm."""
    oxygen = next(atom.index for atom in topology.atoms() if atom.name == "O" and atom.residue.name == "ACE")
    water = [atom.index for atom in topology.atoms() if atom.name == "O" and atom.residue.name == "HOH"]
    edges = np.array(topology.getUnitCellDimensions().value_in_unit(unit.nanometer))
    separation = frames[:, water] - frames[:, [oxygen]]
    return np.linalg.norm(separation - edges * np.round(separation / edges), axis=-1)


def radial_distribution(topology: app.Topology, frames: np.ndarray, *, bins: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Distances (nm) and g(r) of water's oxygen about the carbonyl oxygen."""
    edges = np.array(topology.getUnitCellDimensions().value_in_unit(unit.nanometer))
    distances = _distances(topology, frames)
    counts, limits = np.histogram(distances, bins, (0, min(edges) / 2))
    shells = 4 / 3 * np.pi * np.diff(limits**3)
    return (limits[1:] + limits[:-1]) / 2, counts / len(frames) / shells / (distances.shape[1] / np.prod(edges))


def internal_energies(frames: np.ndarray) -> np.ndarray:
    """Energies (kJ/mol) of the molecule alone in the force field that the flow learned, (frames,)."""
    pdb = app.PDBFile(str(STRUCTURE))
    context = openmm.Context(app.ForceField(*FORCE_FIELD[:1]).createSystem(pdb.topology), openmm.VerletIntegrator(0.001),
                             openmm.Platform.getPlatformByName("Reference"))
    result = []
    for x in frames:
        context.setPositions(x[:pdb.topology.getNumAtoms()])
        result.append(context.getState(energy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole))
    return np.array(result)


def potential_energies(system: openmm.System, frames: np.ndarray) -> np.ndarray:
    """Potential energies (frames,) of a System in kJ/mol, on the Reference platform."""
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    result = []
    for x in frames:
        context.setPositions(x)
        result.append(context.getState(energy=True).getPotentialEnergy()._value)
    return np.array(result)


def unaccounted_energies(system: openmm.System, mixed: openmm.System, model: FlowModel, atoms: list[int], frames: np.ndarray) -> np.ndarray:
    """E(mixed) - [E(system) - E(molecule alone) + U(flow)] at frames, (frames,), kJ/mol: 0 but for rounding.

    The molecule must be whole in the frames, and its flow evaluated within the support.
    """
    flow = -dataset.MOLAR_GAS_CONSTANT * model.temperature * model.log_prob(frames[:, atoms])
    return potential_energies(mixed, frames) - (potential_energies(system, frames) - internal_energies(frames[:, atoms]) + flow)


def neighbours(topology: app.Topology, frames: np.ndarray, *, distance: float = 0.35) -> np.ndarray:
    """How many oxygens of water are within a distance (nm) of the carbonyl oxygen, (frames,)."""
    return np.count_nonzero(_distances(topology, frames) < distance, axis=1)


def compare(model: Path, *, picoseconds: float, box: float = 2.4, **options) -> dict[str, dict]:
    """Structure of the water, the molecule's own energies, and the state of dynamics, of the mixed System and of the force field. Options are those of
    :func:`run`."""
    topology, positions, system, atoms = solvate(box=box)
    flow = FlowModel.load(str(model))
    mixed = replaceMolecule(system, atoms, flow)
    results = {}
    for name, which in (("flow in water", mixed), ("force field", system)):
        trajectory = run(topology, positions, which, picoseconds=picoseconds, **options)
        distance, g = radial_distribution(topology, trajectory.positions)
        results[name] = {"distance": distance, "g": g, "neighbours": neighbours(topology, trajectory.positions),
                         "energy": internal_energies(trajectory.positions), "temperature": trajectory.temperature,
                         "potential": trajectory.potential, "exits": trajectory.exits}
        if which is mixed:
            few = trajectory.positions[::max(1, len(trajectory.positions) // 10)]
            results[name]["unaccounted"] = unaccounted_energies(system, mixed, flow, atoms, few)
    return results


def summary(results: dict[str, dict]) -> dict[str, dict]:
    """Means with standard errors, from blocks of the run."""
    figures = {}
    for name, result in results.items():
        peak = result["g"].argmax()
        figures[name] = {"first peak of g(r)": round(result["g"][peak], 2), "at (nm)": round(result["distance"][peak], 3), **{
            label: dict(zip(("mean", "error"), (round(float(x), 3) for x in analysis.mean_and_error(result[key], blocks=10))))
            for label, key in (("oxygens of water within 0.35 nm", "neighbours"), ("energy of the molecule in ff14SB (kJ/mol)", "energy"),
                               ("temperature (K)", "temperature"), ("potential energy (kJ/mol)", "potential"))}}
        figures[name]["spread of the energy of the molecule (kJ/mol)"] = round(float(result["energy"].std()), 2)
        halves = np.array_split(result["potential"], 2)
        figures[name]["potential energy, second half minus first (kJ/mol)"] = round(float(halves[1].mean() - halves[0].mean()), 1)
        if "unaccounted" in result:
            figures[name]["evaluations outside of the inner support"] = result["exits"]
            figures[name]["largest unaccounted energy (kJ/mol)"] = float(f"{np.abs(result['unaccounted']).max():.1e}")
    return figures


def plot(path: Path, results: dict[str, dict[str, np.ndarray]]) -> None:
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for colour, (name, result) in zip(plots.COLOURS, results.items()):
        left.plot(result["distance"], result["g"], color=colour, label=name)
        right.hist(result["energy"], 40, density=True, histtype="step", color=colour, label=name)
    left.set(xlabel="distance of water's oxygen from the carbonyl oxygen / nm", ylabel="g(r)")
    right.set(xlabel="energy of the molecule in ff14SB / (kJ/mol)", ylabel="density")
    left.legend(frameon=False)
    plots.save(figure, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/solvated_flow"), help="folder")
    parser.add_argument("--frames", type=int, default=8_000, help="of data")
    parser.add_argument("--minutes", type=float, default=3.0, help="of training")
    parser.add_argument("--picoseconds", type=float, default=100.0, help="of dynamics of each System")
    parser.add_argument("--platform", default="CPU")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    data, model = options.output / "vacuum.h5", options.output / "vacuum.safetensors"
    make_data(data, frames=options.frames)
    if not model.exists():
        train(data, model, minutes=options.minutes)
    results = compare(model, picoseconds=options.picoseconds, platform=options.platform)
    figures = summary(results)
    for name, rows in figures.items():
        print(f"\n{name}")
        for label, value in rows.items():
            print(f"  {label}: " + (f"{value['mean']} ± {value['error']}" if isinstance(value, dict) else str(value)))
    atomic.write_json(options.output / "solvated_flow.json", {"model": FlowModel.load(str(model)).checksum, "picoseconds": options.picoseconds,
                                                              "platform": options.platform, **figures, "machine": machine.description()})
    plot(options.output / "solvated_flow.png", results)


if __name__ == "__main__":
    main()
