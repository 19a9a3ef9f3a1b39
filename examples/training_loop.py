# SPDX-License-Identifier: MIT
"""An own training loop: FlowModule is a torch.nn.Module as any other, also for DistributedDataParallel.

    python examples/training_loop.py MODEL.safetensors DATA.h5
    torchrun --standalone --nproc-per-node 2 examples/training_loop.py MODEL.safetensors DATA.h5

MODEL is where training starts, `openmmflow.builder.build` makes one; DATA is a data set of `openmmflow dataset`. Prints a line of JSON for
each step. The losses are the same for any number of processes, as every step takes the same frames.
"""
import argparse
import json
import os

import h5py
import torch
from openmmflow_training import FlowModule
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

MOLAR_GAS_CONSTANT = 0.00831446261815324    # kJ/mol/K


def train(options, rank, processes):
    """The part of one of several processes."""
    module = FlowModule(options.model).double()
    flow = DistributedDataParallel(module) if processes > 1 else module
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
    with h5py.File(options.data, "r") as file:
        positions = torch.from_numpy(file["positions"][:])
        forces = torch.from_numpy(file["forces"][:]) / (MOLAR_GAS_CONSTANT * module.temperature)

    random = torch.Generator().manual_seed(0)
    for step in range(options.steps):
        frames = torch.randint(len(positions), (options.batch,), generator=random)[rank::processes]
        log_prob, gradient = flow(positions[frames], "log_prob_and_gradient", create_graph=True)
        loss = -log_prob.mean() + options.force_weight * (gradient - forces[frames]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mean = loss.detach() / processes
        if processes > 1:
            distributed.all_reduce(mean)
        if rank == 0:
            print(json.dumps({"step": step, "loss": mean.item()}), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--force-weight", type=float, default=1e-3)
    options = parser.parse_args()

    if "RANK" not in os.environ:
        train(options, 0, 1)
        return
    # torchrun started this process. Everything that uses the group of processes is gone before the group is.
    distributed.init_process_group("gloo")
    train(options, distributed.get_rank(), distributed.get_world_size())
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
