# SPDX-License-Identifier: MIT
"""Files of every released format version load for ever, with the energies that they had then.

Each folder of tests/data has a model file, a System with a FlowForce as XML, and what they gave when they were written: by
``python test_compatibility.py FOLDER``, once, before a release that changes a format. The folders are never written again.
"""
import json
import sys
from pathlib import Path

import numpy as np
import openmm
import pytest

import openmmflow
from openmmflow import FlowForce, FlowModel, model_file, shipped

DATA = Path(__file__).parents[1] / "data"
MODEL, XML, EXPECTED = "model.safetensors", "system.xml", "expected.json"
VERSIONS = sorted(path for path in DATA.iterdir() if path.is_dir())


def energies_and_forces(system, conformations):
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    for positions in conformations:
        context.setPositions(positions)
        state = context.getState(energy=True, forces=True)
        yield state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value


def test_there_is_a_folder_of_the_present_version():
    assert VERSIONS
    versions = [FlowModel.load(folder / MODEL).architecture["version"] for folder in VERSIONS]
    assert FlowModel.load(shipped.MODEL).architecture["version"] == max(versions)


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda folder: folder.name)
def test_released_files_load_with_the_energies_that_they_had(folder):
    expected = json.loads((folder / EXPECTED).read_text())
    positions = np.array(expected["positions"])
    model = FlowModel.load(folder / MODEL)
    assert model.checksum == expected["checksum"]
    inside = np.array(expected["inside"])
    log_prob, gradient = model.log_prob_and_gradient(positions)
    assert np.array_equal(np.isfinite(log_prob), inside)
    assert np.allclose(log_prob[inside], np.array(expected["logProb"])[inside], rtol=0, atol=1e-8)
    reference = np.array(expected["gradient"])[inside]
    assert np.allclose(gradient[inside], reference, rtol=0, atol=1e-8 * np.abs(reference).max())
    system = openmm.XmlSerializer.deserialize((folder / XML).read_text())
    assert FlowForce.cast(system.getForce(0)).getModel() == model
    worst = 0
    for (energy, forces), old, old_forces in zip(energies_and_forces(system, positions), expected["energies"], expected["forces"]):
        assert energy == pytest.approx(old, rel=1e-9, abs=1e-8)
        worst = max(worst, np.abs(forces - old_forces).max() / np.abs(old_forces).max())
    print(f"{folder.name}: {len(positions)} energies as they were, largest difference of a force {worst:.1e}")
    assert worst < 1e-8


def write(folder: Path):
    """Make the files of the present version."""
    from random_flow import conformations, random_flow

    folder.mkdir(parents=True)
    architecture, tensors = random_flow(seed=11, particles=5, temperature=310.0, constraints=[[0, 1, 0.15]], dtype=np.float32)
    model_file.write(folder / MODEL, architecture, tensors)
    model = FlowModel.load(folder / MODEL)
    system = openmm.System()
    for _ in range(model.num_particles):
        system.addParticle(12.0)
    system.addConstraint(0, 1, 0.15)
    force = FlowForce(model)
    force.addMolecule(range(model.num_particles))
    force.setTemperature(295.0)
    force.setDefaultScale(0.75)
    force.setScaleParameterName("lambda_flow")
    force.addEnergyParameterDerivative("lambda_flow")
    force.setMargins(force.getMargins()._replace(bonds=0.0015))
    force.setForceGroup(3)
    force.setUsesPeriodicBoundaryConditions(True)
    system.addForce(force)
    (folder / XML).write_text(openmm.XmlSerializer.serialize(system))
    inside = conformations(seed=3, count=4, particles=5)
    # Beyond the edges, near collinear triples, and garbage
    positions = np.concatenate([inside, 1.25 * inside[:2], inside[2:3] * [1, 1, 0.3],
                                np.random.default_rng(5).uniform(0, 0.4, (3, 5, 3))])
    log_prob, gradient = model.log_prob_and_gradient(positions)
    finite = np.isfinite(log_prob)
    energies, forces = zip(*energies_and_forces(system, positions))
    (folder / EXPECTED).write_text(json.dumps({
        "openmmflow": openmmflow.__version__, "checksum": model.checksum, "positions": positions.tolist(), "inside": finite.tolist(),
        "logProb": np.where(finite, log_prob, 0).tolist(), "gradient": np.where(finite[:, None, None], gradient, 0).tolist(),
        "energies": energies, "forces": [f.tolist() for f in forces]}) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
