# SPDX-License-Identifier: MIT
"""Runs that are killed at random moments go on as if they had not been; full disks and read-only folders lose nothing."""
import os
import random
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import openmm
import pytest
from openmm import app, unit

import openmmflow
from openmmflow import FlowModel, FlowModelError, atomic, shipped
from openmmflow.simulate import flow_molecule, simulate
from openmmflow.stored_run import Settings, SimulationError

from marginal_flow import write_marginal_flow

STEPS = 3000
KILLS = 3


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    structure = app.PDBFile(str(shipped.STRUCTURE))
    positions = structure.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    bonds = [(a.index, b.index) for a, b in structure.topology.bonds()]
    return write_marginal_flow(tmp_path_factory.mktemp("model") / "marginal.safetensors", positions, bonds)


def run_until_killed(command, begun, longest, randomness):
    """Run a command and kill it, with no chance to clean up, at a random moment within ``longest`` seconds after ``begun()``.

    Returns whether it was killed: it may have ended before.
    """
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        while process.poll() is None and not begun():
            time.sleep(0.01)
        try:
            process.wait(randomness.uniform(0, longest))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
        _, errors = process.communicate()
    finally:
        process.kill()
    assert process.returncode in (0, -signal.SIGKILL), errors
    return process.returncode != 0


def kill_and_go_on(command, begun, longest, seed):
    """Kill a command some times, then let it end; the number of kills."""
    randomness = random.Random(seed)
    killed = sum(run_until_killed(command, begun, longest, randomness) for _ in range(KILLS))
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return killed


# --- Dynamics ----------------------------------------------------------------------------------------------------------------

def simulate_command(model, folder, platform):
    return [sys.executable, "-m", "openmmflow.command_line", "simulate", str(model), "--pdb", str(shipped.STRUCTURE), "-o", str(folder),
            "--platform", platform, "--steps", str(STEPS), "--report-interval", "10", "--trajectory-interval", "30", "--seed", "5",
            "--equilibration-steps", "50", "--checkpoint-seconds", "0.02", "-q"]


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_simulate_survives_kills_at_random_moments(tmp_path, model, platform, monkeypatch):
    """Bitwise; CPU with one thread, one Context in each process."""
    monkeypatch.setenv("OPENMM_CPU_THREADS", "1")
    subprocess.run(simulate_command(model, tmp_path / "whole", platform), check=True, capture_output=True)
    begin, end = ((tmp_path / "whole" / name).stat().st_mtime for name in ("settings.json", "checkpoint.bin"))
    checkpoint = tmp_path / "killed" / "checkpoint.bin"
    killed = kill_and_go_on(simulate_command(model, tmp_path / "killed", platform), checkpoint.exists, 0.7 * (end - begin), seed=platform)
    print(f"{platform}: killed {killed} times within {end - begin:.2f} s")
    for name in ("energies.csv", "checkpoint.bin"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    frames = [(tmp_path / name / "trajectory.dcd").read_bytes() for name in ("killed", "whole")]
    # The header's second record holds the time of day at which the file was begun.
    assert len(frames[0]) == len(frames[1]) and frames[0][:100] == frames[1][:100] and frames[0][268:] == frames[1][268:]


# --- Training ----------------------------------------------------------------------------------------------------------------

TRAINING = """
import sys
from openmm import app
from openmmflow.builder import FlowOptions
from openmmflow_training import TrainingConfig, train
structure, data, output = sys.argv[1:]
config = TrainingConfig(steps=40, batch=16, force_start=0.5, validate_seconds=0.0, threads=1,
                        flow=FlowOptions(width=8, depth=1, components=2, bond_rounds=1, shape_rounds=1, torsion_rounds=1))
train(app.PDBFile(structure).topology, [data], output, config, progress=False)
"""


def test_training_survives_kills_at_random_moments(tmp_path, model):
    pytest.importorskip("torch", reason="training needs PyTorch")
    pytest.importorskip("openmmflow_training", exc_type=ImportError, reason="the training component is not installed")
    import h5py

    data = tmp_path / "data.h5"
    positions, _ = FlowModel.load(model).sample(200, 1)
    gradient = FlowModel.load(model).log_prob_and_gradient(positions)[1]
    kT = unit.MOLAR_GAS_CONSTANT_R.value_in_unit(unit.kilojoule_per_mole / unit.kelvin) * 300.0
    with h5py.File(data, "w") as file:
        file["positions"], file["forces"] = positions, kT * gradient
        file.attrs["description"] = '{"temperature": 300.0, "forceField": ["a flow"], "environment": "vacuum"}'

    def command(name):
        return [sys.executable, "-c", TRAINING, str(shipped.STRUCTURE), str(data), str(tmp_path / name)]

    begin = time.time()
    subprocess.run(command("whole.safetensors"), check=True, capture_output=True)
    length = time.time() - begin
    killed = kill_and_go_on(command("killed.safetensors"), (tmp_path / "killed.checkpoint").exists, 0.4 * length, seed=1)
    print(f"training: killed {killed} times within {length:.2f} s")
    assert (tmp_path / "killed.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


# --- Nowhere to write to -----------------------------------------------------------------------------------------------------

class FileSizeLimit:
    """Within ``with``, no file of this process grows beyond some bytes: what a full disk does to whoever writes."""

    def __init__(self, size):
        self._size = size

    def __enter__(self):
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._size, self._before[1]))

    def __exit__(self, *exception):
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)


