# SPDX-License-Identifier: MIT
"""A small flow with mixed coordinates that is calm enough for dynamics: the four inner particles of a chain of six are a block."""
import numpy as np
from openmm import app
from random_flow import ANGLE, ANGLE_STD, BOND, BOND_STD, random_flow

PARTICLES, BLOCK, ROWS = 6, [4, 1, 3, 2], [[0, 1, 2, 3], [5, 4, 3, 2]]
TORSION = 1.0
BLOCK_STD = 0.003
"""nm, of each direction in which the block is deformed."""


def reference(block) -> np.ndarray:
    """Particles (block, 3) of a bent chain, the first four of which are not planar, nm."""
    turn = np.pi - ANGLE
    bonds = BOND * np.array([[1, 0, 0], [np.cos(turn), np.sin(turn), 0], [np.cos(turn)**2 - np.sin(turn)**2 * np.cos(TORSION),
                             np.sin(turn) * np.cos(turn) * (1 + np.cos(TORSION)), np.sin(turn) * np.sin(TORSION)]])
    chain = np.vstack([np.zeros(3), np.cumsum(bonds, axis=0)])
    return chain[np.array(block) - min(block)]


def deformations(points: np.ndarray) -> np.ndarray:
    """Orthonormal rows (3 n - 6, 3 n): what leaves the centre of the points (n, 3) and their orientation to first order."""
    shifts = [np.tile(axis, (len(points), 1)) for axis in np.eye(3)]
    turns = [np.cross(axis, points - points.mean(axis=0)) for axis in np.eye(3)]
    return np.linalg.svd(np.array(shifts + turns).reshape(6, -1))[2][6:]


def mixed_flow(seed=0, *, block=BLOCK, rows=ROWS, measure="cartesian", dimensions=None, weight_scale=0.3):
    """Architecture and tensors: normal distributions, and two couplings of a half of the coordinates with the other.

    ``dimensions`` of the block are its deformations in measure "cartesian", any in measure "frame".
    """
    random = np.random.default_rng(seed)
    particles, size, placed = len(block) + len(rows), 3 * len(block), len(rows)
    architecture, _ = random_flow(seed, max(particles, 4))
    points = reference(block)
    directions = deformations(points) if measure == "cartesian" else np.linalg.qr(random.normal(size=(size, size)))[0][:dimensions]
    bonds, angles, torsions, whole = np.split(np.arange(3 * placed + len(directions)), [placed, 2 * placed, 3 * placed])
    tensors = {"layers.0.reference": points, "layers.0.whitening": directions / BLOCK_STD}
    layers = [{"type": "mixedCoordinates", "block": block, "blockDimensions": len(directions), "zMatrix": rows}]
    for coordinates, mean, std in ((bonds, BOND, BOND_STD), (angles, ANGLE / np.pi, ANGLE_STD / np.pi), (whole, 0.0, 1.0)):
        for name, value in {"mean": mean, "std": std, "lower": mean - 8 * std, "upper": mean + 8 * std}.items() if len(coordinates) else ():
            tensors[f"layers.{len(layers)}.{name}"] = np.full(len(coordinates), value)
        if len(coordinates):
            layers.append({"type": "marginal", "distribution": "truncatedNormal", "coordinates": coordinates.tolist()})
    half = len(whole) // 2
    one, other = [*torsions.tolist(), *whole[:half].tolist()], [*bonds.tolist(), *angles.tolist(), *whole[half:].tolist()]
    for transformed, conditioned_on, template in ((one, other, 3), (other, one, 4)):
        layer = {**architecture["layers"][template], "transformed": transformed, "conditionedOn": conditioned_on}
        features = len(conditioned_on) + len(set(torsions) & set(conditioned_on))
        widths = [features, 8, 5 * layer["transformer"]["components"] * len(transformed)]
        for m, (inputs, outputs) in enumerate(zip(widths, widths[1:])):
            name = f"layers.{len(layers)}.networks.0.{m}"
            tensors[f"{name}.weight"] = weight_scale * random.normal(size=(outputs, inputs)) / np.sqrt(inputs)
            tensors[f"{name}.bias"] = weight_scale * random.normal(size=outputs)
        layers.append(layer)
    base = [{"distribution": "uniform", "coordinates": list(range(3 * placed + len(directions)))}]
    return {**architecture, "version": 2, "numParticles": particles, "measure": measure, "layers": layers, "base": base,
            "bonds": [[i, i + 1] for i in range(particles - 1)]}, tensors


def topology() -> app.Topology:
    """The molecule: carbons in a chain."""
    made = app.Topology()
    residue = made.addResidue("MOL", made.addChain())
    atoms = [made.addAtom(f"C{i}", app.element.carbon, residue) for i in range(PARTICLES)]
    for pair in zip(atoms, atoms[1:]):
        made.addBond(*pair)
    return made
