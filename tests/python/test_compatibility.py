# SPDX-License-Identifier: MIT
"""Files of every released format version load for ever, with the energies that they had then.

Each folder of tests/data has a model file, a System with a FlowForce as XML, and what they gave when they were written: by
``python test_compatibility.py FOLDER``, once, before a release that changes a format. The folders are never written again.
"""
import itertools
import json
import os
import re
import shutil
import subprocess
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
    assert sorted(set(versions)) == versions == list(range(1, len(versions) + 1))
    assert FlowModel.load(shipped.MODEL).architecture["version"] in versions


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
    present = energies_and_forces(system, positions)
    for (energy, forces), old, old_forces in zip(present, expected["energies"], expected["forces"]):
        assert energy == pytest.approx(old, rel=1e-9, abs=1e-8)
        worst = max(worst, np.abs(forces - old_forces).max() / np.abs(old_forces).max())
    print(f"{folder.name}: {len(positions)} energies as they were, largest difference of a force {worst:.1e}")
    assert worst < 1e-8


def test_under_another_version_of_openmm(tmp_path):
    """A library that says another version in OpenMM's place: OpenMM is whole, FlowForce registered nowhere, and `openmmflow info` says why."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler, for the library that pretends to be another OpenMM")
    (tmp_path / "other.cpp").write_text("""
#include <string>
namespace OpenMM { struct Platform { static const std::string& getOpenMMVersion(); }; }
const std::string& OpenMM::Platform::getOpenMMVersion() {
    static const std::string version = "99.1.2";
    return version;
}
""")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", tmp_path / "libother.so", tmp_path / "other.cpp"], check=True)
    code = """
import openmm, openmmflow
system = openmm.System()
system.addParticle(1)
force = openmm.CustomExternalForce("x^2")
force.addParticle(0)
system.addForce(force)
for name in ("Reference", "CPU"):
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName(name))
    context.setPositions([[3, 0, 0]])
    assert context.getState(energy=True).getPotentialEnergy()._value == 9
    assert openmmflow.why_not_supported(name), name
from openmmflow import command_line
command_line.main(["info"])
"""
    found = subprocess.run([sys.executable, "-c", code], env={**os.environ, "LD_PRELOAD": str(tmp_path / "libother.so")},
                           capture_output=True, text=True)
    print(found.stdout)
    assert found.returncode == 0, found.stderr
    assert "OpenMM 99.1.2" in found.stdout and "built for OpenMM 8." in found.stdout
    assert not re.search("(Reference|CPU) +yes", found.stdout)


def test_models_temperatures_and_platforms_share_a_process():
    """Contexts of three models, two temperatures and every platform, alive and evaluated in turn: the energies of
    a Context that is alone."""
    from random_flow import conformations, random_flow

    cases = [(FlowModel.from_bytes(model_file.pack(*random_flow(seed=seed, particles=particles))),
              conformations(seed, 3, particles)) for seed, particles in ((1, 4), (2, 6), (3, 5))]
    names = [openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())]
    names = [name for name in names if not openmmflow.why_not_supported(name)]
    contexts, unused = [], []
    for (model, positions), temperature, name in itertools.product(cases, (280.0, 350.0), names):
        system = openmm.System()
        for _ in range(model.num_particles):
            system.addParticle(12.0)
        force = FlowForce(model)
        force.setTemperature(temperature)
        system.addForce(force)
        properties = {"Precision": "mixed"} if name in ("OpenCL", "CUDA", "HIP") else {}
        try:
            context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName(name), properties)
        except openmm.OpenMMException as error:    # a GPU platform without a GPU
            unused.append(f"{name}: {error}")
            continue
        contexts.append((context, positions, [-log_prob * openmm.unit.MOLAR_GAS_CONSTANT_R._value * 1e-3 * temperature
                                              for log_prob in model.log_prob(positions)]))
    for frame in (0, 2, 1):
        for context, positions, expected in contexts:
            context.setPositions(positions[frame])
            energy = context.getState(energy=True).getPotentialEnergy()._value
            assert energy == pytest.approx(expected[frame], abs=1e-2), context.getPlatform().getName()
    print(f"{len(contexts)} Contexts of {len(cases)} models, 2 temperatures and platforms {', '.join(names)}", *unused)
    assert len(contexts) >= 12


def internal_coordinates_model():
    """Of version 1: architecture, tensors, conformations within its support, constraints."""
    from random_flow import conformations, random_flow

    constraints = [[0, 1, 0.15]]
    return (*random_flow(seed=11, particles=5, temperature=310.0, constraints=constraints, dtype=np.float32),
            conformations(seed=3, count=4, particles=5), constraints)


def mixed_coordinates_model():
    """Of version 2: a block in Cartesians, every elementwise layer and every transformer."""
    from random_architecture import TRANSFORMERS, RandomArchitecture

    drawn = RandomArchitecture(12, 7, measure="cartesian", block=4, count=4)
    for kind in ("permutation", "affineNormalization", "circularShift"):
        drawn.add_elementwise(kind)
    drawn.add_marginals("uniform", all_coordinates=False)
    drawn.add_coupling("affine")
    drawn.add_elementwise("logit")
    drawn.add_elementwise("logistic")
    for transformer in ("smoothMixture", *(sorted(set(TRANSFORMERS) - {"affine"}))):
        drawn.add_coupling(transformer, hidden_layers=1)
    return (*drawn.model(), drawn.positions, [])


MODELS = {"version1": internal_coordinates_model, "version2": mixed_coordinates_model}


def write(folder: Path):
    """Make the files of the version that the folder is named after."""
    architecture, tensors, inside, constraints = MODELS[folder.name]()
    folder.mkdir(parents=True)
    model_file.write(folder / MODEL, architecture,
                     {name: tensor.astype(np.float32) if "networks" in name else tensor for name, tensor in tensors.items()})
    model = FlowModel.load(folder / MODEL)
    system = openmm.System()
    for _ in range(model.num_particles):
        system.addParticle(12.0)
    for constraint in constraints:
        system.addConstraint(*constraint)
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
    # Beyond the edges, near collinear triples, and garbage
    positions = np.concatenate([inside, 1.25 * inside[:2], inside[2:3] * [1, 1, 0.3],
                                np.random.default_rng(5).uniform(0, 0.4, (3, model.num_particles, 3))])
    log_prob, gradient = model.log_prob_and_gradient(positions)
    finite = np.isfinite(log_prob)
    energies, forces = zip(*energies_and_forces(system, positions))
    (folder / EXPECTED).write_text(json.dumps({
        "openmmflow": openmmflow.__version__, "checksum": model.checksum, "positions": positions.tolist(),
                "inside": finite.tolist(),
        "logProb": np.where(finite, log_prob, 0).tolist(), "gradient": np.where(finite[:, None, None], gradient, 0).tolist(),
        "energies": energies, "forces": [f.tolist() for f in forces]}) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
