# SPDX-License-Identifier: MIT
"""Exact Monte Carlo moves of molecules in an OpenMM Simulation, proposed by a flow.

The target is the Boltzmann distribution of whatever System the Context has; the flow only proposes, so its errors cost
acceptance, never correctness. Moves change the conformation of one molecule at a time, with everything else at rest.

**Acceptance.** The particles of a molecule are described by its latents z and its pose g (place and orientation); dx = dz dg
q(z)/p(x), with q the base density and p in measure "cartesian". So with respect to dz dg the target has the density
exp(-U/k_BT) q(z)/p(x). A new conformation z' comes with the pose g' = g h(z, z'), where h superposes both conformations best
(equal centroids, least squares): as h(z', z) is the inverse of h(z, z') and dg does not change under multiplication, the pose
cancels. What remains is

- independence move, z' drawn from q:          accept with min(1, exp(-ΔU/k_BT) p(x)/p(x'));
- latent step, z' = z + a symmetric random step:  accept with min(1, exp(-ΔU/k_BT) p(x) q(z') / (p(x') q(z))).

Latents on [0,1] are reflected at its ends and those of circles wrap round, which keeps a step symmetric. Independence moves can
also take a uniformly random orientation: g' is then drawn from its uniform distribution, and the ratio is the same. A molecule
outside of the support of the flow has p = 0: no move could lead back to it, so none is accepted until dynamics has brought it
inside.

**Velocities.** Without constraints in the molecule, the target's kinetic part does not depend on positions: both keeping and
redrawing velocities leaves it invariant, and neither enters the acceptance. What a leapfrog integrator stores, however, are
velocities half a step before the positions: those of the positions' time are v + (Δt/2) F/m. These are what is kept or redrawn;
they are carried back by half a step with the new forces.
"""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import openmm
from numpy.typing import ArrayLike
from openmm import unit

from . import FlowModel, model_file, model_summary
from ._units import as_indices, scalar_in
from .analysis import cartesian_log_prob
from .dataset import MOLAR_GAS_CONSTANT
from .velocities import is_leapfrog, kick, masses

INDEPENDENCE, LATENT = "independence", "latent"
PREFETCH = 256
"""Independent samples that are drawn at a time."""


@dataclass
class MoveStatistics:
    """What became of the moves of one kind."""

    attempted: int = 0
    accepted: int = 0
    outside: int = 0
    """Of those attempted, from positions outside of the flow's support: rejected."""

    @property
    def acceptance(self) -> float:
        """Accepted part of all; nan before the first."""
        return self.accepted / self.attempted if self.attempted else float("nan")


@dataclass
class _Molecule:
    """A molecule as the last move or look left it; positions are whole."""

    particles: np.ndarray
    positions: np.ndarray
    log_prob: float
    latent: np.ndarray | None = None


@dataclass(frozen=True)
class _Proposal:
    positions: np.ndarray
    """(particles, 3), anywhere in space"""
    log_prob: float
    latent: np.ndarray | None = None
    log_base_ratio: float = 0.0
    """ln q(z')/q(z) of a latent step."""


