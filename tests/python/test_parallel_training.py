# SPDX-License-Identifier: MIT
"""Two processes train as one does: an own loop with DistributedDataParallel, and ``openmmflow train``, both under torchrun."""
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from harmonic_molecule import SMALL

from openmmflow import builder, model_file

pytest.importorskip("torch", reason="training needs PyTorch")
pytest.importorskip("openmmflow_training", exc_type=ImportError, reason="the training component is not installed")

EXAMPLE = Path(__file__).parents[2] / "examples" / "training_loop.py"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def python(*arguments):
    result = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=600,
                            env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_own_loop_with_distributed_data_parallel(harmonic_molecule, tmp_path):
    import h5py

    topology, paths, _ = harmonic_molecule
    with h5py.File(paths[0]) as file:
        architecture, tensors = builder.build(topology, file["positions"][:], temperature=300.0, options=SMALL)
    model_file.write(tmp_path / "start.safetensors", architecture, tensors)
    arguments = (EXAMPLE, tmp_path / "start.safetensors", paths[0])
    one, two = ([json.loads(line)["loss"] for line in python(*command, *arguments).splitlines()] for command in ((), TORCHRUN))
    print("largest relative difference of the losses:", max(abs(a / b - 1) for a, b in zip(one, two)))
    assert len(one) == len(two) == 20 and one[-1] < one[0]
    assert two == pytest.approx(one, rel=1e-9)


def test_trainer_under_torchrun(harmonic_molecule, tmp_path):
    from openmm import XmlSerializer, app

    topology, paths, system = harmonic_molecule
    with open(tmp_path / "molecule.pdb", "w") as file:
        app.PDBFile.writeFile(topology, 1 * np.ones((4, 3)) * np.arange(4)[:, None], file)
    (tmp_path / "system.xml").write_text(XmlSerializer.serialize(system))
    curves = []
    for name, launcher in (("one", ()), ("two", TORCHRUN)):
        output = tmp_path / f"{name}.safetensors"
        python(*launcher, "-m", "openmmflow_training", tmp_path / "molecule.pdb", paths[0], "-o", output, "--steps", 20, "--batch", 32, "--width", 8,
               "--depth", 1, "--precision", "float64", "--force-start", 0.3, "--reverse-weight", 0.1, "--reverse-start", 0.6, "--reverse-batch", 8,
               "--validate-steps", 2, "--system", tmp_path / "system.xml", "--threads", 1, "--no-report")
        records = [json.loads(line) for line in output.with_suffix(".jsonl").read_text().splitlines()]
        curves.append([(r["validation"]["nll"], r["validation"]["force_rmse"], r["training"]["loss"]) for r in records if "validation" in r])
    assert len(curves[0]) == 10
    difference = np.abs(np.array(curves[1]) / np.array(curves[0]) - 1).max()
    print(f"largest relative difference of the curves: {difference:.1e}")
    assert difference < 1e-6
