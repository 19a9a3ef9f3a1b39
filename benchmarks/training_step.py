# SPDX-License-Identifier: MIT
"""A step of force matching: FlowModule's fused operators against the same flow in plain PyTorch, batch 128, one thread.

    python benchmarks/training_step.py [--model MODEL.safetensors] [--profile]

Both compute -ln p and the mean squared error of d ln p/dx for the same conformations, differentiate the weighted sum with respect to all weights,
and let Adam take a step. They are timed in turns, in processor time; medians are compared. The model is the published flow (314,456
parameters) if OPENMMFLOW_SHARED_DATA names the folder of its checkpoint, otherwise one of its size with random weights. Both must agree on
loss and gradient, or the program fails.
"""
from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from openmmflow import model_file
from openmmflow.benchmark import models
from openmmflow.benchmark.torch_flow import TorchFlow
from openmmflow_training import FlowModule

DEMANDED = 3.0
FORCE_WEIGHT = 1e-3


def fused(model: Path):
    module = FlowModule(model).float()
    return module, lambda x: module.log_prob_and_gradient(x, create_graph=True)


def plain(model: Path):
    flow = TorchFlow(*model_file.read(model))
    flow.requires_grad_(True)

    def evaluate(x):
        x = x.float().requires_grad_()
        log_prob = flow(x)
        return log_prob, torch.autograd.grad(log_prob.sum(), x, create_graph=True)[0]

    return flow, evaluate


class Contestant:
    """A flow with its optimizer, and the processor seconds of its steps."""

    def __init__(self, flow, evaluate):
        self.evaluate = evaluate
        self.parameters = list(flow.parameters())
        self.optimizer = torch.optim.Adam(self.parameters, lr=1e-6, fused=True)
        self.seconds, self.losses, self.gradient_norm = [], [], 0.0

    def step(self, positions, forces):
        start = time.process_time()
        log_prob, gradient = self.evaluate(positions)
        loss = -log_prob.mean() + FORCE_WEIGHT * (gradient - forces).square().mean()
        for parameter, value in zip(self.parameters, torch.autograd.grad(loss, self.parameters)):
            parameter.grad = value
        self.optimizer.step()
        self.seconds.append(time.process_time() - start)
        self.losses.append(loss.item())
        self.gradient_norm = sum(p.grad.double().square().sum() for p in self.parameters).sqrt().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model of alanine dipeptide")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--profile", action="store_true", help="show what the fused step spends its time in")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path, what = (options.model, "a given file") if options.model else models.make("314k", Path(folder))
        contestants = {"fused operators": Contestant(*fused(path)), "plain PyTorch": Contestant(*plain(path))}
    positions = torch.from_numpy(models.conformations(options.batch))
    forces = torch.zeros_like(positions)
    for round_ in range(options.rounds + 1):
        for contestant in contestants.values():
            contestant.step(positions, forces)
        if round_ == 0:
            (a, b) = contestants.values()
            for what_, x, y in (("loss", a.losses[0], b.losses[0]), ("norm of the gradient", a.gradient_norm, b.gradient_norm)):
                if not abs(x / y - 1) < 1e-3:
                    raise SystemExit(f"the two do not compute the same: {what_} {x} and {y}")
    milliseconds = {name: 1000 * statistics.median(c.seconds[1:]) for name, c in contestants.items()}
    ratio = milliseconds["plain PyTorch"] / milliseconds["fused operators"]
    print(f"one step of force matching, batch {options.batch}, one thread, {what}, medians of {options.rounds}:")
    for name, value in milliseconds.items():
        print(f"  {name:16s} {value:8.1f} ms of processor time")
    print(f"  ratio {ratio:.2f} (demanded: {DEMANDED:g}, {'met' if ratio >= DEMANDED else f'short by a factor {DEMANDED / ratio:.2f}'})")
    if options.profile:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            contestants["fused operators"].step(positions, forces)
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=15))


if __name__ == "__main__":
    main()
