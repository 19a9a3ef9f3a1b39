# SPDX-License-Identifier: MIT
"""Single precision on the CPU platform against double precision on Reference."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import openmm

from .. import FlowModel, builder, dataset
from . import systems

LIMITS = {"force_error": 2e-5, "energy_rms": 1e-3, "energy_max": 1e-2}
"""What is demanded of trained models: see Accuracy for units."""


@dataclass(frozen=True)
class Accuracy:
    """How much one platform differs from another over some frames."""

    frames: int
    force_rms: float
    """Root mean square over frames and components, k_BT/nm."""
    force_error: float
    """That of the difference, as a fraction of force_rms."""
    energy_rms: float
    """Of the differences of energies, k_BT."""
    energy_max: float

    def within_limits(self) -> bool:
        return all(getattr(self, name) <= limit for name, limit in LIMITS.items())


def compare(model, frames, *, platform: str = "CPU", threads: int | None = None) -> Accuracy:
    """FlowForce of one molecule on a platform against Reference.

    Parameters
    ----------
    model : a path or a FlowModel.
    frames : (frames, particles, 3), nm.
    """
    model = model if isinstance(model, FlowModel) else FlowModel.load(model)
    thermal_energy = dataset.MOLAR_GAS_CONSTANT * model.temperature
    system = systems.flow_system(model)
    contexts = [systems.context(system, name, frames[0], threads=threads, integrator=openmm.VerletIntegrator(0.001))
                for name in (platform, "Reference")]
    energies, forces = np.empty((2, len(frames))), np.empty((2, *frames.shape))
    for side, context in enumerate(contexts):
        for index, frame in enumerate(frames):
            context.setPositions(frame)
            energies[side, index], forces[side, index] = systems.energy_and_forces(context)
    rms = np.sqrt(np.mean(forces[1]**2))
    difference = (energies[0] - energies[1]) / thermal_energy
    return Accuracy(frames=len(frames), force_rms=float(rms / thermal_energy),
                    force_error=float(np.sqrt(np.mean((forces[0] - forces[1])**2)) / rms),
                    energy_rms=float(np.sqrt(np.mean(difference**2))), energy_max=float(np.abs(difference).max()))


def near_edges(model: FlowModel, frames, *, seed: int = 1, reach: float = 0.02) -> np.ndarray:
    """The frames, each with one bond or angle moved to an edge of its support.

    It comes to lie within a fraction ``reach`` of the width of the support from the edge, on either side; all other internal
    coordinates stay what they are.
    """
    if "block" in model.architecture["layers"][0]:
        raise ValueError("frames are moved to the edges of bonds and angles of a Z-matrix of all particles, and this model has mixed coordinates; "
                         "`openmmflow check` compares its platforms")
    z_matrix = model.architecture["layers"][0]["zMatrix"]
    lower, upper = _edges(model)
    bounded = np.flatnonzero(np.isfinite(lower))
    random = np.random.default_rng(seed)
    coordinates = builder.internal_coordinates(frames, z_matrix)
    for row in coordinates:
        index = random.choice(bounded)
        edge = (lower, upper)[random.integers(2)][index]
        row[index] = edge + reach * (upper - lower)[index] * random.uniform(-1, 1)
    return place(coordinates, z_matrix)


def place(coordinates: np.ndarray, z_matrix) -> np.ndarray:
    """Positions (frames, particles, 3) in nm from internal coordinates (frames, 3*particles-6), both in the order of the model format."""
    particles = len(z_matrix)
    bonds, angles = coordinates[:, :particles - 1], np.pi * coordinates[:, particles - 1:2 * particles - 3]
    torsions = 2 * np.pi * coordinates[:, 2 * particles - 3:] - np.pi
    first, = (row for row in z_matrix if list(row).count(-1) == 3)
    second, = (row for row in z_matrix if list(row).count(-1) == 2)
    third, = (row for row in z_matrix if list(row).count(-1) == 1)
    x = np.zeros((len(coordinates), particles, 3))
    x[:, second[0], 0] = bonds[:, 0]
    away = -1 if third[1] == second[0] else 1    # from the atom that the third one hangs on, towards the other one
    x[:, third[0]] = x[:, third[1]]
    x[:, third[0], 0] += away * bonds[:, 1] * np.cos(angles[:, 0])
    x[:, third[0], 1] += bonds[:, 1] * np.sin(angles[:, 0])
    placed = {first[0], second[0], third[0]}
    waiting = list(enumerate(row for row in z_matrix if -1 not in row))
    while waiting:
        ready = [entry for entry in waiting if placed.issuperset(entry[1][1:])]
        for index, (i, j, k, l) in ready:
            bond, angle, torsion = bonds[:, index + 2, None], angles[:, index + 1, None], torsions[:, index, None]
            along = x[:, j] - x[:, k]
            along /= np.linalg.norm(along, axis=-1, keepdims=True)
            normal = np.cross(x[:, k] - x[:, l], along)
            normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
            x[:, i] = x[:, j] + bond * (-np.cos(angle) * along + np.sin(angle) * (
                np.cos(torsion) * np.cross(normal, along) + np.sin(torsion) * normal))
            placed.add(i)
        waiting = [entry for entry in waiting if entry not in ready]
    return x


def _edges(model: FlowModel) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper edge of the support of every coordinate; infinite where there is none."""
    from .. import model_file

    architecture, tensors = model_file.unpack(model.to_bytes())
    lower, upper = np.full(model.num_coordinates, -np.inf), np.full(model.num_coordinates, np.inf)
    for index, layer in enumerate(architecture["layers"]):
        if layer["type"] == "marginal" and f"layers.{index}.lower" in tensors:
            angles_and_bonds = [c for c in layer["coordinates"] if c < 2 * model.num_particles - 3]
            rows = [layer["coordinates"].index(c) for c in angles_and_bonds]
            lower[angles_and_bonds] = tensors[f"layers.{index}.lower"][rows]
            upper[angles_and_bonds] = tensors[f"layers.{index}.upper"][rows]
    return lower, upper
