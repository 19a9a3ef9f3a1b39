# SPDX-License-Identifier: MIT
"""Coarse graining: a flow of the heavy atoms of alanine dipeptide as their potential of mean force, and dynamics in it.

    python examples/coarse_graining.py DATA.h5 -o runs/coarse_graining --minutes 3

DATA.h5 is a data set of `openmmflow dataset`; the training needs the package openmmflow_training. Ten atoms of 22 remain.
Writes the model, the run, and coarse_graining.png: the map of φ and ψ, and the free energy of ψ, of all atoms' data, of the
coarse dynamics and of samples.
"""
import argparse
from pathlib import Path

import h5py
import numpy as np
from matplotlib.figure import Figure
from openmm import app
from openmmflow import FlowModel, analysis, coarse_graining, dataset, plots
from openmmflow.simulate import flow_molecule, simulate
from openmmflow.stored_run import Settings
from openmmflow.trajectory import read_positions


def prepare(data: Path, folder: Path) -> tuple[Path, Path, list[int]]:
    """Structure and data of the heavy atoms, as files in the folder."""
    pdb = dataset.alanine_dipeptide()
    heavy = coarse_graining.heavy_atoms(pdb.topology)
    topology = coarse_graining.subset_topology(pdb.topology, heavy)
    structure = folder / "heavy_atoms.pdb"
    with open(structure, "w") as file:
        app.PDBFile.writeFile(topology, pdb.getPositions(asNumpy=True)[heavy], file)
    return structure, coarse_graining.subset_dataset(data, folder / "heavy_atoms.h5", heavy), heavy


def plot(path: Path, all_atoms, coarse, samples):
    """All series are (φ, ψ) in radian."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    maps = figure.subplots(1, 3)
    for axis, colour, name, (phi, psi) in zip(maps, plots.COLOURS, ("all atoms, data", "heavy atoms, FlowForce"), (all_atoms, coarse)):
        axis.scatter(np.degrees(phi), np.degrees(psi), s=2, color=colour, alpha=0.2, linewidths=0, rasterized=True)
        axis.set(title=f"{name}: {len(phi)} frames", xlabel="φ / °", ylabel="ψ / °", xlim=(-180, 180), ylim=(-180, 180), aspect="equal")
    names = ("all atoms, data", "heavy atoms, FlowForce", "heavy atoms, samples of the flow")
    for name, colour, (phi, psi) in zip(names, plots.COLOURS, (all_atoms, coarse, samples)):
        values, centres = coarse_graining.torsion_free_energy(psi)
        maps[2].plot(centres, values, color=colour, label=name)
    maps[2].set(xlabel="ψ / °", ylabel="free energy / k_BT", xlim=(-180, 180))
    maps[2].legend(frameon=False)
    plots.save(figure, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("data", type=Path, help="data set of alanine dipeptide")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/coarse_graining"), help="folder")
    parser.add_argument("--minutes", type=float, default=3.0, help="of training")
    parser.add_argument("--steps", type=int, default=200_000, help="of dynamics, 2 fs each")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    structure, data, heavy = prepare(options.data, options.output)

    from openmmflow_training import train
    from openmmflow_training.trainer import TrainingConfig

    model_path = options.output / "heavy_atoms.safetensors"
    if not model_path.exists():
        from openmmflow.builder import FlowOptions

        train(app.PDBFile(str(structure)).topology, [data], model_path,
              TrainingConfig(minutes=options.minutes, threads=1, force_weight=1e-3, flow=FlowOptions(width=64, depth=2, components=6)))
    model = FlowModel.load(model_path)

    # Without hydrogens the fastest motion is a C=O bond: 2 fs resolve it as 1 fs does those of hydrogens.
    settings = Settings(step_size=2.0, temperature=model.temperature, friction=5.0, platform="CPU", report_interval=100, trajectory_interval=50)
    simulate(options.output / "run", flow_molecule(model_path, structure), settings, options.steps)

    with h5py.File(data, "r") as file:
        frames = file["positions"][:]
    torsions, = analysis.backbone_torsions(app.PDBFile(str(structure)).topology)
    coarse = read_positions(options.output / "run" / "trajectory.dcd")
    samples, _ = model.sample(len(frames), seed=1)
    series = [tuple(analysis.torsion_angles(x, atoms) for atoms in torsions) for x in (frames, coarse, samples)]
    plot(options.output / "coarse_graining.png", *series)
    for name, x, (phi, psi) in zip(("data", "dynamics", "samples"), (frames, coarse, samples), series):
        bond = np.linalg.norm(x[:, 1] - x[:, 0], axis=-1)
        extended = np.mean(np.abs(psi) > np.radians(90))
        print(f"{name}: mean of the first bond {bond.mean():.5f} nm (spread {bond.std():.5f}), population of |ψ| > 90° {extended:.3f}, of φ > 0 "
              f"{analysis.in_alpha_l(phi).mean():.3f}")
    print(f"{len(heavy)} atoms at {model.temperature:g} K; model, run and coarse_graining.png are in {options.output}")


if __name__ == "__main__":
    main()
