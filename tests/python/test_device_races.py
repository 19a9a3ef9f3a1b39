# SPDX-License-Identifier: MIT
"""The device kernel under Oclgrind, an OpenCL device that reports data races, invalid addresses and use of what nobody wrote.

To OpenMM it is no processor, so the kernel uses local memory as on GPUs. Forces must be those of Reference. Oclgrind interprets
instructions one by one, so molecules are few and small.
"""
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import openmm
import pytest
from random_architecture import HEADS, TRANSFORMERS, RandomArchitecture
from random_flow import conformations, random_flow
from test_opencl_platform import LIMITS, mixed_model, molecules_system, relative_error

import openmmflow
from openmmflow import FlowForce, FlowModel, model_file

SMALL_MODEL = Path(__file__).parents[1] / "data" / "alanine_dipeptide_small.safetensors"
KERNEL = "computeFlowForce"
BUILD_OPTIONS = "-O0 -disable-llvm-passes"
"""Oclgrind 21.10 does not know all instructions that clang's optimizations make."""
NO_BARRIERS = "-Dbarrier=mem_fence"
CHECKS = ("--data-races", "--uniform-writes", "--uninitialized")
BOX = np.array([[3.0, 0, 0], [0.6, 2.9, 0], [-0.7, 0.5, 3.1]])

unavailable = openmmflow.why_not_supported("OpenCL") if shutil.which("oclgrind") else "there is no oclgrind"
pytestmark = pytest.mark.skipif(bool(unavailable), reason=f"the kernel cannot run on Oclgrind: {unavailable}")

EVALUATE = """
import sys
import numpy as np
import openmm
import openmmflow

folder, precision = sys.argv[1:]
with open(f"{folder}/system.xml") as file:
    system = openmm.XmlSerializer.deserialize(file.read())
context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("OpenCL"), {"Precision": precision})
context.setPositions(np.load(f"{folder}/positions.npy"))
state = context.getState(energy=True, forces=True)
np.savez(f"{folder}/results.npz", energy=state.getPotentialEnergy()._value, forces=state.getForces(asNumpy=True)._value)
"""


def messages_of(log, kernel):
    """Those about a kernel. One that names none may be about any."""
    messages = [text.strip() for text in re.split(r"\n(?=\S)", log.read_text())]
    return [text for text in messages if text and ("Kernel: " not in text or f"Kernel: {kernel}\n" in text)]


