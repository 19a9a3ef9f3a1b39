# SPDX-License-Identifier: MIT
"""A flow for a molecule: Z-matrix from its bonds, marginals from conformations, couplings, initial weights.

The result is (architecture, tensors), what :mod:`openmmflow.model_file` writes and the trainer starts from. Nothing here needs
torch.
"""
from __future__ import annotations

import itertools
import operator
from dataclasses import dataclass

import numpy as np

from . import model_file, transformers

SIGMAS = 9.0            # edges of the support of bonds and angles, in standard deviations
ANGLE_RANGE = (0.02, 0.98)   # of angles/pi: collinear atoms have no torsion
SHORTEST_BOND = 0.02    # nm
# Distances and angles that vary less are constrained: the stiffest bonds of force fields vary by 0.002 nm at 300 K, angles by 0.04 rad,
# while the coarsest common trajectory format (XTC) rounds by up to 0.0005 nm.
CONSTANT_DISTANCE = 6e-4     # nm
CONSTANT_ANGLE = 6e-3        # rad
CONSTANT_BOND_REACH = 2e-4   # nm, from the mean to the edges of the support of a constrained bond, at least
CONSTANT_ANGLE_REACH = 1e-3  # of angle/pi
LEAST_FRAMES = 100
SMALLEST_SPREAD = 1e-6  # nm, or of angle/pi: of what does not vary in the data


@dataclass(frozen=True)
class FlowOptions:
    """The shape of a flow.

    Attributes
    ----------
    width, depth : of the hidden layers of every conditioner.
    activation : of the conditioners.
    transformer : of bonds and angles: "smoothMixture", "rationalQuadraticSpline", "cubicBSpline", "analytic" or "affine". With "affine" these
        coordinates are normalized and stay on the real line, with normal base densities; with the others they are mapped to [0,1].
    circle_transformer : of torsions: one of the first four or "moebius"; None: the same as of bonds and angles. An affine map is no
        bijection of the circle, so "affine" needs another one here.
    components : of every smooth mixture; bins, components or steps of the other transformers.
    exponent : of its ramp, 1 or 2.
    alpha_range, minimum_floor : of its head, see docs/model_format.md.
    log_steepness_bound : of its head, for coordinates that are spread over their domain already. Small values keep the flow
        smooth on the scale of a time step (docs/theory.md, "What a step must resolve").
    first_log_steepness_bound : of couplings that meet a torsion for the first time, which may be narrowly distributed.
    head : "free", the project's own, or "published" (Köhler et al. 2021), which has three networks a coupling; both in docs/model_format.md.
    bond_rounds, shape_rounds, torsion_rounds : how many couplings transform halves of the bonds, of the angles and improper
        torsions, and of the proper torsions.
    """

    width: int = 128
    depth: int = 2
    activation: str = "silu"
    transformer: str = "smoothMixture"
    circle_transformer: str | None = None
    components: int = 8
    exponent: int = 1
    log_steepness_bound: float = 0.5
    first_log_steepness_bound: float = 3.0
    alpha_range: float = 1.5
    minimum_floor: float = 1e-4
    head: str = "free"
    bond_rounds: int = 2
    shape_rounds: int = 4
    torsion_rounds: int = 4

    def __post_init__(self):
        if min(self.width, self.components, self.bond_rounds, self.shape_rounds, self.torsion_rounds) < 1 or self.depth < 0:
            raise ValueError("width, components and rounds of a flow must be at least 1, depth at least 0")
        if self.transformer == "affine" and self.circle_transformer is None:
            raise ValueError("an affine map is no bijection of the circle, on which torsions are: give a circle_transformer, one of "
                             + ", ".join(transformers.OF_CIRCLES))
        for name, kind, known in (("transformer", self.transformer, transformers.OF_BONDS),
                                  ("circle_transformer", self.torsion_transformer, transformers.OF_CIRCLES)):
            if kind not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {kind!r}")
        if self.head not in ("free", "published"):
            raise ValueError(f'the head of a smooth mixture is "free" or "published", got {self.head!r}')
        if self.exponent not in (1, 2):
            raise ValueError(f"the exponent of a smooth mixture is 1 or 2, got {self.exponent}")
        if min(self.log_steepness_bound, self.first_log_steepness_bound, self.alpha_range) <= 0:
            raise ValueError("log_steepness_bound, first_log_steepness_bound and alpha_range must be positive")
        if not 0 < self.minimum_floor < 1:
            raise ValueError(f"minimum_floor must be between 0 and 1, got {self.minimum_floor}")

    @property
    def torsion_transformer(self) -> str:
        """The transformer of torsions."""
        return self.circle_transformer or self.transformer

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


