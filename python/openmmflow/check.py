# SPDX-License-Identifier: MIT
"""Whether a model can be trusted in dynamics: ``openmmflow check``.

Needs nothing but the model: conformations are its own samples. Each check gives figures with bounds; docs/trust.md says what they mean
and where the bounds come from.
"""
from __future__ import annotations

import itertools
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Iterator

import numpy as np
import openmm
from openmm import app, unit

from . import FlowForce, FlowModel, analysis, inner_support, why_not_supported
from .stored_run import Settings, SimulationError, StoredRun, maxwell_velocities

HEAVY_MASS, TERMINAL_MASS = 12.011, 1.008
"""Dalton; of particles with several bonds and with one, where no structure tells the elements: what is light is fast."""
DIFFERENCE_STEPS = (1e-4, 3e-5, 1e-5, 3e-6, 1e-6, 3e-7, 1e-7)
"""nm; the smallest error counts, as each model has its own best step."""
STEP_SIZE_FRACTIONS = (0.25, 0.5, 1.0)
"""Of the step size that is asked for: what the exponent is fitted to."""
ENERGY_SAMPLES = 400
"""Of the total energy in each run, about."""
WALK_POINTS = 61
"""Along each walk; edges are found between neighbours."""
JUMP_DISTANCE = 1e-8
"""nm or rad; between the points whose slopes give the second derivative at an edge."""


@dataclass(frozen=True)
class Figure:
    """One line of the verdict."""

    check: str
    meaning: str
    value: float
    at_least: float = -np.inf
    at_most: float = np.inf
    note: str = ""

    @property
    def holds(self) -> bool:
        return bool(self.at_least <= self.value <= self.at_most)    # NaN does not

    @property
    def bound(self) -> str:
        if np.isinf(self.at_least):
            return f"≤ {self.at_most:g}"
        return f"≥ {self.at_least:g}" if np.isinf(self.at_most) else f"{self.at_least:g} to {self.at_most:g}"


@dataclass
class Certificate:
    """What all checks found."""

    model: FlowModel
    figures: list[Figure] = field(default_factory=list)
    series: dict = field(default_factory=dict)
    """What the plots of the report are of."""

    @property
    def passed(self) -> bool:
        return all(figure.holds for figure in self.figures)

    def document(self) -> dict:
        """As JSON has it; values that are not finite as text."""
        return {"model": self.model.checksum, "passed": self.passed, "figures": [
            {"check": f.check, "meaning": f.meaning, "value": f.value if np.isfinite(f.value) else str(f.value), "bound": f.bound,
             "holds": f.holds, "note": f.note} for f in self.figures]}

    def table(self) -> str:
        """As text, one line for each figure."""
        width = max(len(f.meaning) for f in self.figures)
        lines = [f"{'ok  ' if f.holds else 'FAIL'}  {f.meaning:<{width}}  {f.value:>10.3g}  {f.bound:<14}  {f.note}".rstrip()
                 for f in self.figures]
        return "\n".join([*lines, f"{'passed' if self.passed else 'FAILED'}: model {self.model.checksum}"])


def molecule_system(model: FlowModel, masses=None) -> openmm.System:
    """One molecule of a model, with the masses (particles,), dalton, or guessed ones."""
    if masses is None:
        partners = np.bincount(np.ravel(model.bonds), minlength=model.num_particles)
        masses = np.where(partners > 1, HEAVY_MASS, TERMINAL_MASS)
    system = openmm.System()
    for mass in masses:
        system.addParticle(float(mass))
    for constraint in model.constraints:
        system.addConstraint(*constraint)
    system.addForce(FlowForce(model))
    return system


class Potential:
    """FlowForce of one molecule on a platform, in k_BT of the model and nm."""

    def __init__(self, model: FlowModel, platform: str = "Reference"):
        self.system = molecule_system(model)
        self.force, = inner_support.flow_forces(self.system)
        self._unit = unit.MOLAR_GAS_CONSTANT_R * model.temperature * unit.kelvin
        found = openmm.Platform.getPlatformByName(platform)
        # GPU platforms would run in single precision; what is checked is that which dynamics should use.
        properties = {"Precision": "mixed"} if "Precision" in found.getPropertyNames() else {}
        self._context = openmm.Context(self.system, openmm.VerletIntegrator(0.001), found, properties)

    def energy(self, positions) -> float:
        self._context.setPositions(positions)
        return self._context.getState(energy=True).getPotentialEnergy() / self._unit

    def energy_and_gradient(self, positions) -> tuple[float, np.ndarray]:
        self._context.setPositions(positions)
        state = self._context.getState(energy=True, forces=True)
        forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
        return state.getPotentialEnergy() / self._unit, -forces / self._unit.value_in_unit(unit.kilojoule_per_mole)

    def is_outside(self, positions) -> bool:
        """Whether any coordinate is outside of its inner support."""
        before = self.force.getNumSupportExits(self._context)
        self.energy(positions)
        return self.force.getNumSupportExits(self._context) > before