class Unprivileged:
    """Within ``with``, this process is not root, for whom no folder is read-only."""

    def __enter__(self):
        if os.geteuid() == 0:
            os.seteuid(65534)

    def __exit__(self, *exception):
        os.seteuid(os.getuid())


def test_a_run_on_a_full_disk_says_so_and_goes_on_later(tmp_path, model):
    molecule = flow_molecule(model, shipped.STRUCTURE)
    settings = Settings(ensemble="nve", report_interval=5, trajectory_interval=10)

    def run(folder):
        return simulate(tmp_path / folder, molecule, settings, 1500, equilibration_steps=20, checkpoint_seconds=0, progress=False)

    assert run("whole")
    with FileSizeLimit(20_000), pytest.raises(SimulationError, match="cannot be written .*Make room"):
        run("full")
    assert (tmp_path / "full" / "checkpoint.bin").exists()
    assert run("full")
    for name in ("energies.csv", "checkpoint.bin"):
        assert (tmp_path / "full" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not list((tmp_path / "full").glob(".*")), "nothing half-written is left"


def test_a_model_on_a_full_disk_leaves_the_last_good_file(tmp_path, model):
    path = tmp_path / "model.safetensors"
    FlowModel.load(model).save(path)
    before = path.read_bytes()
    large = FlowModel.load(shipped.MODEL)
    for write in (lambda: large.save(path), lambda: atomic.write_bytes(path, large.to_bytes())):
        with FileSizeLimit(10_000), pytest.raises((FlowModelError, OSError), match="File too large"):
            write()
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == ["model.safetensors"]


def test_read_only_folders_are_told(tmp_path, model, capsys):
    folder = tmp_path / "folder"
    folder.mkdir()
    # Whoever the process is then may look in, and write nothing.
    for parent in (folder, *folder.parents):
        if os.stat(parent).st_uid == os.getuid() and parent != parent.parent and "pytest" in str(parent):
            parent.chmod(0o555)
    contents = FlowModel.load(model)
    molecule = flow_molecule(model, shipped.STRUCTURE)
    try:
        with Unprivileged():
            with pytest.raises(FlowModelError, match="could not be created: Permission denied"):
                contents.save(folder / "model.safetensors")
            with pytest.raises(SimulationError, match="cannot be written .Permission denied"):
                simulate(folder / "run", molecule, Settings(), 10, equilibration_steps=10, progress=False)
            with pytest.raises(PermissionError, match="flow.csv"):
                openmmflow.FlowReporter(folder / "flow.csv", 1)
    finally:
        for parent in (folder, *folder.parents):
            if os.stat(parent).st_uid == os.getuid() and "pytest" in str(parent):
                parent.chmod(0o755)
    assert list(folder.iterdir()) == []


def test_damaged_models_are_reported_not_simulated(tmp_path, model):
    """Every single flipped bit: of the small model in the file, and of a sample of them in XML."""
    contents = FlowModel.load(model).to_bytes()
    accepted = []
    for position in range(0, len(contents)):
        damaged = bytearray(contents)
        damaged[position] ^= 1 << position % 8
        try:
            changed = FlowModel.from_bytes(bytes(damaged))
        except FlowModelError:
            continue
        # A bit that changes nothing of the model, such as one of the padding's white space, may pass.
        if changed != FlowModel.load(model):
            accepted.append(position)
    assert not accepted
    force = openmmflow.FlowForce(FlowModel.load(model))
    xml = openmm.XmlSerializer.serialize(force)
    begin = xml.index('base64="') + len('base64="')
    end = xml.index('"', begin)
    for position in np.random.default_rng(1).integers(begin, end - 4, 300):
        other = "A" if xml[position] != "A" else "B"
        with pytest.raises(openmm.OpenMMException, match="damaged"):
            openmm.XmlSerializer.deserialize(xml[:position] + other + xml[position + 1:])