def build(topology, positions, *, temperature: float, measure: str = "cartesian", constraints=None, data: dict | None = None,
          options: FlowOptions = FlowOptions(), seed: int = 1, z_matrix=None) -> tuple[dict, dict[str, np.ndarray]]:
    """A flow whose density is near the product of the marginals of ``positions``, ready for training.

    Constrained bonds and angles take no part in it: no coupling transforms or reads them, and their marginal is a constant on a narrow
    interval about their value.

    Parameters
    ----------
    topology : an openmm.app.Topology, or the bonds as pairs of particles.
    positions : conformations at equilibrium, (frames, particles, 3) in nm, at least 100 of them.
    temperature : of the data, K.
    measure : "cartesian" or "frame", see docs/model_format.md.
    constraints : (particle, particle, distance in nm) of the constraints of the simulation; None: the distances that are constant in
        the data (:func:`find_constraints`).
    data : description of the data, stored in the model.
    options : shape of the flow.
    seed : of the initial weights.
    z_matrix : rows (i, j, k, l), docs/model_format.md; None: :func:`make_z_matrix`.

    Raises
    ------
    ValueError : bonds that do not connect the molecule, particles of the topology and of the positions that differ, positions
        that are not finite or too few, angles of the Z-matrix that come near to collinear, constraints that are no coordinates of the
        Z-matrix, a Z-matrix that is none.
    """
    positions = np.asarray(positions, dtype=float)
    if positions.ndim != 3 or positions.shape[2] != 3:
        raise ValueError(f"positions must have shape (frames, particles, 3), got {positions.shape}")
    if len(positions) < LEAST_FRAMES:
        raise ValueError(f"marginals need at least {LEAST_FRAMES} conformations, got {len(positions)}")
    if not np.isfinite(positions).all():
        raise ValueError("positions must be finite")
    num_particles = positions.shape[1]
    bonds = bond_list(topology, num_particles)
    z_matrix = make_z_matrix(bonds, num_particles) if z_matrix is None else checked_z_matrix(z_matrix, num_particles)
    if constraints is None:
        constraints = find_constraints(positions, bonds, z_matrix)
    constant = constrained_coordinates(constraints, z_matrix)
    coordinates = internal_coordinates(positions, z_matrix)
    random = np.random.default_rng(seed)

    layers = [{"type": "internalCoordinates", "zMatrix": z_matrix}]
    tensors = {}
    num_bonds, num_angles = num_particles - 1, num_particles - 2
    bond_rows, angle_rows = list(range(num_bonds)), list(range(num_bonds, num_bonds + num_angles))
    on_line = [r for r in bond_rows + angle_rows if r not in constant] if options.transformer == "affine" else []
    if on_line:
        layers.append({"type": "affineNormalization", "coordinates": on_line})
        samples = coordinates[:, on_line]
        tensors |= {"layers.1.shift": samples.mean(axis=0), "layers.1.scale": np.maximum(samples.std(axis=0), SMALLEST_SPREAD)}
    for rows, limits, reach in ((bond_rows, (SHORTEST_BOND, np.inf), CONSTANT_BOND_REACH), (angle_rows, ANGLE_RANGE, CONSTANT_ANGLE_REACH)):
        for distribution, some in (("truncatedNormal", [r for r in rows if r not in constant and r not in on_line]),
                                   ("uniform", [r for r in rows if r in constant])):
            if some:
                layers.append({"type": "marginal", "distribution": distribution, "coordinates": some})
                samples = coordinates[:, some]
                numbers = _truncated_normal(samples, limits, some) if distribution == "truncatedNormal" else _constants(samples, reach)
                tensors.update({f"layers.{len(layers) - 1}.{name}": value for name, value in numbers.items()})

    seen = set(bond_rows + angle_rows)   # coordinates that are near uniform already
    first_torsion = num_bonds + num_angles
    for transformed, conditioned_on in _couplings(z_matrix, num_particles, options, constant):
        index = len(layers)
        layer, biases = _coupling(transformed, conditioned_on, options, num_circular_from=first_torsion,
                                  samples=coordinates, fitted=seen)
        layers.append(layer)
        tensors.update(_initial_weights(f"layers.{index}", layer, first_torsion, biases, random))
        seen.update(transformed)

    base = [{"distribution": "uniform", "coordinates": [c for c in range(3 * num_particles - 6) if c not in on_line]}]
    if on_line:
        base.append({"distribution": "normal", "coordinates": on_line})
        tensors |= {"base.1.mean": np.zeros(len(on_line)), "base.1.std": np.ones(len(on_line))}
    architecture = {
        "format": "openmm-flow", "version": _version(layers), "numParticles": num_particles, "temperature": float(temperature),
        "measure": measure, "bonds": [list(bond) for bond in bonds],
        "constraints": [[int(i), int(j), float(d)] for i, j, d in constraints], "data": data or {}, "layers": layers,
        "base": base,
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


def covering_z_matrix(architecture: dict) -> list[list[int]]:
    """A Z-matrix of all particles of a model: its own, or one that is made from the bonds if it has a block in Cartesians."""
    first = architecture["layers"][0]
    if "block" not in first:
        return first["zMatrix"]
    return make_z_matrix(architecture["bonds"], architecture["numParticles"])


def checked_z_matrix(rows, num_particles: int) -> list[list[int]]:
    """The rows as lists of whole numbers. Raises ValueError unless every particle is placed once, from particles that are placed."""
    try:
        rows = [[operator.index(atom) for atom in row] for row in rows]
    except TypeError:
        raise ValueError("a Z-matrix is a list of rows [i, j, k, l] of particles, with -1 in those of the frame") from None
    if any(len(row) != 4 for row in rows) or sorted(row[0] for row in rows) != list(range(num_particles)):
        raise ValueError(f"a Z-matrix has one row [i, j, k, l] for each of the {num_particles} particles i, got {len(rows)} rows")
    if sorted(row.count(-1) for row in rows if -1 in row) != [1, 2, 3]:
        raise ValueError("a Z-matrix needs one row each with three, two and one entries of -1: those of the frame")
    waiting, placed = list(rows), set()
    while waiting:
        ready = [row for row in waiting if placed.issuperset(a for a in row[1:] if a != -1) and len(set(row) - {-1}) == 4 - row.count(-1)]
        if not ready:
            raise ValueError(f"particle {waiting[0][0]} cannot be placed: its row {waiting[0]} names itself, a particle twice, or one that "
                             "is itself placed from it")
        placed.update(row[0] for row in ready)
        waiting = [row for row in waiting if row not in ready]
    return rows


def find_constraints(positions, bonds, z_matrix) -> list[tuple[int, int, float]]:
    """Constraints (particle, particle, distance in nm) of the simulation that ``positions`` (frames, particles, 3) come from.

    These are the bonded distances that do not vary, and those between the ends of angles that do not vary either.

    Raises ValueError for distances that are constant but no coordinate of the Z-matrix (a ring of constrained bonds, say).
    """
    positions = np.asarray(positions, dtype=float)
    neighbours = _neighbours(bonds, positions.shape[1])

    def distance(i, j):
        d = np.linalg.norm(positions[:, i] - positions[:, j], axis=-1)
        return d.mean(), d.std() < CONSTANT_DISTANCE

    found = {}
    for i, j in bonds:
        mean, constant = distance(i, j)
        if constant:
            found[i, j] = mean
    for j, others in enumerate(neighbours):
        for i, k in itertools.combinations(others, 2):
            if (min(i, j), max(i, j)) in found and (min(k, j), max(k, j)) in found and k not in neighbours[i]:
                mean, constant = distance(i, k)
                if constant:
                    found[i, k] = mean
    constraints = [(i, j, float(mean)) for (i, j), mean in sorted(found.items())]
    constrained_coordinates(constraints, z_matrix)
    return constraints


def constrained_coordinates(constraints, z_matrix) -> set[int]:
    """The bonds and angles, by their index among all coordinates, that constraints (particle, particle, distance) keep constant.

    Raises ValueError for a constraint that is neither a bond of the Z-matrix nor between the ends of an angle of constrained bonds.
    """
    num_particles = len(z_matrix)
    second, third = (next(row for row in z_matrix if list(row).count(-1) == missing) for missing in (2, 1))
    full = [row for row in z_matrix if -1 not in row]
    bonds = {frozenset(row[:2]): index for index, row in enumerate([second, third, *full])}
    pairs = {frozenset(c[:2]) for c in constraints}
    constant = {bonds[pair] for pair in pairs if pair in bonds}
    angles = {frozenset((row[0], row[2])): num_particles - 1 + index for index, row in enumerate([third, *full])
              if {frozenset(row[:2]), frozenset(row[1:3])} <= pairs}
    for pair in sorted(pairs - bonds.keys(), key=sorted):
        if pair not in angles:
            i, j = sorted(pair)
            raise ValueError(f"the distance between particles {i} and {j} is constrained, but it is no coordinate of the Z-matrix: only bonds "
                             "of the Z-matrix, and angles between two constrained ones, can be left out of a density. Give a Z-matrix with it, "
                             "or simulate with fewer constraints (HBonds)")
        constant.add(angles[pair])
    return constant


def describable(positions, z_matrix) -> np.ndarray:
    """Which of the conformations (frames, particles, 3) have bonds and angles that coordinates can describe: (frames,), bool.

    Overlapping atoms have no angle, three atoms on a line no torsion.
    """
    coordinates, num_particles = internal_coordinates(positions, z_matrix), len(z_matrix)
    bonds, angles = coordinates[:, :num_particles - 1], coordinates[:, num_particles - 1:2 * num_particles - 3]
    with np.errstate(invalid="ignore"):
        return np.all(bonds > SHORTEST_BOND, axis=1) & np.all((angles > ANGLE_RANGE[0]) & (angles < ANGLE_RANGE[1]), axis=1)


def is_improper(row, bonds) -> bool:
    """Whether the torsion of a full row is one between siblings, not about a chain of four bonded atoms."""
    connected = {frozenset(bond) for bond in bonds}
    return frozenset(row[2:]) not in connected or frozenset(row[1:3]) not in connected


def internal_coordinates(positions, z_matrix) -> np.ndarray:
    """Bonds (nm), angles/pi and torsions in [0,1) of conformations: (frames, 3*particles-6), in the order of the model format."""
    frames = np.asarray(positions, dtype=float)
    # Mixed coordinates have no rows of a frame.
    frame = [r for missing in (2, 1) for r in z_matrix if list(r).count(-1) == missing]
    full = [r for r in z_matrix if -1 not in r]

    def difference(a, b):
        return frames[:, a] - frames[:, b]

    def dot(a, b):
        return np.sum(a * b, axis=-1)

    bonds = [np.linalg.norm(difference(r[0], r[1]), axis=-1) for r in (*frame, *full)]
    angles = []
    for i, j, k, *_ in (*frame[1:], *full):
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


def bond_list(topology, num_particles: int) -> list[tuple[int, int]]:
    """Pairs of particles i < j in ascending order, of an openmm.app.Topology or of such pairs. Raises ValueError for impossible ones."""
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
    mean, std = samples.mean(axis=0), np.maximum(samples.std(axis=0), SMALLEST_SPREAD)
    lower = np.maximum(np.minimum(mean - SIGMAS * std, samples.min(axis=0) - 2 * std), limits[0])
    upper = np.minimum(np.maximum(mean + SIGMAS * std, samples.max(axis=0) + 2 * std), limits[1])
    for column, row in enumerate(rows):
        if samples[:, column].min() <= lower[column] or samples[:, column].max() >= upper[column]:
            raise ValueError(f"coordinate {row} of the Z-matrix runs from {samples[:, column].min():g} to "
                             f"{samples[:, column].max():g} in the data, beyond ({lower[column]:g}, {upper[column]:g}): "
                             "linear angles and overlapping atoms cannot be described")
    return {"mean": mean, "std": std, "lower": lower, "upper": upper}


def _constants(samples, reach: float) -> dict[str, np.ndarray]:
    """Edges about the mean of coordinates that do not vary but for rounding, all samples well inside."""
    mean = samples.mean(axis=0)
    width = np.maximum(reach, 1.5 * np.abs(samples - mean).max(axis=0))
    return {"lower": mean - width, "upper": mean + width}


def _couplings(z_matrix, num_particles: int, options: FlowOptions, constant: set[int]) -> list[tuple[list[int], list[int]]]:
    """(transformed, conditionedOn) of every coupling, in density direction.

    The density is factored as p(bonds | rest) p(angles, improper torsions | proper torsions) p(proper torsions). Each factor is
    made of couplings that transform one half of its coordinates given the other, in turns; neighbouring coordinates, which
    depend on each other most, stand in different halves. Constant coordinates are in none.
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
    bonds, shape = ([c for c in group if c not in constant] for group in (bonds, shape))
    couplings = []
    for group, others, rounds in ((bonds, shape + proper, options.bond_rounds), (shape, proper, options.shape_rounds),
                                  (proper, [], options.torsion_rounds)):
        halves = (group[0::2], group[1::2])
        for turn in range(rounds):
            transformed, given = halves[turn % 2], halves[1 - turn % 2]
            # Torsions that are met for the first time need steep components, which the angles beside them must not have; and a
            # coupling has one transformer.
            parts = [transformed]
            if turn < 2 or options.transformer != options.torsion_transformer:
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
    """The coupling's description and the biases of its last layer."""
    hidden = [options.width] * options.depth if conditioned_on else []
    on_circles = [c >= num_circular_from for c in transformed]
    kind = options.torsion_transformer if all(on_circles) else options.transformer
    if kind == "smoothMixture":
        transformer, biases = _mixture(transformed, options, num_circular_from=num_circular_from, samples=samples, fitted=fitted)
    else:
        transformer = transformers.describe(kind, options.components)
        columns = [samples[:, c] if circle and c not in fitted else None for c, circle in zip(transformed, on_circles)]
        biases = transformers.initial_raw(transformer, on_circles, columns)
    networks = 3 if kind == "smoothMixture" and options.head == "published" else 1
    layer = {"type": "coupling", "transformed": transformed, "conditionedOn": conditioned_on, "transformer": transformer,
             "conditioner": {"activation": options.activation, "networks": [hidden] * networks}}
    return layer, biases


def _mixture(transformed, options: FlowOptions, *, num_circular_from, samples, fitted):
    """A smooth mixture, and the biases (5, D, K) with which it spreads circular coordinates over their domain."""
    K = options.components
    first = any(c >= num_circular_from and c not in fitted for c in transformed)
    bound = options.first_log_steepness_bound if first else options.log_steepness_bound
    biases = np.zeros((5, len(transformed), K))
    biases[1] = _logit((options.resting_alpha - options.alpha_offset) / options.alpha_range)
    biases[4] = -4.0    # a floor of 2 %
    for row, coordinate in enumerate(transformed):
        if coordinate >= num_circular_from and options.head == "free":
            if coordinate in fitted:
                biases[3, row] = _logit(min(0.05 / bound, 0.5))
            else:
                biases[1:4, row] = _fit_circle(samples[:, coordinate], options, bound)
    transformer = {
        "type": "smoothMixture", "head": options.head, "closedForm": "density", "components": K, "exponent": options.exponent,
        "alphaOffset": float(options.alpha_offset), "alphaRange": options.alpha_range,
        "logSteepnessBound": bound, "minimumFloor": options.minimum_floor}
    return transformer, biases


def _version(layers) -> int:
    """The lowest version of the model format that has these layers."""
    return 1 if all(layer["type"] != "coupling" or layer["transformer"]["type"] == "smoothMixture" for layer in layers) else 2


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
    networks = layer["conditioner"]["networks"]
    blocks = [biases] if len(networks) == 1 else [biases[:1], biases[1:2], biases[2:]]    # [w], [alpha], [mu | ln sigma | m]
    for n, (hidden, biases) in enumerate(zip(networks, blocks)):
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
