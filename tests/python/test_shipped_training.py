# SPDX-License-Identifier: MIT
"""The commands that made the shipped model, in small: data of alanine dipeptide, then training with all that its command names."""
import json

import pytest

import openmmflow
from openmmflow import shipped
from openmmflow.command_line import main

pytest.importorskip("torch", reason="training needs PyTorch")
pytest.importorskip("openmmflow_training", exc_type=ImportError, reason="the training component is not installed")


def test_data_and_training_of_the_shipped_model(tmp_path, capsys):
    data, output = tmp_path / "seed1.h5", tmp_path / "alanine_dipeptide.safetensors"
    assert main(["dataset", str(shipped.STRUCTURE), "-o", str(data), "--frames", "500", "--replicas", "2", "--frame-steps", "40", "-q"]) == 0
    assert "statistical inefficiency" in capsys.readouterr().out
    assert main(["train", str(shipped.STRUCTURE), str(data), "-o", str(output), "--steps", "300", "--threads", "1", "--batch", "48",
                 "--learning-rate", "3e-3", "--force-weight", "2e-3", "--force-start", "0.04", "--roughness-start", "0.15",
                 "--roughness-weight", "6e-2", "--width", "16", "--ema", "0.9", "--validate-steps", "100"]) == 0
    model = openmmflow.FlowModel.load(str(output))
    assert model.num_particles == 22 and model.data["molecule"] == "ACE-ALA-NME" and model.data["environment"] == "implicit solvent"
    records = [json.loads(line) for line in output.with_suffix(".jsonl").read_text().splitlines()]
    validation = [record["validation"] for record in records if "validation" in record]
    print([{key: round(value, 1) for key, value in figures.items()} for figures in validation])
    assert len(validation) == 3
    assert validation[-1]["force_rmse"] < 0.95 * validation[0]["force_rmse"]
    assert validation[-1]["roughness"] < 0.8 * validation[0]["roughness"]
    assert output.with_suffix(".html").stat().st_size > 100_000
