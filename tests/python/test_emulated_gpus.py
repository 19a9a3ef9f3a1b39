# SPDX-License-Identifier: MIT
"""The CUDA and HIP platforms with their plugins on drivers that are emulated on the processor (tests/cpp/emulator): the tests of OpenCL, and
the shapes that large GPUs choose.

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
EMULATOR = REPOSITORY / "build/dev/tests/cpp/emulator"
SMALL_MODEL = REPOSITORY / "tests/data/alanine_dipeptide_small.safetensors"
SUITE = "tests/python/test_opencl_platform.py"
PLATFORMS = {"CUDA": 132, "HIP": 104}
"""And the multiprocessors of an H200 and of one half of an MI250X."""
MOST_LAUNCHES = 12
"""Of kernels in a step."""


def environment_file(platform):
    return EMULATOR / f"{platform.lower()}.env"


@pytest.fixture(params=PLATFORMS)
def platform(request):
    if not environment_file(request.param).exists():
        name = request.param.lower()
        pytest.skip(f"{request.param} is not emulated: that takes Boost.Context, GCC 12 or newer, requirements/{name}.txt in build/{name} (./dev "
                    "setup brings them where it may) and, of CUDA and HIP, the headers; cmake build/dev says which is missing")
    return request.param


def start(platform, *command, **variables):
    """A program that takes the emulated driver for a device."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENMMFLOW_")}
    environment |= dict(line.split("=", 1) for line in environment_file(platform).read_text().splitlines()) | variables
    return subprocess.Popen([sys.executable, *command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            cwd=REPOSITORY)


def output_of(program):
    output, _ = program.communicate()
    assert program.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def suites():
    """The tests of OpenCL on each platform, at the same time."""
    # OpenMM's own nonbonded forces need warps that run in step, which fibers do not.
    command = ("-m", "pytest", "-q", "-p", "no:cacheprovider", SUITE, "--deselect",
               f"{SUITE}::test_periodic_images_and_reordered_atoms[all-forces]")
    running = {platform: start(platform, *command) for platform in PLATFORMS if environment_file(platform).exists()}
    yield running
    for program in running.values():
        program.kill()


def test_platforms_are_listed(platform):
    output = output_of(start(platform, "-m", "openmmflow.command_line", "info", "--platforms"))
    print(f"\n{output}")
    assert f"{platform:<10} yes" in output


def test_suite_of_the_opencl_platform(suites, platform):
    print("\n" + output_of(suites[platform]).strip().splitlines()[-1])


EVALUATE = """
import sys
import numpy as np
import openmm
import openmmflow

name, folder, precision, steps = sys.argv[1:]
with open(f"{folder}/system.xml") as file:
    system = openmm.XmlSerializer.deserialize(file.read())
context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform(name), {"Precision": precision})
context.setPositions(np.load(f"{folder}/positions.npy"))
np.save(f"{folder}/forces.npy", context.getState(forces=True).getForces(asNumpy=True)._value)
context.getIntegrator().step(int(steps))
"""


def evaluate(platform, folder, model, count, precision, steps=0, **variables):
    """Forces (particles, 3) of molecules at samples of a model, on the platform and on Reference."""
    system = molecules_system(FlowForce(model), model.num_particles, count)
    # What single precision can hold.
    positions = model.sample(count, 1)[0].reshape(-1, 3).astype(np.float32).astype(float)
    (folder / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    np.save(folder / "positions.npy", positions)
    output_of(start(platform, "-c", EVALUATE, platform, folder, precision, str(steps), **variables))
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))
    context.setPositions(positions)
    return np.load(folder / "forces.npy"), context.getState(forces=True).getForces(asNumpy=True)._value


@pytest.mark.parametrize("per_multiprocessor", [0, 1, 5, 9, 17])
def test_shapes_that_large_gpus_choose(platform, tmp_path, per_multiprocessor):
    """Tiles of 1, 4, 8, 16 and 32 molecules."""
    multiprocessors = PLATFORMS[platform]
    count = per_multiprocessor * multiprocessors + 1
    forces = evaluate(platform, tmp_path, FlowModel.load(SMALL_MODEL), count, "mixed", EMULATOR_MULTIPROCESSORS=str(multiprocessors))
    error = relative_error(forces)
    print(f"\n{count} molecules: force error {error:.1e} of the RMS force")
    assert error <= LIMITS["mixed"]