class FlowMonteCarlo:
    """Metropolis-Hastings moves of molecules, proposed by a flow; use it between steps of dynamics, or alone.

    >>> mover = openmmflow.FlowMonteCarlo(model, system, [range(22)])
    >>> for _ in range(1000):
    ...     simulation.step(500)
    ...     mover.step(simulation.context, 20)
    >>> mover.statistics["independence"].acceptance

    The module's documentation derives the acceptance.

    Parameters
    ----------
    model : FlowModel
        proposes conformations of the molecules
    system : openmm.System
        of the Context that will be moved; masses, constraints and periodicity are read from it now
    molecules : sequence of sequences of int
        particles of each molecule, in the order of the model; if not given, the System is one molecule
    temperature : K
        of the target; if not given, that of the Context's integrator at each call
    independence : from 0 to 1
        part of the moves that draw a new conformation from the flow; the others are latent steps
    latent_step : number or array (coordinates,)
        standard deviation of the steps: a number for all, in latents from 0 to 1 (in standard deviations of a normal base
        density), or one for each
    orientation : "superposed" or "uniform"
        of independence moves: as near as possible to the present one (the choice in a solvent), or drawn anew (faster where it
        does not matter)
    velocities : "redraw" or "keep"
        of the particles of molecules that were moved; all others are kept
    seed : of everything random

    Raises
    ------
    ValueError : molecules that do not fit the model, have a particle in common, or hold constraints, virtual sites or massless
        particles
    """

    def __init__(self, model: FlowModel, system: openmm.System, molecules: Iterable[Iterable[int]] | None = None, *,
                 temperature: float | unit.Quantity | None = None, independence: float = 0.5, latent_step: ArrayLike = 0.05,
                 orientation: str = "superposed", velocities: str = "redraw", seed: int = 1):
        self.model = model
        size = model.num_particles
        if molecules is None:
            if system.getNumParticles() != size:
                raise ValueError(f"the System has {system.getNumParticles()} particles, the model {size}; say which are the molecules")
            molecules = [range(size)]
        self.molecules = [np.array(as_indices(particles, "a molecule")) for particles in molecules]
        self._check_molecules(system)
        self.temperature = None if temperature is None else scalar_in(temperature, unit.kelvin, "temperature")
        if self.temperature is not None and not self.temperature > 0:
            raise ValueError(f"the temperature must be positive, got {self.temperature}")
        if not 0 <= independence <= 1:
            raise ValueError(f"independence is a part of the moves, from 0 to 1, got {independence}")
        if orientation not in ("superposed", "uniform"):
            raise ValueError(f'orientation is "superposed" or "uniform", got {orientation!r}')
        if velocities not in ("redraw", "keep"):
            raise ValueError(f'velocities is "redraw" or "keep", got {velocities!r}')
        self.independence, self.orientation, self.velocities = independence, orientation, velocities
        self._base = _BaseDensity(model)
        self._widths = self._base.scale * np.broadcast_to(np.asarray(latent_step, dtype=float), model.num_coordinates)
        if not (self._widths >= 0).all():
            raise ValueError("latent steps must not be negative")
        self._periodic = system.usesPeriodicBoundaryConditions()
        self._constrained = system.getNumConstraints() > 0
        self._masses = masses(system)
        self._random = np.random.default_rng(seed)
        self._sample_seed, self._next_sample = seed, 0
        self._fresh: list[tuple[np.ndarray, float]] = []
        self._known: dict[int, _Molecule] = {}
        self.statistics = {INDEPENDENCE: MoveStatistics(), LATENT: MoveStatistics()}

    def _check_molecules(self, system: openmm.System):
        size, total = self.model.num_particles, system.getNumParticles()
        seen: set[int] = set()
        for index, particles in enumerate(self.molecules):
            if len(particles) != size or len(set(particles.tolist())) != size:
                raise ValueError(f"molecule {index} has {len(set(particles.tolist()))} different particles, the model is of {size}")
            if particles.min() < 0 or particles.max() >= total:
                raise ValueError(f"molecule {index} names particles that the System, of {total}, does not have")
            if seen & set(particles.tolist()):
                raise ValueError(f"molecule {index} shares particle {min(seen & set(particles.tolist()))} with another one")
            seen |= set(particles.tolist())
        for particle in seen:
            if system.isVirtualSite(particle) or system.getParticleMass(particle)._value == 0:
                raise ValueError(f"particle {particle} is a virtual site or has no mass; a molecule that is moved can have neither")
        for constraint in range(system.getNumConstraints()):
            first, second, _ = system.getConstraintParameters(constraint)
            if first in seen or second in seen:
                raise ValueError(f"the distance of particles {first} and {second} is constrained; the conformations that a flow proposes do not keep "
                                 "it. Make the System without constraints in the molecules (those of rigid water are no problem)")

    def step(self, context: openmm.Context, attempts: int = 1) -> int:
        """Try moves, each of a molecule chosen at random; positions and velocities of the Context are then those after the
        last.

        Returns how many were accepted. Raises ValueError when no temperature is known or the Context is of another System.
        """
        beta = 1 / (MOLAR_GAS_CONSTANT * self._temperature_of(context))
        integrator = context.getIntegrator()
        half_step = 0.5 * integrator.getStepSize()._value if is_leapfrog(integrator) else 0.0
        state = context.getState(positions=True, velocities=True, energy=True, forces=half_step > 0)
        positions = state.getPositions(asNumpy=True)._value
        if len(positions) != len(self._masses):
            raise ValueError(f"the Context has {len(positions)} particles, the System that the mover was made for {len(self._masses)}")
        energy = state.getPotentialEnergy()._value
        box = state.getPeriodicBoxVectors(asNumpy=True)._value if self._periodic else None
        current: dict[int, _Molecule] = {}
        moved = set()
        accepted = 0
        for _ in range(attempts):
            index = int(self._random.integers(len(self.molecules)))
            if index not in current:
                current[index] = self._known[index] = self._look(index, positions, box)
            molecule = current[index]
            kind = INDEPENDENCE if self._random.random() < self.independence else LATENT
            statistics = self.statistics[kind]
            statistics.attempted += 1
            if molecule.log_prob == -np.inf:
                statistics.outside += 1
                continue
            proposal = self._independent() if kind == INDEPENDENCE else self._latent_step(molecule)
            placed = self._place(proposal.positions, molecule.positions, kind)
            trial = positions.copy()
            trial[molecule.particles] = placed
            context.setPositions(trial)
            try:
                trial_energy = context.getState(energy=True).getPotentialEnergy()._value
            except openmm.OpenMMException:
                trial_energy = np.inf
            log_ratio = -beta * (trial_energy - energy) + molecule.log_prob - proposal.log_prob + proposal.log_base_ratio
            # Not accepted either if it is not a number.
            if np.log(self._random.random()) < log_ratio:
                positions, energy = trial, trial_energy
                molecule.positions, molecule.log_prob, molecule.latent = placed, proposal.log_prob, proposal.latent
                statistics.accepted += 1
                accepted += 1
                moved.add(index)
        context.setPositions(positions)
        if moved:
            self._set_velocities(context, state, moved, half_step, beta)
        return accepted

    def _temperature_of(self, context: openmm.Context) -> float:
        if self.temperature is not None:
            return self.temperature
        integrator = context.getIntegrator()
        if not hasattr(integrator, "getTemperature"):
            raise ValueError(f"{type(integrator).__name__} has no temperature; give one to FlowMonteCarlo")
        return integrator.getTemperature()._value

    def _look(self, index, positions, box) -> _Molecule:
        particles = self.molecules[index]
        whole = positions[particles]
        last = self._known.get(index)
        if last is not None and np.array_equal(last.positions, whole):
            return last    # nothing has moved it since the last call
        if box is not None:
            whole = make_whole(whole, self.model.bonds, box)
        log_prob = self.model.log_prob(whole)
        return _Molecule(particles, whole, float(cartesian_log_prob(self.model, whole, log_prob)))

    def _independent(self) -> _Proposal:
        if not self._fresh:
            positions, log_prob = self.model.sample(PREFETCH, self._sample_seed, first=self._next_sample)
            self._next_sample += PREFETCH
            self._fresh = list(zip(positions, cartesian_log_prob(self.model, positions, log_prob)))[::-1]
        return _Proposal(*self._fresh.pop())

    def _latent_step(self, molecule: _Molecule) -> _Proposal:
        if molecule.latent is None:
            molecule.latent = self.model.to_latent(molecule.positions)
        latent = self._base.fold(molecule.latent + self._widths * self._random.standard_normal(len(self._widths)))
        positions, log_prob = self.model.to_positions(latent)
        ratio = self._base.log_density(latent) - self._base.log_density(molecule.latent)
        return _Proposal(positions, float(cartesian_log_prob(self.model, positions, log_prob)), latent, ratio)

    def _place(self, new, old, kind) -> np.ndarray:
        centroid = old.mean(axis=0)
        new = new - new.mean(axis=0)
        if kind == LATENT or self.orientation == "superposed":
            new = new @ superposition(new, old - centroid)
        return new + centroid

    def _set_velocities(self, context, before: openmm.State, moved, half_step, beta):
        velocities = before.getVelocities(asNumpy=True)._value
        if half_step:
            velocities = kick(velocities, before.getForces(asNumpy=True)._value, self._masses, half_step)
        if self.velocities == "redraw":
            particles = np.concatenate([self.molecules[index] for index in sorted(moved)])
            velocities[particles] = self._random.standard_normal((len(particles), 3)) / np.sqrt(beta * self._masses[particles])[:, None]
        if half_step:
            forces = context.getState(forces=True).getForces(asNumpy=True)._value
            velocities = kick(velocities, forces, self._masses, -half_step)
        context.setVelocities(velocities)
        if self._constrained:
            context.applyVelocityConstraints(context.getIntegrator().getConstraintTolerance())