def samples_inside(model: FlowModel, count: int, seed: int) -> np.ndarray:
    """The first samples (count, particles, 3) of a model that lie within its margins. ValueError where there are hardly any."""
    potential, found = Potential(model), []
    for sample in model.sample(20 * count, seed)[0]:
        if len(found) == count:
            break
        if not potential.is_outside(sample):
            found.append(sample)
    if len(found) < count:
        raise ValueError(f"only {len(found)} of {20 * count} samples of the model are within the margins of its own support; "
                         "`openmmflow info` gives the fraction")
    return np.array(found)


# --- The checks. Each yields figures and leaves what can be drawn in series. ---------------------------------------------------

def check_support(model: FlowModel, series: dict) -> Iterator[Figure]:
    yield Figure("support", "own samples within the margins", inner_support.fraction_inside(model),
                 at_least=inner_support.DEMANDED_FRACTION)


def check_smoothness(model: FlowModel, series: dict) -> Iterator[Figure]:
    """What the transformers are by construction. Differences between conformations could miss the kinks of a spline."""
    yield Figure("smoothness", "continuous derivatives of the least smooth transformer", model.num_continuous_derivatives, at_least=2)


def check_gradient(model: FlowModel, series: dict, positions: np.ndarray, random: np.random.Generator) -> Iterator[Figure]:
    """Forces against fourth-order central differences of the energy along random directions."""
    potential = Potential(model)
    errors, sizes = np.zeros((len(positions), len(DIFFERENCE_STEPS))), np.zeros(len(positions))
    for index, x in enumerate(positions):
        gradient = potential.energy_and_gradient(x)[1]
        direction = random.standard_normal(x.shape)
        direction /= np.linalg.norm(direction)
        sizes[index] = np.linalg.norm(gradient) / np.sqrt(gradient.size)
        for column, h in enumerate(DIFFERENCE_STEPS):
            u = [potential.energy(x + k * h * direction) for k in (-2, -1, 1, 2)]
            errors[index, column] = abs((8 * (u[2] - u[1]) - (u[3] - u[0])) / (12 * h) - np.sum(gradient * direction))
    relative = np.sqrt(np.mean(errors ** 2, axis=0)) / np.sqrt(np.mean(sizes ** 2))
    series["gradient"] = (np.array(DIFFERENCE_STEPS), relative)
    yield Figure("gradient", "force against finite differences, of the RMS force", float(relative.min()), at_most=1e-5)


def check_round_trip(model: FlowModel, series: dict, positions: np.ndarray) -> Iterator[Figure]:
    """Positions to latents and back: distances between all particles, and ln p of both directions."""
    latent, log_prob = model.to_latent(positions, log_prob=True)
    back, log_prob_back = model.to_positions(latent)

    def distances(x):
        return np.linalg.norm(x[:, :, None] - x[:, None], axis=-1)

    yield Figure("round trip", "distances after latents and back, nm", float(np.abs(distances(positions) - distances(back)).max()),
                 at_most=1e-7)
    yield Figure("round trip", "ln p of both directions, k_BT", float(np.abs(log_prob - log_prob_back).max()), at_most=1e-4)


def check_platforms(model: FlowModel, series: dict, positions: np.ndarray) -> Iterator[Figure]:
    """Every platform that FlowForce runs on against Reference."""
    reference = [Potential(model).energy_and_gradient(x) for x in positions]
    energies, gradients = np.array([u for u, _ in reference]), np.array([g for _, g in reference])
    names = [openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())]
    for name in names:
        if name == "Reference" or why_not_supported(name):
            continue
        try:
            potential = Potential(model, name)
        except openmm.OpenMMException as error:    # a GPU platform without a GPU
            series.setdefault("left out", []).append(f"{name}: {error}")
            continue
        found = [potential.energy_and_gradient(x) for x in positions]
        error = np.array([g for _, g in found]) - gradients
        yield Figure("platforms", f"{name} against Reference: forces, of the RMS force",
                     float(np.sqrt(np.mean(error ** 2) / np.mean(gradients ** 2))), at_most=2e-5)
        yield Figure("platforms", f"{name} against Reference: energy, k_BT",
                     float(np.abs(np.array([u for u, _ in found]) - energies).max()), at_most=1e-2)