@pytest.mark.parametrize("count, cluster", [(1, 8), (2, 8), (20, 4), (40, 2), (60, 1)])
@pytest.mark.parametrize("platform", ["CUDA"], indirect=True)
def test_clusters_share_a_molecule(platform, tmp_path, count, cluster):
    """On an H200, as many groups for each molecule as there are multiprocessors to spare."""
    file = tmp_path / "launches"
    forces = evaluate(platform, tmp_path, FlowModel.load(shipped.MODEL), count, "mixed", EMULATOR_LAUNCHES=str(file),
                      EMULATOR_MULTIPROCESSORS=str(PLATFORMS[platform]))
    groups = {int(line.split()[1]) for line in file.read_text().splitlines() if line.startswith("computeFlowForce ")}
    error = relative_error(forces)
    print(f"\n{count} molecules in clusters of {cluster}: force error {error:.1e} of the RMS force")
    assert groups == {count * cluster}
    assert error <= LIMITS["mixed"]


@pytest.mark.parametrize("precision", ["single", "mixed"])
@pytest.mark.parametrize("count, shape", [(1, "1,512,48000,8"), (1, "1,512,48000,1"), (33, "32,512")])
@pytest.mark.parametrize("platform", ["CUDA"], indirect=True)
def test_fast_math(platform, tmp_path, count, shape, precision):
    """Each operation on a float that fast math approximates is off by its documented bound, up or down (tests/cpp/FastFloat.h)."""
    arguments = platform, tmp_path, FlowModel.load(shipped.MODEL), count, precision
    # OpenMM keeps compiled kernels by their source, which is the same.
    error = relative_error(evaluate(*arguments, OPENMMFLOW_KERNEL_SHAPE=shape, EMULATOR_FAST_MATH="1", OPENMM_CACHE_DIR=str(tmp_path)))
    without = relative_error(evaluate(*arguments, OPENMMFLOW_KERNEL_SHAPE=shape))
    print(f"\n{count} molecules, {precision}: force error {error:.1e} of the RMS force, without fast math {without:.1e}")
    assert without < error <= LIMITS[precision]


@pytest.mark.parametrize("platform", ["CUDA"], indirect=True)
def test_part_of_a_device_without_large_clusters(platform, tmp_path):
    """What the message says to do helps."""
    arguments = (platform, tmp_path, FlowModel.load(SMALL_MODEL), 1, "mixed")
    variables = {"EMULATOR_MULTIPROCESSORS": str(PLATFORMS[platform]), "EMULATOR_LARGEST_CLUSTER": "4"}
    with pytest.raises(AssertionError, match="set OPENMMFLOW_KERNEL_SHAPE=1,512,48000,1 to do without") as failure:
        evaluate(*arguments, **variables)
    print("\n" + next(line for line in str(failure.value).splitlines() if "OpenMMException:" in line))
    assert relative_error(evaluate(*arguments, **variables, OPENMMFLOW_KERNEL_SHAPE="1,512,48000,1")) <= LIMITS["mixed"]


def test_launches_of_a_step(platform, tmp_path):
    launches = []
    for steps in (0, 10):
        file = tmp_path / f"{steps}"
        evaluate(platform, tmp_path, FlowModel.load(shipped.MODEL), 1, "mixed", steps, EMULATOR_LAUNCHES=str(file))
        launches.append(collections.Counter(line.split()[0] for line in file.read_text().splitlines()))
    # Those of the set-up are in both.
    counts = {name: count / 10 for name, count in (launches[1] - launches[0]).items()}
    print(f"\n{sum(counts.values()):.1f} launches a step: " + ", ".join(f"{name} {count:g}" for name, count in counts.items()))
    assert counts["computeFlowForce"] == pytest.approx(1, abs=0.11)
    assert sum(counts.values()) <= MOST_LAUNCHES
