# SPDX-License-Identifier: MIT
"""The command `openmmflow`: what it prints, its exit status, and its errors."""
import os
import re
import signal
import subprocess
import sys
import time

import openmm
import pytest
from openmm import app, unit

import openmmflow
from openmmflow import shipped
from openmmflow.command_line import main
from openmmflow.hashes import sha256
from openmmflow.trajectory import read_energies

from marginal_flow import write_marginal_flow

COMMAND = [sys.executable, "-m", "openmmflow.command_line"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    structure = app.PDBFile(str(shipped.STRUCTURE))
    positions = structure.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    bonds = [(a.index, b.index) for a, b in structure.topology.bonds()]
    return write_marginal_flow(tmp_path_factory.mktemp("model") / "marginal.safetensors", positions, bonds)


def simulate(model, output, *more):
    return ["simulate", str(model), "--pdb", str(shipped.STRUCTURE), "-o", str(output), "--equilibration-steps", "100",
            "--report-interval", "10", "--quiet", *more]


# --- Help and errors ---------------------------------------------------------------------------------------------------------

def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    for command in ("demo", "info", "import", "simulate", "dataset", "train"):
        assert f"\n    {command} " in text


@pytest.mark.parametrize("arguments", [
    [], ["nonsense"], ["info", "--nonsense"], ["simulate"], ["import", "x.ckpt"], ["demo", "--nvt-steps", "0"],
    ["simulate", "m", "--pdb", "p", "-o", "d", "--steps", "-5"], ["simulate", "m", "--pdb", "p", "-o", "d", "--steps", "5", "--step-size", "0"],
    ["simulate", "m", "--pdb", "p", "-o", "d", "--steps", "5", "--ensemble", "npt"],
    ["simulate", "m", "--pdb", "p", "-o", "d", "--steps", "5", "--friction", "nan"],
])
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("usage: openmmflow") and captured.out == ""


def test_errors_are_one_line_and_exit_with_1(tmp_path, capsys):
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_bytes(b"not a model")
    checkpoint = tmp_path / "foreign.ckpt"
    checkpoint.write_bytes(b"no checkpoint")
    for arguments, message in (
            (["info", str(tmp_path / "missing")], "there is no such file"),
            (["info", str(foreign)], "foreign.safetensors"),
            (["import", str(checkpoint), "--spec", str(shipped.STRUCTURE), "-o", str(tmp_path / "m")], ""),
            (simulate(foreign, tmp_path / "run", "--steps", "10"), "foreign.safetensors")):
        assert main(arguments) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("openmmflow: error: ") and captured.err.count("\n") == 1
        assert message in captured.err
    assert not (tmp_path / "m").exists() and not (tmp_path / "run").exists()


def test_traceback_shows_where_an_error_comes_from(tmp_path):
    result = subprocess.run([*COMMAND, "--traceback", "info", str(tmp_path / "missing")], capture_output=True, text=True)
    assert result.returncode == 1
    assert "Traceback" in result.stderr and "FlowModelError" in result.stderr


def test_train_without_its_package_says_so(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "openmmflow_training", None)
    monkeypatch.delitem(sys.modules, "openmmflow_training.__main__", raising=False)
    assert main(["train", "data.h5", "--minutes", "1"]) == 1
    assert "needs the package openmmflow_training, which is not installed" in capsys.readouterr().err


# --- info --------------------------------------------------------------------------------------------------------------------

def test_info_describes_the_installation(capsys):
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    assert f"openmmflow {openmmflow.__version__}, OpenMM {openmm.Platform.getOpenMMVersion()}" in text
    lines = dict(line.split(maxsplit=1) for line in text.splitlines() if line.startswith("  "))
    assert lines["Reference"] == "yes" and lines["CPU"] == "yes"
    for index in range(openmm.Platform.getNumPlatforms()):
        name = openmm.Platform.getPlatform(index).getName()
        assert lines[name] == "yes" or lines[name].startswith("no: FlowForce does not run")


def test_info_describes_a_model(model, capsys):
    assert main(["info", str(model)]) == 0
    text = capsys.readouterr().out
    for fact in ("22 (60 internal coordinates, 21 bonds)", "300 K", "cartesian", "vacuum", sha256(model), "uniform (60)",
                 openmmflow.FlowModel.load(model).checksum, "internalCoordinates, marginal"):
        assert fact in text
    assert "FlowForce runs on" not in text
    assert main(["info", str(model), "--platforms"]) == 0
    assert "FlowForce runs on" in capsys.readouterr().out


# --- import ------------------------------------------------------------------------------------------------------------------

def test_import_writes_a_model_and_shows_it(shared_data, tmp_path, capsys):
    pytest.importorskip("torch", reason="reading a PyTorch checkpoint needs PyTorch")
    output = tmp_path / "published.safetensors"
    assert main(["import", str(shared_data / "published_ala2_smooth.ckpt"), "--spec",
                 str(shared_data / "published_ala2_smooth.json"), "-o", str(output)]) == 0
    assert "314,456" in capsys.readouterr().out
    assert openmmflow.FlowModel.load(output).num_parameters == 314_456


# --- simulate ----------------------------------------------------------------------------------------------------------------

def test_simulate_runs_and_sums_up(model, tmp_path, capsys):
    assert main(simulate(model, tmp_path / "run", "--steps", "200", "--ensemble", "nve", "--trajectory-interval", "50")) == 0
    text = capsys.readouterr().out
    assert text.startswith("20 samples: temperature ") and "total energy per degree of freedom (66)" in text
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "settings.json", "checkpoint.bin", "energies.csv", "trajectory.dcd", "energies.png", "ramachandran.png", "report.html"}
    # Other settings: refused. The same: prolonged. With --overwrite: anew.
    assert main(simulate(model, tmp_path / "run", "--steps", "200", "--seed", "2")) == 1
    assert "holds a run with other settings: settings.ensemble" in capsys.readouterr().err
    assert main(simulate(model, tmp_path / "run", "--steps", "300", "--ensemble", "nve", "--trajectory-interval", "50")) == 0
    assert len(read_energies(tmp_path / "run" / "energies.csv").step) == 30
    assert main(simulate(model, tmp_path / "run", "--steps", "100", "--seed", "2", "--overwrite")) == 0
    assert len(read_energies(tmp_path / "run" / "energies.csv").step) == 10


