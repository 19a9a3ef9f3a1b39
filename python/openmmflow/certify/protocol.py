# SPDX-License-Identifier: MIT
"""How long and how often everything is run, and on what: the definitions behind the figures (docs/theory.md)."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .. import analysis, dataset

TEMPERATURE = 300.0
"""K; of the data, and what k_BT means in every figure."""
KT = dataset.MOLAR_GAS_CONSTANT * TEMPERATURE
FRAME_ATOMS = (14, 8, 6)
"""The frame that likelihoods in measure "frame" are quoted for."""
PHI, PSI = (4, 6, 8, 14), (6, 8, 14, 16)
BASINS = {
    "beta": lambda phi, psi: ~analysis.in_alpha_l(phi) & (np.abs(psi) > np.radians(90)),
    "alphaR": lambda phi, psi: ~analysis.in_alpha_l(phi) & (psi > np.radians(-70)) & (psi < np.radians(30)),
    "alphaL": lambda phi, psi: analysis.in_alpha_l(phi) & (psi > np.radians(-30)) & (psi < np.radians(90)),
}
"""Where the NVT runs start: φ and ψ in radian."""
NVT_PLATFORM = "CPU"
"""Twice as fast as Reference, in single precision where that is enough; energy conservation is measured in double, on Reference."""
ENERGY_SAMPLING = 15.0
"""fs between energies in NVE runs: a whole number of steps of every size."""


@dataclass(frozen=True)
class Protocol:
    """Numbers and lengths of the runs; ps."""

    starts: int = 10
    nve_length: float = 100.0
    step_sizes: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    """fs"""
    step_size_length: float = 5.0
    nvt_length: float = 1000.0
    long_nve_length: float = 1000.0
    long_nvt_length: float = 10_000.0
    samples: int = 100_000
    """of the flow, to be reweighted to the force field"""
    block: int = 1000
    """frames of the data that are nearly independent of the next ones"""
