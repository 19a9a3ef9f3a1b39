# SPDX-License-Identifier: MIT
"""What is minimized: the negative log-likelihood of positions and the squared error of the forces of -ln p."""
from __future__ import annotations

import torch

from .data import Frames
from .flow_module import FlowModule


def likelihood_and_force_loss(module: FlowModule, frames: Frames, create_graph: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """-ln p (k_BT, a mean over frames) and the mean over frames and Cartesian components of (d ln p/dx - F)^2, (k_BT/nm)^2."""
    log_prob, gradient = module.log_prob_and_gradient(frames.positions, create_graph=create_graph)
    return -log_prob.mean(), (gradient - frames.forces).square().mean()


def evaluate(module: FlowModule, frames: Frames, batch: int = 1024) -> dict[str, float]:
    """Negative log-likelihood and force RMSE (k_BT/nm) of all frames."""
    nll = mse = 0.0
    for start in range(0, len(frames), batch):
        part = frames[start:start + batch]
        part_nll, part_mse = likelihood_and_force_loss(module, part, create_graph=False)
        nll += part_nll.item() * len(part) / len(frames)
        mse += part_mse.item() * len(part) / len(frames)
    return {"nll": nll, "force_rmse": mse ** 0.5}
