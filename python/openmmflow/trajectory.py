# SPDX-License-Identifier: MIT
"""The files that a run appends to, and how they are cut back to a checkpoint."""
from __future__ import annotations

import dataclasses
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Layout of the CHARMM-style DCD files that OpenMM writes, little-endian: the header is three Fortran records.
_DCD_HEADER_BYTES = 84 + 164 + 4 + 6 * 4
_DCD_NUM_FRAMES_OFFSET = 8
_DCD_FIRST_STEP_OFFSET = 12
_DCD_INTERVAL_OFFSET = 16
_DCD_LAST_STEP_OFFSET = 20
_DCD_HAS_BOX_OFFSET = 48
_DCD_NUM_PARTICLES_OFFSET = 268
_DCD_BOX_RECORD_BYTES = 48 + 2 * 4


@dataclass(frozen=True)
class Energies:
    """The columns of an energies.csv, each (samples,)."""

    step: np.ndarray
    time: np.ndarray
    """ps"""
    potential: np.ndarray
    """kJ/mol, as are the other energies."""
    kinetic: np.ndarray
    total: np.ndarray
    temperature: np.ndarray
    """K"""

    def until(self, time: float) -> Energies:
        """Those up to a time, ps, with half an interval of slack, as steps add up to times with rounding."""
        slack = 0.5 * (self.time[1] - self.time[0]) if len(self.time) > 1 else 0.0
        chosen = self.time <= time + slack
        return Energies(*(getattr(self, field.name)[chosen] for field in dataclasses.fields(self)))


def read_energies(path) -> Energies:
    """Read the CSV file of a run. Raises ValueError when it holds no line."""
    table = np.loadtxt(path, delimiter=",", comments="#", ndmin=2)
    if table.size == 0:
        raise ValueError(f"{path} holds no energies yet: the run is shorter than its report interval")
    return Energies(*table.T)


def read_positions(path) -> np.ndarray:
    """Positions (frames, particles, 3) in nm of a DCD file that OpenMM wrote."""
    with open(path, "rb") as file:
        num_particles, box_bytes = _dcd_layout(path, file.read(_DCD_HEADER_BYTES))
        frame = np.dtype([("box", f"V{box_bytes}"), ("xyz", [("begin", "<i4"), ("values", "<f4", num_particles), ("end", "<i4")], 3)])
        frames = np.frombuffer(file.read(), dtype=frame)
    # Stored in Å, one record for each of x, y and z.
    return np.moveaxis(frames["xyz"]["values"], 1, 2).astype(float) / 10


def _dcd_layout(path, header: bytes) -> tuple[int, int]:
    """Number of particles, and bytes that the box takes in each frame."""
    if len(header) < _DCD_HEADER_BYTES or header[4:8] != b"CORD":
        raise ValueError(f"{path} is not a DCD file that OpenMM wrote")
    return _number(header, _DCD_NUM_PARTICLES_OFFSET), _DCD_BOX_RECORD_BYTES * bool(_number(header, _DCD_HAS_BOX_OFFSET))


def _number(header: bytes, offset: int) -> int:
    return struct.unpack_from("<i", header, offset)[0]


def truncate_csv(path, lines: int):
    """Cut a CSV file with one header line back to ``lines`` lines of data. Raises ValueError when it has fewer."""
    with open(path, "r+b") as file:
        for present in range(lines + 1):
            if not file.readline().endswith(b"\n"):
                raise ValueError(f"{path} holds {max(present - 1, 0)} lines of data, its checkpoint expects {lines}")
        file.truncate(file.tell())


def truncate_dcd(path, frames: int):
    """Cut a DCD file that OpenMM wrote back to ``frames`` frames. Raises ValueError when it has fewer."""
    with open(path, "r+b") as file:
        header = file.read(_DCD_HEADER_BYTES)
        num_particles, box_bytes = _dcd_layout(path, header)
        frame_bytes = box_bytes + 3 * (4 * num_particles + 8)
        present = (file.seek(0, os.SEEK_END) - _DCD_HEADER_BYTES) // frame_bytes
        if present < frames:
            raise ValueError(f"{path} holds {present} frames, its checkpoint expects {frames}")
        file.truncate(_DCD_HEADER_BYTES + frames * frame_bytes)
        last_step = _number(header, _DCD_FIRST_STEP_OFFSET) + (frames - 1) * _number(header, _DCD_INTERVAL_OFFSET)
        for offset, value in ((_DCD_NUM_FRAMES_OFFSET, frames), (_DCD_LAST_STEP_OFFSET, last_step if frames else 0)):
            file.seek(offset)
            file.write(struct.pack("<i", value))
