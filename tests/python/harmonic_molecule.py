# SPDX-License-Identifier: MIT
"""Four atoms with harmonic bonds between all pairs, and data of them from dynamics: what tests of training start from."""
import json

import h5py
import numpy as np
import openmm
from openmm import app, unit

from openmmflow import builder

SMALL = builder.FlowOptions(width=16, depth=1, components=4, bond_rounds=1, shape_rounds=1, torsion_rounds=1)
"""A flow that trains in seconds."""

START = np.array([[0, 0, 0], [0.15, 0, 0], [0.2, 0.14, 0], [0.3, 0.15, 0.1]])


def topology(copies=1) -> app.Topology:
    result = app.Topology()
    for _ in range(copies):
        residue = result.addResidue("MOL", result.addChain())
        atoms = [result.addAtom(f"C{i}", app.element.carbon, residue) for i in range(4)]
        for a, b in zip(atoms, atoms[1:]):
            result.addBond(a, b)
    return result


def system(copies=1, *, constraints=()) -> openmm.System:
    """Pairs of atoms in ``constraints`` are constrained instead of bonded harmonically."""
    result = openmm.System()
    force = openmm.HarmonicBondForce()
    for copy in range(copies):
        for i in range(4):
            result.addParticle(12.0)
            for j in range(i):
                distance = float(np.linalg.norm(START[i] - START[j]))
                if (j, i) in constraints:
                    result.addConstraint(4 * copy + j, 4 * copy + i, distance)
                else:
                    force.addBond(4 * copy + j, 4 * copy + i, distance, 30_000.0)
    result.addForce(force)
    return result


def simulate(system, *, frames=2000, seed=1) -> tuple[np.ndarray, np.ndarray]:
    """Positions (nm) and forces (kJ/mol/nm) of all copies at 300 K, (frames, particles, 3) both."""
    integrator = openmm.LangevinMiddleIntegrator(300, 10.0, 0.002)
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(np.concatenate([START + [0, 0, 2.0 * copy] for copy in range(system.getNumParticles() // 4)]))
    positions, forces = [], []
    integrator.step(500)
    for _ in range(frames):
        integrator.step(20)
        state = context.getState(positions=True, forces=True)
        positions.append(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
        forces.append(state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer))
    return np.array(positions), np.array(forces)


def write_dataset(path, positions, forces):
    """A data set as openmmflow.dataset makes them."""
    with h5py.File(path, "w") as file:
        file["positions"], file["forces"] = positions, forces
        file.attrs["description"] = json.dumps({"temperature": 300.0, "forceField": ["harmonic bonds"], "environment": "vacuum"})
    return path
