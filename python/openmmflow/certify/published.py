# SPDX-License-Identifier: MIT
"""The published flow, where somebody has its checkpoint: it is not part of the project."""
from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Optional

import openmmflow

from ..importers.bgflow import import_checkpoint

CHECKPOINT, SPECIFICATION = "published_ala2_smooth.ckpt", "published_ala2_smooth.json"


def published_model() -> Optional[openmmflow.FlowModel]:
    """The checkpoint in the folder that the environment variable OPENMMFLOW_SHARED_DATA names, else in ../shared/data, as a model."""
    folder = Path(os.environ.get("OPENMMFLOW_SHARED_DATA", "../shared/data"))
    if not (folder / CHECKPOINT).exists():
        return None
    with tempfile.TemporaryDirectory() as temporary:
        target = Path(temporary) / "published.safetensors"
        import_checkpoint(folder / CHECKPOINT, json.loads((folder / SPECIFICATION).read_text()), target)
        return openmmflow.FlowModel.load(target)