def check_continuity(model: FlowModel, series: dict, x: np.ndarray) -> Iterator[Figure]:
    """Walks along every bond, angle and torsion, and of every particle of a block: the second derivative jumps neither at an edge of the support nor at the seam."""
    potential = Potential(model)
    jumps = {"edge": [], "seam": []}
    for kind, row, walk in _walks(model, x):
        def slope(t):
            positions, velocity = walk(t)
            return np.sum(potential.energy_and_gradient(positions)[1] * velocity)

        if kind == "torsion":
            where, points = "seam", [_seam(walk, row)]
        else:
            where, points = "edge", list(_edges(model, potential, walk, *_RANGES[kind]))
        for t in points:
            jumps[where].append(_jump(slope, t))
        if kind not in series:
            low, high = _RANGES[kind]
            grid = np.linspace(low, high, 4 * WALK_POINTS)
            series[kind] = grid, np.array([potential.energy(walk(t)[0]) for t in grid]), points, f"{kind} {'-'.join(map(str, row))}"
    for where, values in jumps.items():
        yield Figure("continuity", f"jump of the second derivative at {len(values)} {where}s, relative",
                     float(max(values)) if values else 0.0, at_most=1e-2)


def check_conservation(model: FlowModel, series: dict, positions: np.ndarray, random: np.random.Generator, *, masses=None,
                       step_size: float, length: float, progress: bool) -> Iterator[Figure]:
    """Constant-energy runs at several step sizes from the same starts (positions), each ``length`` ps."""
    system = molecule_system(model, masses)
    topology = app.Topology()
    residue = topology.addResidue("MOL", topology.addChain())
    for index in range(model.num_particles):
        topology.addAtom(str(index), None, residue)
    step_sizes = step_size * np.array(STEP_SIZE_FRACTIONS)
    fluctuations = np.empty((len(positions), len(step_sizes)))
    starts = [(x, maxwell_velocities(system, model.temperature, random)) for x in positions]
    # Energies are compared at the same times, whatever the step size.
    largest_interval = max(1, round(1000 * length / step_size / ENERGY_SAMPLES))
    samples = max(3, round(1000 * length / step_size / largest_interval))
    exits, series["energies"] = 0, {}
    with tempfile.TemporaryDirectory() as folder:
        for (index, start), (column, size) in itertools.product(enumerate(starts), enumerate(step_sizes)):
            interval = largest_interval * round(step_size / size)
            settings = Settings(ensemble="nve", step_size=float(size), temperature=model.temperature, report_interval=interval,
                                trajectory_interval=10 ** 9)
            try:
                with StoredRun(Path(folder) / f"{index}-{column}", topology, system, settings, description={},
                               start=lambda: start) as run:
                    run.advance(interval * samples, progress=progress, label=f"NVE {size:g} fs, start {index + 1}")
                    exits += inner_support.support_exits(run.simulation.context)
                    energies = run.energies()
                fluctuations[index, column] = analysis.energy_conservation(
                    energies.time, energies.total, analysis.degrees_of_freedom(system)).fluctuation
            except (SimulationError, ValueError):    # it has exploded
                fluctuations[index, column] = np.inf
                continue
            if index == 0:
                series["energies"][f"{size:g} fs"] = energies
    series["fluctuations"] = step_sizes, fluctuations
    series["degrees of freedom"] = analysis.degrees_of_freedom(system)
    exponent = error = np.nan
    if np.all(np.isfinite(fluctuations)):
        exponent, error = analysis.step_size_exponent(step_sizes, fluctuations)
    yield Figure("conservation", f"NVE fluctuation at {step_size:g} fs per degree of freedom, kJ/mol",
                 float(fluctuations[:, -1].mean()), at_most=0.02, note=f"{len(positions)} starts of {length:g} ps")
    yield Figure("conservation", "exponent of the step size in the fluctuation", exponent, at_least=1.7, at_most=2.3,
                 note=f"± {error:.2f}")
    series["note"] = f"{exits:,} evaluations outside of the inner support in NVE"


def check(model: FlowModel, *, masses=None, step_size: float = 1.0, starts: int = 4, length: float = 2.0, frames: int = 20,
          seed: int = 1, progress: bool = False) -> Certificate:
    """All checks of a model.

    Parameters
    ----------
    masses : (particles,), dalton; guessed from the bonds if None.
    step_size : that dynamics shall use, fs.
    starts, length : of the constant-energy runs; length in ps.
    frames : samples that gradient, round trip and platforms are checked at.
    seed : of everything random.

    Raises ValueError where hardly any sample of the model is within its own margins.
    """
    certificate = Certificate(model)
    series, random = certificate.series, np.random.default_rng(seed)
    positions = samples_inside(model, max(frames, starts), seed)
    for figures in (check_support(model, series),
                    check_smoothness(model, series),
                    check_gradient(model, series, positions[:frames], random),
                    check_round_trip(model, series, positions[:frames]),
                    check_platforms(model, series, positions[:frames]),
                    check_continuity(model, series, positions[0]),
                    check_conservation(model, series, positions[:starts], random, masses=masses, step_size=step_size, length=length,
                                       progress=progress)):
        certificate.figures.extend(figures)
    return certificate


