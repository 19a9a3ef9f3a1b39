# SPDX-License-Identifier: MIT
"""The simplest flow of a molecule: its internal coordinates are independent, each with the marginal that is given to it.

It needs no training, and dynamics in it is stable: what tests of dynamics want.
"""
import numpy as np

from openmmflow import model_file

BOND_WIDTH = 0.004
"""nm"""
ANGLE_WIDTH = 0.02
"""of angle/π"""
REACH = 8.0
"""Standard deviations from the mean to the edges of the support."""


def z_matrix(bonds, first):
    """Rows that place every atom of a connected bond graph from atoms placed before, starting with the bonded atoms ``first``."""
    neighbours = {}
    for a, b in bonds:
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)
    f0, f1, f2 = first
    rows = [[f0, -1, -1, -1], [f1, f0, -1, -1], [f2, f1, f0, -1]]
    placed = [f0, f1, f2]
    while len(placed) < len(neighbours):
        i, j = next((i, j) for j in placed for i in neighbours[j] if i not in placed)
        k = next(k for k in neighbours[j] if k in placed)
        l = next(l for centre in (k, j) for l in neighbours[centre] if l in placed and l not in (j, k))
        rows.append([i, j, k, l])
        placed.append(i)
    return rows


def write_marginal_flow(path, positions, bonds, first, temperature=300.0):
    """Write a model file around one conformation, positions (particles, 3) in nm; returns the path."""
    rows = z_matrix(bonds, first)
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
