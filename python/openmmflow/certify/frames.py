# SPDX-License-Identifier: MIT
"""Frames of the force field that the model is measured against."""
from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from .protocol import TEMPERATURE


@dataclass(frozen=True)
class Frames:
    """Amber's frames at 300 K: one trajectory for each file, in order of time."""

    positions: list[np.ndarray]
    """(frames, 22, 3) each, nm"""
    forces: list[np.ndarray]
    """likewise, kJ/mol/nm"""
    energies: list[np.ndarray]
    """(frames,) each, kJ/mol"""
    names: list[str]

    def held_out(self, fraction: float) -> Frames:
        """The last frames of each file, which training does not see."""
        def tail(arrays):
            return [array[len(array) - int(round(fraction * len(array))):] for array in arrays]

        return Frames(tail(self.positions), tail(self.forces), tail(self.energies), self.names)


def read_frames(paths) -> Frames:
    """Read data sets that ``openmmflow dataset`` made, also while they are growing."""
    positions, forces, energies = [], [], []
    for path in paths:
        with h5py.File(path, "r", locking=False) as file:
            temperature = json.loads(file.attrs["description"])["temperature"]
            if temperature != TEMPERATURE:
                raise ValueError(f"{path} is of {temperature} K, expected {TEMPERATURE} K")
            count = len(file["energies"])
            positions.append(file["positions"][:count])
            forces.append(file["forces"][:count])
            energies.append(file["energies"][:count])
    return Frames(positions, forces, energies, [Path(path).name for path in paths])