def test_simulate_on_a_platform_that_is_not_there(model, tmp_path, capsys):
    assert main(simulate(model, tmp_path / "run", "--steps", "10", "--platform", "Quantum")) == 1
    assert "OpenMM has no platform 'Quantum'" in capsys.readouterr().err


def test_simulate_stops_at_a_signal_and_goes_on(model, tmp_path):
    command = [*COMMAND, *simulate(model, tmp_path / "run", "--steps", "2000000")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not ((tmp_path / "run" / "energies.csv").exists() and (tmp_path / "run" / "energies.csv").stat().st_size > 1000):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error == f"openmmflow: interrupted; the same command goes on with the run in {tmp_path / 'run'}\n"
    done = int(read_energies(tmp_path / "run" / "energies.csv").step[-1])
    assert main(simulate(model, tmp_path / "run", "--steps", str(done + 100))) == 0
    assert read_energies(tmp_path / "run" / "energies.csv").step.tolist() == list(range(10, done + 101, 10))


# --- dataset -----------------------------------------------------------------------------------------------------------------

def test_dataset_wants_a_pdb_file(tmp_path, capsys):
    path = tmp_path / "README.md"
    path.write_text("# No structure\n")
    assert main(["dataset", str(path), "-o", str(tmp_path / "data.h5")]) == 1
    assert "README.md is no PDB file: it has no ATOM or HETATM records" in capsys.readouterr().err


def test_dataset_makes_and_continues_a_file(tmp_path, monkeypatch, capsys):
    import h5py

    from openmmflow import dataset

    make = dataset.make_dataset
    monkeypatch.setattr(dataset, "make_dataset", lambda *a, **k: make(*a, **k, equilibration_frames=2))
    path = tmp_path / "data.h5"
    for frames in ("5", "8"):
        assert main(["dataset", "-o", str(path), "--frames", frames, "--frame-steps", "20", "--quiet"]) == 0
        with h5py.File(path) as file:
            assert file["positions"].shape == (int(frames), 22, 3)


def test_info_names_every_gpu_platform(capsys):
    """With a reason and what to do about it where FlowForce does not run there."""
    assert main(["info", "--platforms"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")}
    for platform in ("CUDA", "OpenCL", "HIP"):
        assert re.search(r"yes$|no: .*(pip install|driver|plugin library)", lines[platform]), lines[platform]
