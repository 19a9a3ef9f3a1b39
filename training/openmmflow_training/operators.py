# SPDX-License-Identifier: MIT
"""The C++ library: operators with exact first and second derivatives, and the density direction made of them.

``internal_coordinates``, ``mixed_coordinates``, ``block_whitening``, ``marginal``, ``elementwise``, ``smooth_mixture``, ``transformer`` and
``activation`` are documented in operators/Operators.h. Coordinates stand in rows and samples in the last dimension.
"""
from __future__ import annotations

from pathlib import Path

import torch

_library = Path(__file__).with_name("libopenmmflow_training.so")
if not _library.exists():
    raise ImportError(f"{_library.name} is not beside {Path(__file__).name}: the training extension is not built. Install it into the Python "
                      "environment that has PyTorch: `pip install --no-build-isolation ./training` in the sources of OpenMM-Flow")
torch.ops.load_library(str(_library))

internal_coordinates = torch.ops.openmmflow.internal_coordinates
mixed_coordinates = torch.ops.openmmflow.mixed_coordinates
block_whitening = torch.ops.openmmflow.block_whitening
marginal = torch.ops.openmmflow.marginal
elementwise = torch.ops.openmmflow.elementwise
smooth_mixture = torch.ops.openmmflow.smooth_mixture
transformer = torch.ops.openmmflow.transformer
activation = torch.ops.openmmflow.activation
transformer_keys = torch.ops.openmmflow.transformer_keys
check_model = torch.ops.openmmflow.check_model
DensityDirection = torch.classes.openmmflow.DensityDirection
