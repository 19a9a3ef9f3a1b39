# SPDX-License-Identifier: MIT
"""The CUDA platform with its plugin on a driver that is emulated on the processor (tests/cpp/emulator): the tests of OpenCL, and what an H200
would choose.

It is the program that users run, as far as the driver. How fast and how exact a device is nobody can tell from it.
"""
import collections
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import openmm
import pytest
from test_opencl_platform import LIMITS, molecules_system, relative_error

from openmmflow import FlowForce, FlowModel, shipped

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = REPOSITORY / "build/dev/tests/cpp/emulator/cuda.env"
SMALL_MODEL = REPOSITORY / "tests/data/alanine_dipeptide_small.safetensors"
MULTIPROCESSORS = 132
"""Of an H200."""
MOST_LAUNCHES = 12
"""Of kernels in a step."""

pytestmark = pytest.mark.skipif(not ENVIRONMENT.exists(), reason="the emulator was not built; CMake said why")


def run(*command, **variables):
    """What a program prints that takes the emulated driver for a device."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENMMFLOW_")}
    environment |= dict(line.split("=", 1) for line in ENVIRONMENT.read_text().splitlines()) | variables
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_platforms_are_listed():
    output = run("-m", "openmmflow.command_line", "info", "--platforms")
    print(f"\n{output}")
    assert "CUDA       yes" in output


def test_suite_of_the_opencl_platform():
    """OpenMM's own nonbonded forces need warps that run in step, which fibers do not."""
    suite = "tests/python/test_opencl_platform.py"
    print("\n" + run("-m", "pytest", "-q", "-p", "no:cacheprovider", suite,
                     "--deselect", f"{suite}::test_periodic_images_and_reordered_atoms[all-forces]").strip().splitlines()[-1])


EVALUATE = """
import sys
import numpy as np
import openmm
import openmmflow

folder, precision, steps = sys.argv[1:]
with open(f"{folder}/system.xml") as file:
    system = openmm.XmlSerializer.deserialize(file.read())
context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("CUDA"), {"Precision": precision})
context.setPositions(np.load(f"{folder}/positions.npy"))
np.save(f"{folder}/forces.npy", context.getState(forces=True).getForces(asNumpy=True)._value)
context.getIntegrator().step(int(steps))
"""


def evaluate(folder, model, count, precision, steps=0, **variables):
    """Forces (particles, 3) of molecules at samples of a model, on CUDA and on Reference."""
    system = molecules_system(FlowForce(model), model.num_particles, count)
    # What single precision can hold.
    positions = model.sample(count, 1)[0].reshape(-1, 3).astype(np.float32).astype(float)
    (folder / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    np.save(folder / "positions.npy", positions)
    run("-c", EVALUATE, folder, precision, str(steps), **variables)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))
    context.setPositions(positions)
    return np.load(folder / "forces.npy"), context.getState(forces=True).getForces(asNumpy=True)._value


@pytest.mark.parametrize("count", [1, MULTIPROCESSORS + 1, 5 * MULTIPROCESSORS, 9 * MULTIPROCESSORS, 17 * MULTIPROCESSORS])
def test_shapes_that_an_h200_chooses(tmp_path, count):
    """Tiles of 1, 4, 8, 16 and 32 molecules."""
    forces = evaluate(tmp_path, FlowModel.load(SMALL_MODEL), count, "mixed", EMULATOR_MULTIPROCESSORS=str(MULTIPROCESSORS))
    error = relative_error(forces)
    print(f"\n{count} molecules: force error {error:.1e} of the RMS force")
    assert error <= LIMITS["mixed"]


def test_launches_of_a_step(tmp_path):
    launches = []
    for steps in (0, 10):
        evaluate(tmp_path, FlowModel.load(shipped.MODEL), 1, "mixed", steps, EMULATOR_LAUNCHES=str(tmp_path / f"{steps}"))
        launches.append(collections.Counter((tmp_path / f"{steps}").read_text().split()))
    # Those of the set-up are in both.
    counts = {name: count / 10 for name, count in (launches[1] - launches[0]).items()}
    print(f"\n{sum(counts.values()):.1f} launches a step: " + ", ".join(f"{name} {count:g}" for name, count in counts.items()))
    assert counts["computeFlowForce"] == pytest.approx(1, abs=0.11)
    assert sum(counts.values()) <= MOST_LAUNCHES
