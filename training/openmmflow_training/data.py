# SPDX-License-Identifier: MIT
"""Frames and forces from data sets of openmmflow.dataset, split into blocks of time."""
from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch

MOLAR_GAS_CONSTANT = 0.00831446261815324  # kJ/mol/K


@dataclass
class Frames:
    """Conformations and the forces on them.

    positions : (frames, particles, 3), nm, float64.
    forces : (frames, particles, 3), in k_BT/nm at the temperature of the data, float64.
    displacements : (frames, particles, 3), nm: how far thermal velocities carry each particle in a time step; or None.
    displaced_forces : (frames, 2, particles, 3), k_BT/nm, at positions + displacements and positions - displacements; or None.
    """

    positions: torch.Tensor
    forces: torch.Tensor
    displacements: torch.Tensor | None = None
    displaced_forces: torch.Tensor | None = None

    def __len__(self):
        return len(self.positions)

    def __getitem__(self, index) -> "Frames":
        return self.map(lambda tensor: tensor[index])

    def map(self, function) -> "Frames":
        """The frames with a function applied to every tensor."""
        return Frames(*(None if tensor is None else function(tensor) for tensor in self._tensors()))

    @staticmethod
    def concatenated(parts: list["Frames"]) -> "Frames":
        """All frames of the parts; displacements only if every part has them."""
        return Frames(*(None if any(t is None for t in tensors) else torch.cat(tensors)
                        for tensors in zip(*(part._tensors() for part in parts))))

    def _tensors(self):
        return self.positions, self.forces, self.displacements, self.displaced_forces


def read_datasets(paths) -> tuple[list[Frames], dict]:
    """The frames of each data set, and their common description.

    Files may still be written to: a copy is read.

    Raises
    ------
    ValueError : a file without positions and forces, non-finite numbers, or data sets at different temperatures.
    """
    frames, descriptions = [], []
    for path in map(Path, paths):
        with tempfile.TemporaryDirectory() as folder:
            copy = shutil.copy(path, folder)
            with h5py.File(copy, "r") as file:
                missing = {"positions", "forces"} - set(file)
                if missing:
                    raise ValueError(f"{path} is no data set of openmmflow: it has no {' and no '.join(sorted(missing))}")
                count = min(len(file["positions"]), len(file["forces"]))
                positions, forces = file["positions"][:count], file["forces"][:count]
                displaced = {name: file[name][:count] for name in ("displacements", "displaced_forces")
                             if len(file.get(name, ())) >= count}
                descriptions.append(json.loads(file.attrs["description"]))
        if not (np.isfinite(positions).all() and np.isfinite(forces).all()):
            raise ValueError(f"{path} holds positions or forces that are not finite")
        scale = 1 / (MOLAR_GAS_CONSTANT * descriptions[-1]["temperature"])
        frames.append(Frames(torch.from_numpy(positions), torch.from_numpy(forces * scale)))
        if len(displaced) == 2:
            frames[-1].displacements = torch.from_numpy(displaced["displacements"])
            frames[-1].displaced_forces = torch.from_numpy(displaced["displaced_forces"] * scale)
    if not frames:
        raise ValueError("no data set was given")
    temperatures = {d["temperature"] for d in descriptions}
    if len(temperatures) > 1:
        raise ValueError(f"the data sets are of different temperatures, {sorted(temperatures)} K; a flow has one")
    description = {key: value for key, value in descriptions[0].items() if all(d.get(key) == value for d in descriptions)}
    return frames, description


def split_by_time(datasets: list[Frames], validation: float, test: float) -> tuple[Frames, Frames, Frames]:
    """Training, validation and test frames: the last part of each data set is its test, the part before its validation."""
    parts = ([], [], [])
    for frames in datasets:
        end = len(frames) - round(test * len(frames))
        middle = end - round(validation * len(frames))
        for part, block in zip(parts, (slice(0, middle), slice(middle, end), slice(end, None))):
            part.append(frames[block])
    return tuple(Frames.concatenated(part) for part in parts)


def cyclic_symmetries(bonds, elements) -> list[torch.Tensor]:
    """Rotations of groups of three equal atoms on one atom, methyl groups above all: particle permutations.

    The density of a force field does not change when the three hydrogens of a methyl group are turned, so each frame stands for
    three of them. (The exchange of two hydrogens is another matter: it inverts the group, and simulations never get there.)
    """
    neighbours = {}
    for i, j in bonds:
        neighbours.setdefault(i, set()).add(j)
        neighbours.setdefault(j, set()).add(i)
    permutations = []
    for atom in sorted(neighbours):
        leaves = {}
        for other in sorted(neighbours[atom]):
            if len(neighbours[other]) == 1:
                leaves.setdefault(elements[other], []).append(other)
        for group in leaves.values():
            if len(group) == 3 and len(neighbours[atom]) == 4:
                permutation = torch.arange(len(elements))
                permutation[group] = torch.tensor(group[1:] + group[:1])
                permutations.append(permutation)
    return permutations


def turn_symmetric_groups(frames: Frames, permutations, generator: torch.Generator) -> Frames:
    """Each frame with each group turned by a random number of places."""
    count, particles = frames.positions.shape[:2]
    index = torch.arange(particles).repeat(count, 1)
    for permutation in permutations:
        turns = torch.randint(3, (count,), generator=generator)
        for turn in (1, 2):
            chosen = turns >= turn
            index[chosen] = index[chosen][:, permutation]
    index = index.unsqueeze(-1).expand(-1, -1, 3)
    return frames.map(lambda tensor: tensor.gather(-2, index if tensor.dim() == 3 else index.unsqueeze(1).expand(tensor.shape)))
