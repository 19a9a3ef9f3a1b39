# SPDX-License-Identifier: MIT
"""What an installed openmmflow must be able to do, in a second and without any tool of the tests: python tests/smoke.py"""
import subprocess
import sys
from pathlib import Path

import numpy as np
import openmm
from openmm import app

import openmmflow
from openmmflow import shipped


def main():
    model = openmmflow.FlowModel.load(shipped.MODEL)
    pdb = app.PDBFile(str(shipped.STRUCTURE))
    system = openmm.System()
    for atom in pdb.topology.atoms():
        system.addParticle(atom.element.mass)
    force = openmmflow.FlowForce(model)
    force.addMolecule(range(model.num_particles))
    system.addForce(force)
    # Without the Python objects of the package: what another process reads.
    system = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
    for platform in ("Reference", "CPU"):
        context = openmm.Context(system, openmm.LangevinMiddleIntegrator(300, 1, 0.001), openmm.Platform.getPlatformByName(platform))
        context.setPositions(pdb.positions)
        openmm.LocalEnergyMinimizer.minimize(context, 10, 50)
        context.getIntegrator().step(100)
        energy = context.getState(energy=True).getPotentialEnergy()._value
        if not np.isfinite(energy):
            raise SystemExit(f"the energy on {platform} is {energy}")
    positions, log_prob = model.sample(100, seed=1)
    if not np.allclose(model.log_prob(positions), log_prob, atol=1e-6):
        raise SystemExit("ln p of samples is not that of their positions")
    command = Path(sys.executable).parent / "openmmflow"
    text = subprocess.run([command, "info", shipped.MODEL], check=True, capture_output=True, text=True).stdout
    if model.checksum not in text:
        raise SystemExit(f"openmmflow info does not know the model:\n{text}")
    print(f"openmmflow {openmmflow.__version__} works: {model.checksum} at {energy:.1f} kJ/mol")


if __name__ == "__main__":
    main()
