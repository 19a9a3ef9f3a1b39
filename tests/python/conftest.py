# SPDX-License-Identifier: MIT
"""What several test modules start from."""
import os
from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import unit

import openmmflow
from openmmflow import model_file
import harmonic_molecule as harmonic
from random_flow import conformations, random_flow

MOLAR_GAS_CONSTANT = unit.MOLAR_GAS_CONSTANT_R.value_in_unit(unit.kilojoule_per_mole / unit.kelvin)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of published data, which is not part of the repository; skips the test where it is absent."""
    folder = Path(os.environ.get("OPENMMFLOW_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no published data: {folder} is absent, and OPENMMFLOW_SHARED_DATA names no other folder")
    return folder


@pytest.fixture(scope="session")
def published_model(shared_data) -> openmmflow.FlowModel:
    """The published smooth flow of alanine dipeptide, imported."""
    pytest.importorskip("torch", reason="reading a PyTorch checkpoint needs PyTorch")
    from openmmflow.importers import bgflow

    contents = bgflow.convert_checkpoint(shared_data / "published_ala2_smooth.ckpt", shared_data / "published_ala2_smooth.json")
    return openmmflow.FlowModel.from_bytes(model_file.pack(*contents))


@pytest.fixture(scope="session")
def small_flow() -> tuple[dict, dict]:
    """Architecture and tensors of a flow of six particles with random weights."""
    return random_flow()


@pytest.fixture(scope="session")
def small_model(small_flow) -> openmmflow.FlowModel:
    """The model of small_flow."""
    return openmmflow.FlowModel.from_bytes(model_file.pack(*small_flow))


@pytest.fixture(scope="session")
def small_positions() -> np.ndarray:
    """Conformations (20, 6, 3) within the support of small_model, nm."""
    return conformations(count=20)


@pytest.fixture(scope="session")
def harmonic_molecule(tmp_path_factory):
    """Four atoms with harmonic bonds between all pairs, and data of them from dynamics: (topology, paths, system)."""
    system = harmonic.system()
    path = harmonic.write_dataset(tmp_path_factory.mktemp("data") / "harmonic.h5", *harmonic.simulate(system))
    return harmonic.topology(), [path], system
