# SPDX-License-Identifier: MIT
"""Several processes that train one flow: what ``torchrun`` starts. Without it there is one process, and nothing here does anything."""
from __future__ import annotations

import os

import torch
from torch import distributed


def start() -> bool:
    """Join the other processes if ``torchrun`` started this one, through gloo; whether this call did so."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or distributed.is_initialized():
        return False
    distributed.init_process_group("gloo")
    return True


def stop():
    """Leave the other processes."""
    distributed.destroy_process_group()


def size() -> int:
    """Number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """The number of this process, 0 for the one that writes files."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def average(tensors: list[torch.Tensor], numbers: list[float]) -> tuple[list[torch.Tensor], list[float]]:
    """Means over the processes of equally shaped tensors, and of numbers, in one message."""
    if size() == 1:
        return tensors, numbers
    flat = torch.cat([*(t.reshape(-1).double() for t in tensors), torch.tensor(numbers, dtype=torch.float64)])
    distributed.all_reduce(flat)
    flat /= size()
    pieces = flat[:len(flat) - len(numbers)].split([t.numel() for t in tensors])
    return [piece.reshape(t.shape).to(t.dtype) for piece, t in zip(pieces, tensors)], flat[len(flat) - len(numbers):].tolist()


def wait():
    """Until every process is here."""
    if size() > 1:
        distributed.barrier()
