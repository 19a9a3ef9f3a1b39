# SPDX-License-Identifier: MIT
"""What is minimized: negative log-likelihood, squared error of the forces of -ln p, and its roughness over a time step."""
from __future__ import annotations

import torch

from .data import Frames
from .flow_module import FlowModule


def likelihood_and_force_loss(module: FlowModule, frames: Frames, create_graph: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """-ln p (k_BT, a mean over frames) and the mean over frames and Cartesian components of (d ln p/dx - F)^2, (k_BT/nm)^2."""
    log_prob, gradient = module.log_prob_and_gradient(frames.positions, create_graph=create_graph)
    return -log_prob.mean(), (gradient - frames.forces).square().mean()


def step_loss(module: FlowModule, frames: Frames, create_graph: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The two losses above, and the roughness of the force error over a time step, (k_BT/nm)^2.

    With e(x) = d ln p/dx - F and u the displacements of a step, the roughness is the mean of |e(x+u) - 2 e(x) + e(x-u)|^2. What of
    the error varies within a step of a Verlet integrator does not average out: energy does a random walk (docs/theory.md, "What a
    step must resolve"). The likelihood is that of the undisplaced frames, the force error that of all three places.
    """
    count = len(frames)
    positions = torch.cat([frames.positions, frames.positions + frames.displacements, frames.positions - frames.displacements])
    forces = torch.cat([frames.forces, frames.displaced_forces[:, 0], frames.displaced_forces[:, 1]])
    log_prob, gradient = module.log_prob_and_gradient(positions, create_graph=create_graph)
    error = gradient - forces
    at, ahead, behind = error.split(count)
    return -log_prob[:count].mean(), error.square().mean(), (ahead - 2 * at + behind).square().mean()


def evaluate(module: FlowModule, frames: Frames, batch: int = 1024) -> dict[str, float]:
    """Negative log-likelihood and force RMSE (k_BT/nm) of all frames, and the RMS roughness if there are displacements."""
    nll = mse = roughness = 0.0
    for start in range(0, len(frames), batch):
        part = frames[start:start + batch]
        part_nll, part_mse = likelihood_and_force_loss(module, part, create_graph=False)
        nll += part_nll.item() * len(part) / len(frames)
        mse += part_mse.item() * len(part) / len(frames)
        if frames.displacements is not None:
            roughness += step_loss(module, part, create_graph=False)[2].item() * len(part) / len(frames)
    result = {"nll": nll, "force_rmse": mse ** 0.5}
    if frames.displacements is not None:
        result["roughness"] = roughness ** 0.5
    return result
