# SPDX-License-Identifier: MIT
"""Training of smooth normalizing flows for OpenMM-Flow, on LibTorch operators."""
from .flow_module import FlowModule
from .openmm_potential import OpenMMPotential
from .schedules import Schedule
from .trainer import TrainingConfig, train

__all__ = ["FlowModule", "OpenMMPotential", "Schedule", "TrainingConfig", "train"]
