# SPDX-License-Identifier: MIT
"""Training of smooth normalizing flows for OpenMM-Flow, on LibTorch operators."""
from .flow_module import FlowModule
from .trainer import TrainingConfig, train

__all__ = ["FlowModule", "TrainingConfig", "train"]