def run_on_oclgrind(folder, system, positions, precision, shape, local_bytes, build_options=BUILD_OPTIONS, checks=CHECKS):
    """Messages, how often each instruction and function of the kernel was run, and energy and forces.

    The device has twice local_bytes, as OpenMM tells the kernel of half.
    """
    (folder / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    np.save(folder / "positions.npy", np.reshape(positions, (-1, 3)))
    # What the session asks of other tests is not for this one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OPENMMFLOW_", "OCLGRIND_"))}
    environment["OPENMMFLOW_KERNEL_SHAPE"] = shape
    device = ["oclgrind", *checks, "--inst-counts", "--log", folder / "log", "--local-mem-size", str(2 * local_bytes),
              "--build-options", build_options]
    done = subprocess.run([*device, sys.executable, "-c", EVALUATE, folder, precision], env=environment, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    launches = re.findall(rf"^Instructions executed for kernel '{KERNEL}':\n((?:.+\n)+)", done.stdout, re.MULTILINE)
    assert len(launches) == 1, done.stdout
    counts = re.findall(r"^ *(\d+) - (?:call )?(.+?)(?: ?\(.*\))?$", launches[0], re.MULTILINE)
    return messages_of(folder / "log", KERNEL), {what: int(count) for count, what in counts}, np.load(folder / "results.npz")


def small_model(count):
    model = FlowModel.load(SMALL_MODEL)
    return model, model.sample(count, 1)[0]


def chain(count):
    """Mixtures in closed form. The first molecule is outside of the support."""
    positions = conformations(2, count)
    positions[0] *= 1.2
    return FlowModel.from_bytes(model_file.pack(*random_flow())), positions


def drawn(draw, count):
    return FlowModel.from_bytes(model_file.pack(*draw.model())), np.resize(draw.positions, (count, draw.particles, 3))


def roots(count):
    """Mixtures of both heads as roots."""
    draw = RandomArchitecture(4, 6)
    draw.add_marginals()
    for head in HEADS:
        draw.add_coupling(head=head, closed_form="sampling")
    return drawn(draw, count)


def all_transformers(count, closed_form="density"):
    """All others, and each elementwise layer."""
    draw = RandomArchitecture(4, 6)
    draw.add_elementwise("affineNormalization")
    draw.add_marginals(all_coordinates=False)
    for transformer in TRANSFORMERS:
        draw.add_coupling(transformer, closed_form=closed_form)
    for kind in ("permutation", "circularShift", "logit", "logistic"):
        draw.add_elementwise(kind)
    assert {"affine", "moebius"} < {layer["transformer"]["type"] for layer in draw.layers if layer["type"] == "coupling"}
    return drawn(draw, count)


def transformer_roots(count):
    return all_transformers(count, "sampling")


def block(count):
    """Mixed coordinates with an aligned block. The first molecule's is far from its reference."""
    model, positions = mixed_model(0, 6, 4)
    positions = np.resize(positions, (count, 6, 3))
    positions[0] += 0.05 * np.random.default_rng(0).normal(size=(6, 3))
    return model, positions


def frame_block(count):
    """The same, not aligned."""
    model, positions = mixed_model(0, 6, 4, "frame")
    return model, np.resize(positions, (count, 6, 3))


UNLIMITED = 2_000_000
CASES = [
    # model, molecules, TILE,GROUP_SIZE, precision, periodic, bytes of local memory that a group may use, what is then in it
    (small_model, 1, "1,64", "mixed", False, UNLIMITED, "all"),
    (chain, 1, "1,256", "mixed", False, 8_000, "all but what is kept"),
    (chain, 3, "1,64", "mixed", False, 5_400, "tables"),
    (chain, 8, "1,64", "mixed", False, 4_096, "nothing"),
    (chain, 6, "4,64", "double", True, UNLIMITED, "all"),
    (chain, 5, "4,64", "mixed", False, 20_000, "all but what is kept"),
    (chain, 11, "8,96", "mixed", True, 10_000, "tables"),
    (chain, 20, "32,128", "mixed", False, UNLIMITED, "all"),
    (roots, 1, "1,64", "mixed", False, UNLIMITED, "all"),
    (roots, 5, "8,64", "mixed", False, 10_000, "tables"),
    (all_transformers, 2, "1,64", "single", False, UNLIMITED, "all"),
    (all_transformers, 6, "4,64", "mixed", False, 10_000, "tables"),
    (transformer_roots, 3, "4,64", "mixed", False, UNLIMITED, "all"),
    (block, 2, "1,64", "mixed", True, UNLIMITED, "all"),
    (block, 5, "8,64", "mixed", False, UNLIMITED, "all"),
    (frame_block, 5, "4,64", "mixed", False, UNLIMITED, "all"),
]
# What shows that a model has what it is here for.
FUNCTIONS = {small_model: {"mixture", "mixtureBackward"}, chain: {"mixture", "mixtureBackward"}, roots: {"parameters", "solve"},
             all_transformers: {"transform", "transformBackward"}, transformer_roots: {"transform", "transformBackward"},
             block: {"alignBlock", "whitenBlock", "blockTurn", "addBlockForces"}, frame_block: {"whitenBlock", "addBlockForces"}}


def where_things_are(counts):
    """What was in local memory. A tile writes one number to global memory, its energy; forces are atomic additions."""
    if "keep" in counts:
        return "all but what is kept"
    if "load local" not in counts:
        return "nothing"
    return "all" if counts["store global"] == counts["addEnergies"] else "tables"


@pytest.mark.parametrize("make, count, shape, precision, periodic, local_bytes, in_local_memory", CASES)
def test_no_races_and_right_forces(tmp_path, make, count, shape, precision, periodic, local_bytes, in_local_memory):
    model, positions = make(count)
    force = FlowForce(model)
    force.setUsesPeriodicBoundaryConditions(periodic)
    system = molecules_system(force, model.num_particles, count)
    if periodic:
        # Particles are images of those of a whole molecule.
        system.setDefaultPeriodicBoxVectors(*BOX)
        positions = positions + np.random.default_rng(0).integers(-1, 2, positions.shape) @ BOX
    # What single precision can hold.
    positions = np.asarray(positions, np.float32).reshape(-1, 3).astype(float)
    messages, counts, results = run_on_oclgrind(tmp_path, system, positions, precision, shape, local_bytes)
    assert not messages, "\n\n".join(messages[:5])
    assert where_things_are(counts) == in_local_memory
    assert FUNCTIONS[make] | ({"unwrap"} if periodic else set()) <= counts.keys()
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))
    context.setPositions(positions)
    state = context.getState(energy=True, forces=True)
    error = relative_error((results["forces"], state.getForces(asNumpy=True)._value))
    print(f"\n{counts['load private']} loads, force error {error:.1e} of the RMS force")
    assert error <= LIMITS[precision]
    energy, limit = state.getPotentialEnergy()._value, LIMITS[precision]
    assert results["energy"] == pytest.approx(energy, rel=limit, abs=10 * count * limit)


def test_races_are_seen_without_barriers(tmp_path):
    """The same kernel with a fence in place of each barrier, so that Oclgrind can be trusted when it is silent."""
    model, positions = chain(1)
    system = molecules_system(FlowForce(model), model.num_particles)
    # With tables in local memory it would read its program before it is there, and might do anything.
    messages, counts, _ = run_on_oclgrind(tmp_path, system, positions, "mixed", "1,64", 4_096, f"{BUILD_OPTIONS} {NO_BARRIERS}",
                                          ["--data-races"])
    assert where_things_are(counts) == "nothing"
    races = [text for text in messages if re.match("Read-write data race at global memory", text) and f"Kernel: {KERNEL}\n" in text]
    print(f"\n{len(races)} of {len(messages)} messages")
    assert races


def test_what_is_planted_is_seen(tmp_path):
    """Each of what is looked for, in a kernel of its own."""
    (tmp_path / "planted.cl").write_text("""
kernel void planted(global int* out) {
    local int written[8], never_written[8];
    const int i = get_local_id(0);
    written[i] = i;
    out[i] = written[7-i];
    out[0] = 0;
    if (never_written[i] > 0)
        out[i] = 1;
    out[i+8] = 2;
}
""")
    (tmp_path / "planted.sim").write_text("planted.cl\nplanted\n8 1 1\n8 1 1\n<size=32 fill=0>\n")
    subprocess.run(["oclgrind-kernel", *CHECKS, "--build-options", BUILD_OPTIONS, "--log", "log", "planted.sim"], cwd=tmp_path,
                   check=True)
    messages = messages_of(tmp_path / "log", "planted")
    found = {re.sub(" of size .*| at .*| written to .*", "", text.splitlines()[0]) for text in messages}
    assert found == {"Read-write data race", "Write-write data race", "Invalid write", "Uninitialized value",
                     "Controlflow depends on uninitialized value"}
