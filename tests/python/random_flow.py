# SPDX-License-Identifier: MIT
"""Small flows with random weights of a chain of particles, and conformations of such chains: inputs of tests."""
import numpy as np

BOND, BOND_STD = 0.15, 0.006
ANGLE, ANGLE_STD = 1.95, 0.08
MASS = 12.0


def random_flow(seed=0, particles=6, *, measure="cartesian", temperature=300.0, constraints=(), dtype=np.float64, weight_scale=0.3):
    """Architecture and tensors (docs/model_format.md) of a flow of a chain 0-1-2-...

    Every kind of layer is there: truncated normal marginals of bonds and angles, a coupling of circles conditioned on intervals
    (own head) and one of intervals conditioned on circles (published head).
    """
    random = np.random.default_rng(seed)
    tensors = {}
    bonds = list(range(particles - 1))
    angles = list(range(particles - 1, 2 * particles - 3))
    torsions = list(range(2 * particles - 3, 3 * particles - 6))

    def marginal(layer, coordinates, mean, std):
        count = len(coordinates)
        for name, value in {"mean": mean, "std": std, "lower": mean - 8 * std, "upper": mean + 8 * std}.items():
            tensors[f"layers.{layer}.{name}"] = np.full(count, value, dtype)
        return {"type": "marginal", "distribution": "truncatedNormal", "coordinates": coordinates}

    def coupling(layer, transformed, conditioned_on, head):
        components, hidden = 3, 8
        features = sum(2 if coordinate in torsions else 1 for coordinate in conditioned_on)
        widths = [features, hidden, 5 * components * len(transformed)]
        for m, (inputs, outputs) in enumerate(zip(widths, widths[1:])):
            tensors[f"layers.{layer}.networks.0.{m}.weight"] = (
                weight_scale * random.normal(size=(outputs, inputs)) / np.sqrt(inputs)).astype(dtype)
            tensors[f"layers.{layer}.networks.0.{m}.bias"] = (weight_scale * random.normal(size=outputs)).astype(dtype)
        return {
            "type": "coupling", "transformed": transformed, "conditionedOn": conditioned_on,
            "transformer": {"type": "smoothMixture", "head": head, "closedForm": "density", "components": components,
                            "exponent": 1, "alphaOffset": 0.8660254037844386, "alphaRange": 1.5, "logSteepnessBound": 1.0,
                            "minimumFloor": 0.3},
            "conditioner": {"activation": "silu", "networks": [[hidden]]},
        }

    z_matrix = [[i, *range(i - 1, max(i - 4, -1), -1)] for i in range(particles)]
    architecture = {
        "format": "openmm-flow", "version": 1, "numParticles": particles, "temperature": temperature, "measure": measure,
        "bonds": [[i, i + 1] for i in range(particles - 1)], "constraints": [list(c) for c in constraints],
        "data": {"environment": "vacuum", "method": "random weights"},
        "layers": [
            {"type": "internalCoordinates", "zMatrix": [row + [-1] * (4 - len(row)) for row in z_matrix]},
            marginal(1, bonds, BOND, BOND_STD),
            marginal(2, angles, ANGLE / np.pi, ANGLE_STD / np.pi),
            coupling(3, torsions, bonds + angles, "free"),
            coupling(4, bonds + angles, torsions, "published"),
        ],
        "base": [{"distribution": "uniform", "coordinates": bonds + angles + torsions}],
    }
    return architecture, tensors


def conformations(seed=0, count=1, particles=6, spread=1.5):
    """Positions (count, particles, 3) of chains in nm, rotated and shifted at random, all within the support of random_flow."""
    random = np.random.default_rng(seed)
    x = np.zeros((count, particles, 3))
    for frame in x:
        bonds = BOND + spread * BOND_STD * random.uniform(-1, 1, particles)
        angles = ANGLE + spread * ANGLE_STD * random.uniform(-1, 1, particles)
        torsions = random.uniform(-np.pi, np.pi, particles)
        frame[1] = [0, 0, bonds[1]]
        frame[2] = frame[1] + bonds[2] * np.array([np.sin(angles[2]), 0, -np.cos(angles[2])])
        for i in range(3, particles):
            axis = _unit(frame[i - 1] - frame[i - 2])
            normal = _unit(np.cross(frame[i - 2] - frame[i - 3], axis))
            across = np.cross(normal, axis)
            frame[i] = frame[i - 1] + bonds[i] * (-np.cos(angles[i]) * axis + np.sin(angles[i]) * (
                np.cos(torsions[i]) * across + np.sin(torsions[i]) * normal))
        frame[:] = frame @ rotation(random).T + random.normal(size=3)
    return x


def rotation(random):
    """A random proper rotation."""
    q, r = np.linalg.qr(random.normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else -q


def _unit(vector):
    return vector / np.linalg.norm(vector)


def displacements(reference):
    """An orthonormal basis (3 · particles - 6, 3 · particles) of displacements that neither move nor turn a conformation about its centre."""
    particles = len(reference)
    moves = [np.tile(axis, (particles, 1)) for axis in np.eye(3)] + [np.cross(axis, reference) for axis in np.eye(3)]
    return np.linalg.svd(np.array(moves).reshape(6, 3 * particles))[2][6:]
