# SPDX-License-Identifier: MIT
"""A flow for a molecule: Z-matrix from its bonds, marginals from conformations, couplings, initial weights.

The result is (architecture, tensors), what :mod:`openmmflow.model_file` writes and the trainer starts from. Nothing here needs
torch.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import model_file

SIGMAS = 9.0            # edges of the support of bonds and angles, in standard deviations
ANGLE_RANGE = (0.02, 0.98)   # of angles/pi: collinear atoms have no torsion
SHORTEST_BOND = 0.02    # nm


@dataclass(frozen=True)
class FlowOptions:
    """The shape of a flow.

    Attributes
    ----------
    width, depth : of the hidden layers of every conditioner.
    activation : of the conditioners.
    components : of every smooth mixture.
    exponent : of its ramp, 1 or 2.
    alpha_range, minimum_floor : of its head, see docs/model_format.md.
    log_steepness_bound : of its head, for coordinates that are spread over their domain already. Small values keep the flow
        smooth on the scale of a time step (docs/theory.md, "What a step must resolve").
    first_log_steepness_bound : of couplings that meet a torsion for the first time, which may be narrowly distributed.
    bond_rounds, shape_rounds, torsion_rounds : how many couplings transform halves of the bonds, of the angles and improper
        torsions, and of the proper torsions.
    """

    width: int = 128
    depth: int = 2
    activation: str = "silu"
    components: int = 8
    exponent: int = 1
    log_steepness_bound: float = 0.5
    first_log_steepness_bound: float = 3.0
    alpha_range: float = 1.5
    minimum_floor: float = 1e-4
    bond_rounds: int = 2
    shape_rounds: int = 4
    torsion_rounds: int = 4

    def __post_init__(self):
        if min(self.width, self.components, self.bond_rounds, self.shape_rounds, self.torsion_rounds) < 1 or self.depth < 0:
            raise ValueError("width, components and rounds of a flow must be at least 1, depth at least 0")
        if self.exponent not in (1, 2):
            raise ValueError(f"the exponent of a smooth mixture is 1 or 2, got {self.exponent}")
        if min(self.log_steepness_bound, self.first_log_steepness_bound, self.alpha_range) <= 0:
            raise ValueError("log_steepness_bound, first_log_steepness_bound and alpha_range must be positive")
        if not 0 < self.minimum_floor < 1:
            raise ValueError(f"minimum_floor must be between 0 and 1, got {self.minimum_floor}")

    @property
    def alpha_offset(self) -> float:
        """The smallest alpha with a unimodal component: sqrt(3)/2 for exponent 1, sqrt(3/32) for 2."""
        return np.sqrt(3) / 2 if self.exponent == 1 else np.sqrt(3 / 32)

    @property
    def peak_slope(self) -> float:
        """The density of a component at its centre is this times alpha times sigma."""
        return 2.0 if self.exponent == 1 else 8.0

    @property
    def resting_alpha(self) -> float:
        """K evenly spread components of this alpha and sigma = 1, of density K/2 at the centre, add up to nearly the identity."""
        return self.clip_alpha(0.5 * self.components / self.peak_slope)

    def clip_alpha(self, alpha):
        """The nearest values that the head reaches with moderate raw parameters."""
        return np.clip(alpha, self.alpha_offset + 0.02 * self.alpha_range, self.alpha_offset + 0.95 * self.alpha_range)


def build(topology, positions, *, temperature: float, measure: str = "cartesian", constraints=(), data: dict | None = None,
          options: FlowOptions = FlowOptions(), seed: int = 1) -> tuple[dict, dict[str, np.ndarray]]:
    """A flow whose density is near the product of the marginals of ``positions``, ready for training.

    Parameters
    ----------
    topology : an openmm.app.Topology, or the bonds as pairs of particles.
    positions : conformations at equilibrium, (frames, particles, 3) in nm, at least 100 of them.
    temperature : of the data, K.
    measure : "cartesian" or "frame", see docs/model_format.md.
    constraints : (particle, particle, distance in nm) of the constraints of the simulation.
    data : description of the data, stored in the model.
    options : shape of the flow.
    seed : of the initial weights.

    Raises
    ------
    ValueError : bonds that do not connect the molecule, particles of the topology and of the positions that differ, positions
        that are not finite or too few, angles of the Z-matrix that come near to collinear.
    """
    positions = np.asarray(positions, dtype=float)
    if positions.ndim != 3 or positions.shape[2] != 3:
        raise ValueError(f"positions must have shape (frames, particles, 3), got {positions.shape}")
    if len(positions) < 100:
        raise ValueError(f"marginals need at least 100 conformations, got {len(positions)}")
    if not np.isfinite(positions).all():
        raise ValueError("positions must be finite")
    num_particles = positions.shape[1]
    bonds = _bonds(topology, num_particles)
    z_matrix = make_z_matrix(bonds, num_particles)
    coordinates = internal_coordinates(positions, z_matrix)
    random = np.random.default_rng(seed)

    layers = [{"type": "internalCoordinates", "zMatrix": z_matrix}]
    tensors = {}
    num_bonds, num_angles = num_particles - 1, num_particles - 2
    bond_rows, angle_rows = list(range(num_bonds)), list(range(num_bonds, num_bonds + num_angles))
    for rows, limits in ((bond_rows, (SHORTEST_BOND, np.inf)), (angle_rows, ANGLE_RANGE)):
        layers.append({"type": "marginal", "distribution": "truncatedNormal", "coordinates": rows})
        for name, value in _truncated_normal(coordinates[:, rows], limits, rows).items():
            tensors[f"layers.{len(layers) - 1}.{name}"] = value

    seen = set(bond_rows + angle_rows)   # coordinates that are near uniform already
    first_torsion = num_bonds + num_angles
    for transformed, conditioned_on in _couplings(z_matrix, num_particles, options):
        index = len(layers)
        layer, biases = _coupling(transformed, conditioned_on, options, num_circular_from=first_torsion,
                                  samples=coordinates, fitted=seen)
        layers.append(layer)
        tensors.update(_initial_weights(f"layers.{index}", layer, first_torsion, biases, random))
        seen.update(transformed)

    architecture = {
        "format": "openmm-flow", "version": 1, "numParticles": num_particles, "temperature": float(temperature),
        "measure": measure, "bonds": [list(bond) for bond in bonds],
        "constraints": [[int(i), int(j), float(d)] for i, j, d in constraints], "data": data or {}, "layers": layers,
        "base": [{"distribution": "uniform", "coordinates": list(range(3 * num_particles - 6))}],
    }
    return architecture, tensors


def make_z_matrix(bonds, num_particles: int) -> list[list[int]]:
    """A Z-matrix whose bonds and angles are those of the molecule where that is possible.

    The frame lies at the middle of the bond graph. The first atom that is placed from an atom gets a proper torsion; further
    ones get the torsion to that first sibling about the same axis, which is narrowly distributed (an improper torsion).

    Parameters
    ----------
    bonds : pairs of particles that connect all particles.
    num_particles : at least 3.
    """
    neighbours = _neighbours(bonds, num_particles)
    distances = np.array([_distances(neighbours, i) for i in range(num_particles)])
    if not np.isfinite(distances).all():
        raise ValueError(f"the bonds do not connect all {num_particles} particles; a flow is of one molecule")

    def rank(atom):   # atoms with many neighbours near the middle first
        return (-len(neighbours[atom]), distances[atom].max(), distances[atom].sum(), atom)

    candidates = [a for a in range(num_particles) if len(neighbours[a]) >= 2]
    middle = min(candidates, key=lambda a: (distances[a].max(), distances[a].sum(), a))
    f1 = middle
    f0, f2 = sorted(sorted(neighbours[f1], key=rank)[:2])
    placed = [f0, f1, f2]
    rows = [[f0, -1, -1, -1], [f1, f0, -1, -1], [f2, f1, f0, -1]]
    first_child = {}
    queue = [f1, f0, f2]
    while queue:
        j = queue.pop(0)
        for i in sorted((n for n in neighbours[j] if n not in placed), key=rank):
            if j == f1:
                k, l = f0, f2
            elif j in first_child:
                k, l = first_child[j]
            else:
                k = min((n for n in neighbours[j] if n in placed), key=placed.index)
                others = [n for n in neighbours[k] if n in placed and n != j]
                l = min(others, key=placed.index) if others else min(a for a in placed if a not in (j, k))
                first_child[j] = (k, i)
            rows.append([i, j, k, l])
            placed.append(i)
            queue.append(i)
    return rows


def is_improper(row, bonds) -> bool:
    """Whether the torsion of a full row is one between siblings, not about a chain of four bonded atoms."""
    connected = {frozenset(bond) for bond in bonds}
    return frozenset(row[2:]) not in connected or frozenset(row[1:3]) not in connected


def internal_coordinates(positions, z_matrix) -> np.ndarray:
    """Bonds (nm), angles/pi and torsions in [0,1) of conformations: (frames, 3*particles-6), in the order of the model format."""
    frames = np.asarray(positions, dtype=float)
    second, = (r for r in z_matrix if list(r).count(-1) == 2)
    third, = (r for r in z_matrix if list(r).count(-1) == 1)
    full = [r for r in z_matrix if -1 not in r]

    def difference(a, b):
        return frames[:, a] - frames[:, b]

    def dot(a, b):
        return np.sum(a * b, axis=-1)

    bonds = [np.linalg.norm(difference(r[0], r[1]), axis=-1) for r in (second, third, *full)]
    angles = []
    for i, j, k, *_ in (third, *full):
        u, v = difference(i, j), difference(k, j)
        angles.append(np.arctan2(np.linalg.norm(np.cross(u, v), axis=-1), dot(u, v)) / np.pi)
    torsions = []
    for i, j, k, l in full:
        f, g, h = difference(i, j), difference(j, k), difference(l, k)
        a, b = np.cross(f, g), np.cross(h, g)
        sine = dot(np.cross(b, a), g) / np.linalg.norm(g, axis=-1)
        torsions.append(np.arctan2(sine, dot(a, b)) / (2 * np.pi) + 0.5)
    return np.stack(bonds + angles + torsions, axis=1)


def num_weights(tensors: dict[str, np.ndarray]) -> int:
    """How many weights and biases the conditioners have."""
    return sum(t.size for name, t in tensors.items() if ".networks." in name)


def save(path, architecture: dict, tensors: dict[str, np.ndarray]) -> None:
    """Write the untrained flow as a model file."""
    model_file.write(path, architecture, tensors)


def _bonds(topology, num_particles: int) -> list[tuple[int, int]]:
    if hasattr(topology, "bonds"):
        if topology.getNumAtoms() != num_particles:
            raise ValueError(f"the topology has {topology.getNumAtoms()} atoms, the positions have {num_particles}")
        pairs = [(bond[0].index, bond[1].index) for bond in topology.bonds()]
    else:
        pairs = [tuple(int(i) for i in bond) for bond in topology]
    bonds = sorted({(min(pair), max(pair)) for pair in pairs})
    for i, j in bonds:
        if i == j or i < 0 or j >= num_particles:
            raise ValueError(f"bond ({i}, {j}) is not one between two of {num_particles} particles")
    return bonds


def _neighbours(bonds, num_particles: int) -> list[list[int]]:
    if num_particles < 3:
        raise ValueError(f"a flow needs at least 3 particles, got {num_particles}")
    neighbours = [[] for _ in range(num_particles)]
    for i, j in bonds:
        neighbours[i].append(j)
        neighbours[j].append(i)
    return [sorted(n) for n in neighbours]


def _distances(neighbours, start: int) -> list[float]:
    """Bonds between each particle and ``start``, by breadth-first search."""
    distances = [np.inf] * len(neighbours)
    distances[start] = 0
    queue = [start]
    for atom in queue:
        for other in neighbours[atom]:
            if np.isinf(distances[other]):
                distances[other] = distances[atom] + 1
                queue.append(other)
    return distances


def _truncated_normal(samples, limits, rows) -> dict[str, np.ndarray]:
    """Mean, spread and edges of each column, all samples well inside the edges."""
    mean, std = samples.mean(axis=0), np.maximum(samples.std(axis=0), 1e-6)
    lower = np.maximum(np.minimum(mean - SIGMAS * std, samples.min(axis=0) - 2 * std), limits[0])
    upper = np.minimum(np.maximum(mean + SIGMAS * std, samples.max(axis=0) + 2 * std), limits[1])
    for column, row in enumerate(rows):
        if samples[:, column].min() <= lower[column] or samples[:, column].max() >= upper[column]:
            raise ValueError(f"coordinate {row} of the Z-matrix runs from {samples[:, column].min():g} to "
                             f"{samples[:, column].max():g} in the data, beyond ({lower[column]:g}, {upper[column]:g}): "
                             "linear angles and overlapping atoms cannot be described")
    return {"mean": mean, "std": std, "lower": lower, "upper": upper}


def _couplings(z_matrix, num_particles: int, options: FlowOptions) -> list[tuple[list[int], list[int]]]:
    """(transformed, conditionedOn) of every coupling, in density direction.

    The density is factored as p(bonds | rest) p(angles, improper torsions | proper torsions) p(proper torsions). Each factor is
    made of couplings that transform one half of its coordinates given the other, in turns; neighbouring coordinates, which
    depend on each other most, stand in different halves.
    """
    full = [row for row in z_matrix if -1 not in row]
    num_bonds, num_angles = num_particles - 1, num_particles - 2
    bonds = list(range(num_bonds))
    siblings = {}
    proper, shape = [], [num_bonds]
    for index, row in enumerate(full):
        torsion = num_bonds + num_angles + index
        sibling = row[3] in siblings.get(row[1], ()) or (row[1] == full[0][1] and row[3] == _third(z_matrix))
        shape.append(num_bonds + 1 + index)
        (shape if sibling else proper).append(torsion)
        siblings.setdefault(row[1], []).append(row[0])
    couplings = []
    for group, others, rounds in ((bonds, shape + proper, options.bond_rounds), (shape, proper, options.shape_rounds),
                                  (proper, [], options.torsion_rounds)):
        halves = (group[0::2], group[1::2])
        for turn in range(rounds):
            transformed, given = halves[turn % 2], halves[1 - turn % 2]
            # Torsions that are met for the first time need steep components, which the angles beside them must not have.
            parts = [transformed]
            if turn < 2:
                angles = [c for c in transformed if c < num_bonds + num_angles]
                parts = [angles, [c for c in transformed if c not in angles]]
            for part in parts:
                if part:
                    rest = [c for c in transformed if c not in part]
                    couplings.append((sorted(part), sorted(rest + given + others)))
    return couplings


def _third(z_matrix) -> int:
    """The frame atom f2."""
    return next(row[0] for row in z_matrix if list(row).count(-1) == 1)


def _coupling(transformed, conditioned_on, options: FlowOptions, *, num_circular_from, samples, fitted):
    """The coupling's description and the biases of its last layer, (5, D, K)."""
    K = options.components
    first = any(c >= num_circular_from and c not in fitted for c in transformed)
    bound = options.first_log_steepness_bound if first else options.log_steepness_bound
    biases = np.zeros((5, len(transformed), K))
    biases[1] = _logit((options.resting_alpha - options.alpha_offset) / options.alpha_range)
    biases[4] = -4.0    # a floor of 2 %
    for row, coordinate in enumerate(transformed):
        if coordinate >= num_circular_from:
            if coordinate in fitted:
                biases[3, row] = _logit(min(0.05 / bound, 0.5))
            else:
                biases[1:4, row] = _fit_circle(samples[:, coordinate], options, bound)
    hidden = [options.width] * options.depth if conditioned_on else []
    layer = {
        "type": "coupling", "transformed": transformed, "conditionedOn": conditioned_on,
        "transformer": {
            "type": "smoothMixture", "head": "free", "closedForm": "density", "components": K, "exponent": options.exponent,
            "alphaOffset": float(options.alpha_offset), "alphaRange": options.alpha_range,
            "logSteepnessBound": bound, "minimumFloor": options.minimum_floor},
        "conditioner": {"activation": options.activation, "networks": [hidden]},
    }
    return layer, biases


