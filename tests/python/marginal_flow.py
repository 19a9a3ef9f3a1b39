# SPDX-License-Identifier: MIT
"""The simplest flow of a molecule: its internal coordinates are independent, each with the marginal that is given to it.

It needs no training, and dynamics in it is stable: what tests of dynamics want.
"""
import numpy as np

from openmmflow import model_file
from openmmflow.builder import make_z_matrix

BOND_WIDTH = 0.004
"""nm"""
ANGLE_WIDTH = 0.02
"""of angle/π"""
REACH = 8.0
"""Standard deviations from the mean to the edges of the support."""


def write_marginal_flow(path, positions, bonds, temperature=300.0):
    """Write a model file around one conformation, positions (particles, 3) in nm; returns the path."""
    rows = make_z_matrix(bonds, len(positions))
    full = rows[3:]
    lengths = [np.linalg.norm(positions[i] - positions[j]) for i, j, _, _ in rows[1:]]
    angles = [_angle(positions, i, j, k) / np.pi for i, j, k, _ in rows[2:]]
    num_bonds, num_angles, num_torsions = len(lengths), len(angles), len(full)
    mean = np.array(lengths + angles)
    std = np.array([BOND_WIDTH] * num_bonds + [ANGLE_WIDTH] * num_angles)
    upper = mean + REACH * std
    upper[num_bonds:] = np.minimum(upper[num_bonds:], 0.99)
    real = list(range(num_bonds + num_angles))
    architecture = {
        "format": "openmm-flow", "version": 1, "numParticles": len(positions), "temperature": temperature, "measure": "cartesian",
        "bonds": [list(map(int, bond)) for bond in bonds], "constraints": [], "data": {"forceField": ["none"], "environment": "vacuum"},
        "layers": [{"type": "internalCoordinates", "zMatrix": rows},
                   {"type": "marginal", "distribution": "truncatedNormal", "coordinates": real}],
        "base": [{"distribution": "uniform", "coordinates": list(range(len(real) + num_torsions))}]}
    model_file.write(path, architecture, {
        "layers.1.mean": mean, "layers.1.std": std, "layers.1.lower": mean - REACH * std, "layers.1.upper": upper})
    return path


def _angle(positions, i, j, k):
    u, v = positions[i] - positions[j], positions[k] - positions[j]
    return np.arccos(u @ v / np.linalg.norm(u) / np.linalg.norm(v))
