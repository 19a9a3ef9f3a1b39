# SPDX-License-Identifier: MIT
"""What is minimized: negative log-likelihood, squared error of the forces of -ln p, its roughness over a time step, and the reverse KL."""
from __future__ import annotations

import numpy as np
import torch

from .data import Frames
from .flow_module import FlowModule


def likelihood_and_force_loss(module: FlowModule, frames: Frames, create_graph: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """-ln p (k_BT, a mean over frames) and the mean over frames and Cartesian components of (d ln p/dx - F)^2, (k_BT/nm)^2.

    Of a model with constraints, only forces that can move the molecule count: see :func:`free_part`.
    """
    log_prob, gradient = module.log_prob_and_gradient(frames.positions, create_graph=create_graph)
    return -log_prob.mean(), free_part(gradient - frames.forces, frames.positions, module.constraints).square().mean()


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


def reverse_kl_loss(module: FlowModule, latent: torch.Tensor, potential) -> torch.Tensor:
    """The mean of ln p(x) + u(x), k_BT, over the positions x of latents (N, coordinates): KL(flow, force field) less ln of its integral.

    Gradients reach the weights through the positions (reparametrization). ``potential`` maps positions to reduced energies:
    :class:`OpenMMPotential`.
    """
    positions, log_prob = module.to_positions(latent)
    return (log_prob + potential(positions)).mean()


def free_part(vectors: torch.Tensor, positions: torch.Tensor, constraints) -> torch.Tensor:
    """What of vectors (N, particles, 3) is orthogonal to the gradients of the constraints at positions (N, particles, 3), nm.

    Forces along a constraint are balanced by it; neither data nor model say anything about them.
    """
    if not constraints:
        return vectors
    first, second = (torch.tensor([c[side] for c in constraints]) for side in (0, 1))
    count = torch.arange(len(constraints))
    difference = (positions[:, first] - positions[:, second]).detach()
    gradients = torch.zeros(len(positions), len(constraints), *positions.shape[1:], dtype=positions.dtype)
    gradients[:, count, first], gradients[:, count, second] = difference, -difference
    basis = torch.linalg.qr(gradients.flatten(2).transpose(1, 2))[0]
    flat = vectors.flatten(1).unsqueeze(-1)
    return vectors - (basis @ (basis.transpose(1, 2) @ flat)).reshape(vectors.shape)


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


@torch.no_grad()
def evaluate_samples(module: FlowModule, potential, count: int = 1024, seed: int = 0) -> dict[str, float]:
    """How samples of the flow do in the potential, without regularization.

    ``reverse_kl`` is the median of ln p + u, k_BT (the mean would be that of the rarest overlap), ``effective_samples`` Kish's
    (sum w)^2/sum w^2 of the weights exp(-u)/p as a part of ``count``.
    """
    positions, log_prob = module.to_positions(module.sample_latents(count, torch.Generator().manual_seed(seed)))
    energies, _ = potential.energies_and_forces(positions.numpy())
    work = np.where(np.isfinite(energies), log_prob.numpy() + energies, np.inf)
    weights = np.exp(np.min(work) - work)
    return {"reverse_kl": float(np.median(work)), "effective_samples": float(weights.sum() ** 2 / (weights @ weights) / count)}