def _fit_circle(samples, options: FlowOptions, bound: float) -> np.ndarray:
    """Raw alpha, centres and steepness (3, K) that spread the components over the samples of a coordinate on the circle."""
    K = options.components
    # Quantiles from the middle of the widest gap onwards.
    histogram = np.sort(samples % 1.0)
    gaps = np.diff(histogram, append=histogram[0] + 1)
    start = histogram[np.argmax(gaps)] + gaps.max() / 2
    unwrapped = (samples - start) % 1.0
    centres = np.quantile(unwrapped, (np.arange(K) + 0.5) / K)
    spacing = np.quantile(unwrapped, np.minimum((np.arange(K) + 1.5) / K, 0.999)) - np.quantile(
        unwrapped, np.maximum((np.arange(K) - 0.5) / K, 0.001))
    peak = 1 / np.maximum(spacing, 1e-4)
    steepness = np.clip(peak / (options.peak_slope * options.resting_alpha), 1.03, np.exp(0.95 * bound))
    alpha = options.clip_alpha(peak / (options.peak_slope * steepness))
    return np.stack([_logit((alpha - options.alpha_offset) / options.alpha_range),
                     (centres + start) - (np.arange(K) + 0.5) / K,
                     _logit(np.log(steepness) / bound)])


def _initial_weights(prefix, layer, num_circular_from, biases, random) -> dict[str, np.ndarray]:
    """Weights of the conditioner in single precision: the last layer is small, so that its biases decide at first."""
    features = sum(2 if c >= num_circular_from else 1 for c in layer["conditionedOn"])
    tensors = {}
    for n, hidden in enumerate(layer["conditioner"]["networks"]):
        sizes = [features, *hidden, biases.size]
        for level, (inputs, outputs) in enumerate(zip(sizes[:-1], sizes[1:])):
            last = level == len(sizes) - 2
            spread = (0.005 if last else np.sqrt(2)) / np.sqrt(max(inputs, 1))
            name = f"{prefix}.networks.{n}.{level}"
            tensors[f"{name}.weight"] = random.normal(0, spread, (outputs, inputs)).astype(np.float32)
            bias = biases.reshape(-1) if last else random.uniform(-0.5, 0.5, outputs)
            tensors[f"{name}.bias"] = bias.astype(np.float32)
    return tensors


def _logit(p):
    return np.log(p) - np.log1p(-np.asarray(p))
