# SPDX-License-Identifier: MIT
"""What an installed openmmflow-training must be able to do, in seconds and without any tool of the tests: python tests/smoke_training.py"""
import numpy as np
import openmmflow
import torch
from openmmflow import shipped
from openmmflow_training import FlowModule


def main():
    model = openmmflow.FlowModel.load(shipped.MODEL)
    positions, log_prob = model.sample(50, seed=1)
    module = FlowModule(shipped.MODEL)
    x = torch.from_numpy(positions)
    difference = np.abs(module.double().log_prob(x).detach().numpy() - log_prob).max()
    if not difference < 1e-4:
        raise SystemExit(f"ln p of FlowModule is off by {difference}")
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-4)
    losses = []
    for _ in range(4):
        loss = -module.log_prob(x).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    if not losses[-1] < losses[0]:
        raise SystemExit(f"training does not lower the loss: {losses}")
    print(f"openmmflow-training works with PyTorch {torch.__version__}: ln p off by {difference:.1e}, loss from {losses[0]:.3f} to {losses[-1]:.3f}")


if __name__ == "__main__":
    main()
