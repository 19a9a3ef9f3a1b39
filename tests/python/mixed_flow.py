# SPDX-License-Identifier: MIT
"""A small flow with mixed coordinates that is calm enough for dynamics: the four inner particles of a chain of six are a block."""
import numpy as np
from openmm import app
from random_flow import ANGLE, ANGLE_STD, BOND, BOND_STD, random_flow

PARTICLES, BLOCK, ROWS = 6, [4, 1, 3, 2], [[0, 1, 2, 3], [5, 4, 3, 2]]
TORSION = 1.0
BLOCK_STD = 0.003
"""nm, of each direction in which the block is deformed."""


def reference() -> np.ndarray:
    """The block (4, 3), nm: a bent chain that is not planar."""
    turn = np.pi - ANGLE
    bonds = BOND * np.array([[1, 0, 0], [np.cos(turn), np.sin(turn), 0], [np.cos(turn)**2 - np.sin(turn)**2 * np.cos(TORSION),
                             np.sin(turn) * np.cos(turn) * (1 + np.cos(TORSION)), np.sin(turn) * np.sin(TORSION)]])
    chain = np.vstack([np.zeros(3), np.cumsum(bonds, axis=0)])
    return chain[np.array(BLOCK) - 1]


def deformations(points: np.ndarray) -> np.ndarray:
    """Orthonormal rows (3 n - 6, 3 n): what leaves the centre of the points (n, 3) and their orientation to first order."""
    shifts = [np.tile(axis, (len(points), 1)) for axis in np.eye(3)]
    turns = [np.cross(axis, points - points.mean(axis=0)) for axis in np.eye(3)]
    return np.linalg.svd(np.array(shifts + turns).reshape(6, -1))[2][6:]


def mixed_flow(seed=0, *, weight_scale=0.3):
    """Architecture and tensors in measure "cartesian": normal distributions, and two couplings of everything with everything else."""
    architecture, _ = random_flow(seed, PARTICLES)
    bonds, angles, torsions, block = [0, 1], [2, 3], [4, 5], list(range(6, 12))
    tensors = {"layers.0.reference": reference(), "layers.0.whitening": deformations(reference()) / BLOCK_STD}
    for layer, (coordinates, mean, std) in enumerate(((bonds, BOND, BOND_STD), (angles, ANGLE / np.pi, ANGLE_STD / np.pi), (block, 0.0, 1.0)), 1):
        for name, value in {"mean": mean, "std": std, "lower": mean - 8 * std, "upper": mean + 8 * std}.items():
            tensors[f"layers.{layer}.{name}"] = np.full(len(coordinates), value)
    layers = [{"type": "mixedCoordinates", "block": BLOCK, "blockDimensions": 6, "zMatrix": ROWS}]
    layers += [{"type": "marginal", "distribution": "truncatedNormal", "coordinates": coordinates} for coordinates in (bonds, angles, block)]
    random = np.random.default_rng(seed)
    for transformed, conditioned_on, template in ((torsions + block[:3], bonds + angles + block[3:], 3), (bonds + angles + block[3:],
                                                  torsions + block[:3], 4)):
        layer = {**architecture["layers"][template], "transformed": transformed, "conditionedOn": conditioned_on}
        widths = [len(conditioned_on) + len(set(torsions) & set(conditioned_on)), 8, 5 * layer["transformer"]["components"] * len(transformed)]
        for m, (inputs, outputs) in enumerate(zip(widths, widths[1:])):
            name = f"layers.{len(layers)}.networks.0.{m}"
            tensors[f"{name}.weight"] = weight_scale * random.normal(size=(outputs, inputs)) / np.sqrt(inputs)
            tensors[f"{name}.bias"] = weight_scale * random.normal(size=outputs)
        layers.append(layer)
    base = [{"distribution": "uniform", "coordinates": list(range(12))}]
    return {**architecture, "version": 2, "layers": layers, "base": base}, tensors


def topology() -> app.Topology:
    """The molecule: carbons in a chain."""
    made = app.Topology()
    residue = made.addResidue("MOL", made.addChain())
    atoms = [made.addAtom(f"C{i}", app.element.carbon, residue) for i in range(PARTICLES)]
    for pair in zip(atoms, atoms[1:]):
        made.addBond(*pair)
    return made
