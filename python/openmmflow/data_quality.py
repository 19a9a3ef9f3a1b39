# SPDX-License-Identifier: MIT
"""How good a data set is: how independent its frames are, whether populations have converged, whether runs agree."""
from __future__ import annotations

import itertools
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from . import analysis, builder, molecules

MOST_INEFFICIENT = 1.2
"""What the mean statistical inefficiency of bonds and angles should not exceed."""
BLOCKS = 10


@dataclass(frozen=True)
class RunQuality:
    """Figures of one data set.

    frames : conformations, of all copies of the molecule.
    inefficiency, worst_inefficiency : statistical inefficiencies of bonds and angles, their mean and the largest; 1 for independent
        frames. The variance of a mean over N frames is that of N/inefficiency independent ones.
    population : of the φ-basin of positive φ (openmmflow.analysis), None without backbone torsions.
    error : standard error of the population.
    transitions : effective number of transitions between the basin and the rest per tenth of the run: as many as independent
        frames of the same statistical weight would make, 2 p (1-p) N/inefficiency.
    """

    name: str
    frames: int
    inefficiency: float
    worst_inefficiency: float
    population: float | None = None
    error: float | None = None
    transitions: float | None = None


def statistical_inefficiency(values) -> np.ndarray:
    """1 + 2 Σ_t (1 - t/N) ρ(t) of each column of ``values`` (frames, quantities), up to the first t with an autocorrelation ρ(t) <= 0.

    The definition of Chodera et al., J. Chem. Theory Comput. 3, 26 (2007). A constant column has inefficiency 1.
    """
    values = np.asarray(values, dtype=float)
    count = len(values)
    centred = values - values.mean(axis=0)
    size = 1 << (2 * count - 1).bit_length()
    result = np.ones(values.shape[1])
    for column in range(values.shape[1]):
        spectrum = np.fft.rfft(centred[:, column], size)
        correlation = np.fft.irfft(spectrum * spectrum.conj(), size)[:count]
        # ρ with the unbiased normalization N - t, times (1 - t/N).
        if correlation[0] <= 1e-12 * count * np.abs(values[:, column]).max() ** 2:
            continue
        correlation = correlation[1:] / correlation[0]
        stop = np.argmax(correlation <= 0) if np.any(correlation <= 0) else len(correlation)
        result[column] = max(1.0, 1 + 2 * correlation[:stop].sum())
    return result


def run_quality(name: str, positions, topology) -> RunQuality:
    """Figures of the frames (frames, atoms, 3), nm, of one run in order of time.

    Of several copies of a molecule the first is looked at for inefficiencies and populations.
    """
    groups = molecules.copies(topology)
    molecule = molecules.subset(topology, groups[0])
    first = np.asarray(positions)[:, groups[0]]
    if len(first) < 10 * BLOCKS:
        raise ValueError(f"{name} has {len(first)} frames; the quality of less than {10 * BLOCKS} cannot be judged")
    z_matrix = builder.make_z_matrix(builder.bond_list(molecule, len(groups[0])), len(groups[0]))
    bonds_and_angles = builder.internal_coordinates(first, z_matrix)[:, :2 * len(z_matrix) - 3]
    inefficiency = statistical_inefficiency(bonds_and_angles)
    figures = {"name": name, "frames": len(first) * len(groups), "inefficiency": float(inefficiency.mean()),
               "worst_inefficiency": float(inefficiency.max())}
    torsions = analysis.backbone_torsions(molecule)
    if torsions:
        states = analysis.in_alpha_l(analysis.torsion_angles(first, torsions[0][0]))
        population = float(states.mean())
        independent = len(states) / statistical_inefficiency(states[:, None])[0]
        figures |= {"population": population, "error": float(np.sqrt(population * (1 - population) / independent)),
                    "transitions": float(2 * population * (1 - population) * independent / BLOCKS)}
    return RunQuality(**figures)


def read_runs(paths, topology) -> list[RunQuality]:
    """Figures of data sets of openmmflow.dataset, which may still be written to."""
    result = []
    for path in map(Path, paths):
        with tempfile.TemporaryDirectory() as folder, h5py.File(shutil.copy(path, folder), "r") as file:
            result.append(run_quality(path.name, file["positions"][:], topology))
    return result


def disagreement(runs: list[RunQuality]) -> float | None:
    """The largest difference of two runs' populations in units of its standard error; None for less than two runs with populations."""
    known = [run for run in runs if run.population is not None]
    scores = [abs(a.population - b.population) / max(np.hypot(a.error, b.error), 1e-300) if a.population != b.population else 0.0
              for a, b in itertools.combinations(known, 2)]
    return max(scores, default=None)


def text(runs: list[RunQuality]) -> str:
    """The figures as lines to print."""
    lines = []
    for run in runs:
        verdict = "" if run.inefficiency <= MOST_INEFFICIENT else f" (more than {MOST_INEFFICIENT}: frames are too close to each other)"
        lines.append(f"{run.name}: {run.frames} frames; statistical inefficiency of bonds and angles: mean {run.inefficiency:.2f}, "
                     f"largest {run.worst_inefficiency:.2f}{verdict}")
        if run.population is not None:
            lines.append(f"  population of 0° < φ < 140°: {run.population:.4f} ± {run.error:.4f}; "
                         f"{run.transitions:.1f} effective transitions per tenth of the run")
    score = disagreement(runs)
    if score is not None:
        lines.append(f"populations of {len(runs)} runs differ by at most {score:.1f} standard errors")
    return "\n".join(lines)