class _BaseDensity:
    """The base density of a model, as latent steps need it."""

    def __init__(self, model: FlowModel):
        architecture, tensors = model_file.unpack(model.to_bytes())
        size = model.num_coordinates
        self.scale = np.ones(size)
        """What a step of 1 means in each latent."""
        domains = np.array(model_summary.stages(architecture, tensors)[-1].domains)
        self._interval, self._circle = domains == "interval", domains == "circle"
        self._normal = []
        for entry, base in enumerate(architecture["base"]):
            if base["distribution"] == "uniform":
                continue
            columns = np.array(base["coordinates"])
            mean, std = (np.asarray(tensors[f"base.{entry}.{name}"], dtype=float) for name in ("mean", "std"))
            self.scale[columns] = std
            self._normal.append((columns, mean, std))

    def log_density(self, latent) -> float:
        """ln q up to a constant."""
        return float(sum(-0.5 * np.sum(((latent[columns] - mean) / std) ** 2) for columns, mean, std in self._normal))

    def fold(self, latent) -> np.ndarray:
        """Latents brought back into their domains: reflected at the ends of [0,1], wrapped round the circle."""
        folded = np.array(latent)
        folded[self._circle] %= 1.0
        inner = folded[self._interval] % 2.0
        folded[self._interval] = np.where(inner > 1, 2 - inner, inner)
        return folded


def superposition(moving, fixed) -> np.ndarray:
    """The proper rotation R for which ``moving @ R`` is nearest to ``fixed``, both (particles, 3) with their centroids at the
    origin.

    W. Kabsch, Acta Cryst. A 32, 922 (1976).
    """
    left, _, right = np.linalg.svd(moving.T @ fixed)
    if np.linalg.det(left @ right) < 0:
        left[:, -1] = -left[:, -1]
    return left @ right


def make_whole(positions, bonds, box) -> np.ndarray:
    """Positions (particles, 3) of a molecule put together along its bonds in a periodic box of vectors (3, 3) in OpenMM's
    reduced form.
    """
    whole = np.array(positions)
    neighbours: dict[int, list[int]] = {}
    for first, second in bonds:
        neighbours.setdefault(first, []).append(second)
        neighbours.setdefault(second, []).append(first)
    placed, queue = {0}, [0]
    while queue:
        here = queue.pop()
        for other in neighbours.get(here, ()):
            if other not in placed:
                distance = whole[other] - whole[here]
                for axis in (2, 1, 0):
                    distance = distance - box[axis] * np.round(distance[axis] / box[axis, axis])
                whole[other] = whole[here] + distance
                placed.add(other)
                queue.append(other)
    return whole
