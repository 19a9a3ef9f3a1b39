# SPDX-License-Identifier: MIT
"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner. Vyas et al., arXiv 2409.11321."""
from __future__ import annotations

import torch


class SOAP(torch.optim.Optimizer):
    """Matrices are rotated into the slowly changing eigenbases of the averages of G G^T and G^T G, in which Adam's second moments are kept.

    Sides longer than ``largest`` are not rotated; vectors are updated by Adam. The update of the weights is that of the paper's
    algorithm 3, with the eigenbases refreshed by one power iteration and a QR decomposition every ``refresh`` steps.

    Parameters
    ----------
    lr : learning rate.
    betas : decays of first and second moments.
    shampoo_beta : decay of the averages of G G^T and G^T G.
    """

    def __init__(self, parameters, lr=3e-3, betas=(0.95, 0.95), shampoo_beta=0.95, eps=1e-8, refresh=10, largest=256):
        super().__init__(parameters, {"lr": lr, "betas": betas, "shampoo_beta": shampoo_beta, "eps": eps, "refresh": refresh,
                                      "largest": largest})

    @torch.no_grad()
    def step(self, closure=None):
        if closure is not None:
            raise ValueError("SOAP takes no closure")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, self.state[parameter], group)

    def _update(self, parameter, state, group):
        gradient = parameter.grad
        sides = [side for side in range(gradient.dim()) if gradient.dim() == 2 and gradient.shape[side] <= group["largest"]]
        if not state:
            state["step"] = torch.zeros(())
            state["first"] = torch.zeros_like(gradient)
            state["second"] = torch.zeros_like(gradient)
            for side in sides:
                state[f"covariance{side}"] = _outer(gradient, side)
                state[f"basis{side}"] = torch.linalg.eigh(state[f"covariance{side}"])[1]
        state["step"] += 1
        step = int(state["step"])
        beta1, beta2 = group["betas"]
        bases = {side: state[f"basis{side}"] for side in sides}
        state["first"].lerp_(gradient, 1 - beta1)
        rotated = _rotate(gradient, bases)
        state["second"].lerp_(rotated.square(), 1 - beta2)
        denominator = (state["second"] / (1 - beta2 ** step)).sqrt_().add_(group["eps"])
        update = _rotate_back(_rotate(state["first"], bases) / denominator, bases)
        parameter.add_(update, alpha=-group["lr"] / (1 - beta1 ** step))
        for side in sides:
            covariance = state[f"covariance{side}"].lerp_(_outer(gradient, side), 1 - group["shampoo_beta"])
            if step % group["refresh"] == 0:
                state[f"basis{side}"] = torch.linalg.qr(covariance @ state[f"basis{side}"])[0]


def _outer(gradient, side):
    return gradient @ gradient.t() if side == 0 else gradient.t() @ gradient


def _rotate(matrix, bases):
    if 0 in bases:
        matrix = bases[0].t() @ matrix
    if 1 in bases:
        matrix = matrix @ bases[1]
    return matrix


def _rotate_back(matrix, bases):
    if 0 in bases:
        matrix = bases[0] @ matrix
    if 1 in bases:
        matrix = matrix @ bases[1].t()
    return matrix
