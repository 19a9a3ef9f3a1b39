# SPDX-License-Identifier: MIT
"""The C++ operators, ``torch.ops.openmmflow``: each a function with exact first and second derivatives."""
from __future__ import annotations

from pathlib import Path

import torch

_library = Path(__file__).with_name("_operators.so")
if not _library.exists():
    raise ImportError(f"{_library} does not exist: the training extension is not built. Install it with "
                      "`pip install --no-build-isolation ./training` in the Python environment that has PyTorch")
torch.ops.load_library(str(_library))

internal_coordinates = torch.ops.openmmflow.internal_coordinates
marginal = torch.ops.openmmflow.marginal
smooth_mixture = torch.ops.openmmflow.smooth_mixture
activation = torch.ops.openmmflow.activation
