# SPDX-License-Identifier: MIT
"""How much of a flow, and how much of dynamics in it, lies where ``FlowForce`` is exactly -λ k_BT ln p."""
from __future__ import annotations

import openmm

from . import FlowForce, FlowModel

DEMANDED_FRACTION = 0.999
"""Of a flow's own samples, within the default margins."""
SAMPLES = 10_000
_BATCH = 1_000


def fraction_inside(model: FlowModel, *, samples: int = SAMPLES, seed: int = 0) -> float:
    """The fraction of a model's own samples that lies within the default margins of its support.

    Raises OpenMMException where FlowForce does not run on the Reference platform.
    """
    batch = min(samples, _BATCH)
    system, force = openmm.System(), FlowForce(model)
    for molecule in range(batch):
        first = molecule * model.num_particles
        for _ in range(model.num_particles):
            system.addParticle(1.0)
        for particle1, particle2, distance in model.constraints:
            system.addConstraint(first + particle1, first + particle2, distance)
        force.addMolecule(range(first, first + model.num_particles))
    system.addForce(force)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    batches = -(-samples // batch)
    positions, _ = model.sample(batches * batch, seed)
    for part in positions.reshape(batches, -1, 3):
        context.setPositions(part)
        context.getState(energy=True)
    return 1 - force.getNumSupportExits(context) / (batches * batch)


def flow_forces(system: openmm.System) -> list[FlowForce]:
    """The FlowForces of a System, not those inside of other forces."""
    return [FlowForce.cast(force) for force in system.getForces() if FlowForce.isinstance(force)]


def support_exits(context: openmm.Context) -> int:
    """``FlowForce.getNumSupportExits`` of all FlowForces of a Context together."""
    return sum(force.getNumSupportExits(context) for force in flow_forces(context.getSystem()))
