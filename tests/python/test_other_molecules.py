# SPDX-License-Identifier: MIT
"""From a PDB file to dynamics in the flow: a tetrapeptide, a ring, and one with constrained hydrogens."""
from pathlib import Path

import h5py
import numpy as np
import openmm
import pytest
from openmm import app, unit

import openmmflow
from openmmflow import builder, dataset

torch = pytest.importorskip("torch", reason="training needs PyTorch")
pytest.importorskip("openmmflow_training", exc_type=ImportError, reason="the training component is not installed")

from openmmflow_training import FlowModule, TrainingConfig, train  # noqa: E402
from openmmflow_training.data import read_data, split_by_time  # noqa: E402
from openmmflow_training.losses import evaluate  # noqa: E402

MOLECULES = Path(__file__).parents[2] / "examples" / "molecules"
FLOW = builder.FlowOptions(width=24, depth=1, components=4, bond_rounds=2, shape_rounds=2, torsion_rounds=2)


def shuffle(path):
    """Put the frames into random order: the run is too short for its last part to be like the first."""
    with h5py.File(path, "a") as file:
        order = np.random.default_rng(0).permutation(len(file["positions"]))
        for name in {"positions", "forces", "displacements", "displaced_forces"} & set(file):
            file[name][:] = file[name][:][order]


@pytest.mark.parametrize("name, constraints", [("ace-ala-ala-nme", "none"), ("ace-pro-nme", "none"), ("ace-pro-nme", "HBonds")])
def test_short_training(name, constraints, tmp_path):
    """Data, training and dynamics; the flow is better than the product of the marginals that it begins as."""
    pdb = app.PDBFile(str(MOLECULES / f"{name}.pdb"))
    path = dataset.make_molecule_dataset(
        tmp_path / "data.h5", pdb, frames=2500, constraints=constraints, highest_temperature=300.0, replicas=1, steps_per_frame=20,
        equilibration_frames=40, checkpoint_frames=2500, progress=False)
    shuffle(path)
    # Methyl groups have not turned evenly in so short a run, so they are left as they are.
    config = TrainingConfig(steps=200, batch=64, learning_rate=5e-3, ema=0.95, force_start=0.6, force_weight=3e-4, flow=FLOW,
                            validate_seconds=1e9, threads=1, report=False, validation=0.02, test=0.13, symmetric=False)
    output = train(pdb.topology, [path], tmp_path / "m.safetensors", config, progress=False)
    sets, _, _ = read_data([path], pdb.topology)
    training, _, test = split_by_time(sets, config.validation, config.test)
    marginals = FlowModule(builder.build(pdb.topology, training.positions.numpy(), temperature=300.0, options=FLOW))
    before, after = evaluate(marginals, test), evaluate(FlowModule(output), test)
    print(f"{name}, constraints {constraints}: marginals {before}, trained {after}")
    assert after["nll"] < before["nll"] - 1.0
    assert after["force_rmse"] < 0.8 * before["force_rmse"]

    model = openmmflow.FlowModel.load(str(output))
    if constraints != "none":
        masses = [atom.element.mass.value_in_unit(unit.dalton) for atom in pdb.topology.atoms()]
        spread = half_log_determinant(training.positions.numpy(), model.constraints, masses).std()
        print(f"what the masses of constrained bonds add to ln p varies by {spread:.4f} k_BT")
        assert 0 < spread < 0.03
    hydrogens = sum(atom.element is app.element.hydrogen for atom in pdb.topology.atoms())
    assert len(model.constraints) == (hydrogens if constraints == "HBonds" else 0)
    system = openmm.System()
    for atom in pdb.topology.atoms():
        system.addParticle(atom.element.mass)
    for i, j, distance in model.constraints:
        system.addConstraint(i, j, distance)
    system.addForce(openmmflow.FlowForce(model))
    integrator = openmm.LangevinMiddleIntegrator(300, 5.0, 0.0005)
    integrator.setRandomNumberSeed(1)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"), {"Threads": "1"})
    context.setPositions(training.positions[-1].numpy())
    context.setVelocitiesToTemperature(300, 1)
    energies = []
    for _ in range(20):
        integrator.step(20)
        energies.append(context.getState(energy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole))
    expected = -evaluate_log_prob(model, training) * 2.494
    print(f"potential energy in dynamics {np.mean(energies):.0f} kJ/mol, of the data {expected:.0f} kJ/mol")
    assert np.isfinite(energies).all() and np.mean(energies[10:]) < expected + 200.0


def half_log_determinant(positions, constraints, masses) -> np.ndarray:
    """½ ln det of the mass-weighted metric of constraints (frames,): the potential of Fixman, k_BT, up to a constant."""
    gradients = np.zeros((len(positions), len(constraints), *positions.shape[1:]))
    for index, (i, j, _) in enumerate(constraints):
        unit_vector = positions[:, i] - positions[:, j]
        unit_vector /= np.linalg.norm(unit_vector, axis=-1, keepdims=True)
        gradients[:, index, i], gradients[:, index, j] = unit_vector, -unit_vector
    weighted = (gradients / np.sqrt(masses)[:, None]).reshape(len(positions), len(constraints), -1)
    return 0.5 * np.linalg.slogdet(weighted @ weighted.transpose(0, 2, 1))[1]


def evaluate_log_prob(model, frames) -> float:
    return float(model.log_prob(frames.positions[:100].numpy()).mean())
