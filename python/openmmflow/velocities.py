# SPDX-License-Identifier: MIT
"""Velocities of a Context: thermal ones, and those of leapfrog integrators, which are half a step behind the positions."""
from __future__ import annotations

import numpy as np
import openmm

from .stored_run import maxwell_velocities

__all__ = ["is_leapfrog", "kick", "masses", "maxwell_velocities"]

_LEAPFROG = (openmm.VerletIntegrator, openmm.LangevinMiddleIntegrator, openmm.LangevinIntegrator, openmm.NoseHooverIntegrator)


def is_leapfrog(integrator: openmm.Integrator) -> bool:
    """Whether a step begins with a kick of a whole step, so that velocities between steps belong half a step before the
    positions.

    True for VerletIntegrator, LangevinIntegrator, LangevinMiddleIntegrator and NoseHooverIntegrator; of others nothing is
    known, and their velocities are taken to be those of the positions' time, which is at most half a step wrong.
    """
    return isinstance(integrator, _LEAPFROG)


def masses(system: openmm.System) -> np.ndarray:
    """Masses of all particles, dalton, (particles,)."""
    return np.array([system.getParticleMass(i)._value for i in range(system.getNumParticles())])


def kick(velocities, forces, particle_masses, interval: float) -> np.ndarray:
    """Velocities (particles, 3), nm/ps, after ``forces`` (particles, 3), kJ/mol/nm, have acted for ``interval`` ps.

    Particles without mass keep theirs.
    """
    mass = np.asarray(particle_masses)[:, None]
    forces = np.asarray(forces)
    return velocities + interval * np.divide(forces, mass, out=np.zeros_like(forces, dtype=float), where=mass > 0)