# --- Walks -------------------------------------------------------------------------------------------------------------------

_RANGES = {"bond": (0.03, 0.35), "angle": (0.15, np.pi - 0.15), "torsion": (-np.pi, np.pi), "block": (-0.1, 0.1)}
"""Of the coordinate in a walk, nm or rad."""
Walk = Callable[[float], "tuple[np.ndarray, np.ndarray]"]


def _walks(model: FlowModel, x: np.ndarray) -> Iterator[tuple[str, tuple, Walk]]:
    """(kind, row of the Z-matrix, walk) for each full row: walk(t) are positions with that coordinate at t, and d positions/dt.

    What is placed from the row's particle moves with it as a rigid body, so that all other bonds and angles of the Z-matrix stay. The particles of
    a block in Cartesians, which have no rows, walk to and from its centre: there t is how far they have gone.
    """
    first = model.architecture["layers"][0]
    rows = first["zMatrix"]
    children = {}
    for row in rows:
        children.setdefault(row[1], []).append(row[0])

    def placed_from(i):
        found, queue = [], [i]
        while queue:
            particle = queue.pop()
            found.append(particle)
            queue += children.get(particle, [])
        return found

    for i in first.get("block", ()):
        outwards = x[i] - x[first["block"]].mean(axis=0)
        yield "block", (i,), _translation(x, placed_from(i), outwards / np.linalg.norm(outwards), 0.0)
    for i, j, k, l in (row for row in rows if row[3] >= 0):
        moved = placed_from(i)
        bond, axis = x[i] - x[j], x[k] - x[j]
        length, normal = np.linalg.norm(bond), np.cross(axis, bond)
        normal /= np.linalg.norm(normal)
        axis = axis / np.linalg.norm(axis)
        angle = np.arctan2(np.linalg.norm(np.cross(bond, axis)), bond @ axis)
        torsion = analysis.torsion_angles(x, (i, j, k, l))
        yield "bond", (i, j), _translation(x, moved, bond / length, length)
        yield "angle", (i, j, k), _rotation(x, moved, j, normal, angle)
        # Seen along j-k, a positive turn is that of ijkl.
        yield "torsion", (i, j, k, l), _rotation(x, moved, j, -axis, torsion)


def _translation(x, moved, direction, origin) -> Walk:
    velocity = np.zeros_like(x)
    velocity[moved] = direction

    def walk(t):
        return x + (t - origin) * velocity, velocity
    return walk


def _rotation(x, moved, centre, axis, origin) -> Walk:
    def walk(t):
        arm = x[moved] - x[centre]
        along = np.outer(arm @ axis, axis)
        across = np.cross(axis, arm)
        c, s = np.cos(t - origin), np.sin(t - origin)
        positions, velocity = x.copy(), np.zeros_like(x)
        positions[moved] = x[centre] + along + c * (arm - along) + s * across
        velocity[moved] = -s * (arm - along) + c * across
        return positions, velocity
    return walk


def _seam(walk, row) -> float:
    """Where the torsion of a row is ±π on a walk, which turns it one way or the other."""
    return next(t for t in (-np.pi, np.pi) if abs(abs(analysis.torsion_angles(walk(t)[0], row)) - np.pi) < 1e-6)


def _edges(model, potential, walk, low, high) -> Iterator[float]:
    """Where a walk enters or leaves the inner support, and the support."""
    grid = np.linspace(low, high, WALK_POINTS)
    for inside in (lambda t: not potential.is_outside(walk(t)[0]), lambda t: np.isfinite(model.log_prob(walk(t)[0]))):
        states = [inside(t) for t in grid]
        for left, right, state, other in zip(grid, grid[1:], states, states[1:]):
            if state != other:
                for _ in range(50):
                    middle = 0.5 * (left + right)
                    left, right = (middle, right) if inside(middle) == state else (left, middle)
                yield 0.5 * (left + right)


def _jump(slope, t) -> float:
    """How much the derivative of ``slope`` jumps at t, relative to its size there: small for a continuous one, of order 1 otherwise."""
    h = JUMP_DISTANCE
    left, right = (slope(t - h) - slope(t - 2 * h)) / h, (slope(t + 2 * h) - slope(t + h)) / h
    distance = 1e-3 * abs(t)
    nearby = abs(slope(t + distance) - slope(t - distance)) / (2 * distance)
    return abs(right - left) / (abs(left) + abs(right) + nearby + 1)
