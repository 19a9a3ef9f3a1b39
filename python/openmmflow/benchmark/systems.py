# SPDX-License-Identifier: MIT
"""Alanine dipeptide in OpenMM under each of the potentials that are compared."""
from __future__ import annotations

import numpy as np
import openmm
from openmm import unit

from .. import FlowForce, dataset, model_file

TEMPERATURE = 300.0
FRICTION = 1.0
STEP_SIZE = 0.001
"""Of all dynamics: K, 1/ps, ps."""


def molecules_without_force(count: int) -> openmm.System:
    """A System of the particles of ``count`` molecules."""
    system = openmm.System()
    for _ in range(count):
        for atom in dataset.alanine_dipeptide().topology.atoms():
            system.addParticle(atom.element.mass)
    return system


def flow_system(model, count: int = 1) -> openmm.System:
    """Molecules in the potential of a model (a path or a FlowModel), all in one FlowForce."""
    system = molecules_without_force(count)
    size = system.getNumParticles() // count
    force = FlowForce(model)
    for first in range(0, system.getNumParticles(), size):
        force.addMolecule(range(first, first + size))
    system.addForce(force)
    return system


def torch_flow(model, *, compile_for=None):
    """The same flow in PyTorch. Needs torch.

    Parameters
    ----------
    model : a path.
    compile_for : positions (molecules, particles, 3); with them the flow is compiled by torch.compile, which takes minutes.
    """
    import torch

    from .torch_flow import TorchFlow

    flow = TorchFlow(*model_file.read(model))
    if compile_for is None:
        return flow
    flow = torch.compile(flow, dynamic=False)
    # Twice: the first call compiles.
    for _ in range(2):
        x = torch.tensor(np.asarray(compile_for), dtype=torch.float32, requires_grad=True)
        torch.autograd.grad(flow(x).sum(), x)
    return flow


def torch_system(model, count: int = 1, *, flow=None, device: str = "cpu") -> openmm.System:
    """The same molecules in openmm.PythonForce around PyTorch, all in one batch. Needs torch.

    FlowForce's continuation outside of the support is left out, as someone who writes this for a simulation might do.

    Parameters
    ----------
    model : a path.
    count : molecules.
    flow : what :func:`torch_flow` made of the model; made here if there is none.
    device : of PyTorch, where ``flow`` is.
    """
    import torch

    if flow is None:
        flow = torch_flow(model).to(device)
    architecture, _ = model_file.read(model)
    thermal_energy = dataset.MOLAR_GAS_CONSTANT * architecture["temperature"]
    shape = (count, architecture["numParticles"], 3)

    def compute(state):
        positions = state.getPositions(asNumpy=True)._value.reshape(shape).astype(np.float32)
        x = torch.from_numpy(positions).to(device).requires_grad_(True)
        log_prob = flow(x).sum()
        gradient, = torch.autograd.grad(log_prob, x)
        return -thermal_energy * log_prob.item(), thermal_energy * gradient.cpu().numpy().reshape(-1, 3).astype(np.float64)

    system = molecules_without_force(count)
    system.addForce(openmm.PythonForce(compute))
    return system


def force_field_system() -> openmm.System:
    """One molecule in amber99sbildn with OBC implicit solvent, without constraints."""
    return dataset.implicit_solvent_system(dataset.alanine_dipeptide().topology)


def context(system: openmm.System, platform: str, positions, *, threads: int | None = None, seed: int = 1,
            integrator: openmm.Integrator | None = None) -> openmm.Context:
    """A Context with Langevin dynamics (LangevinMiddle) unless told otherwise, at ``positions`` (molecules, particles, 3) in nm."""
    if integrator is None:
        integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, FRICTION, STEP_SIZE)
        integrator.setRandomNumberSeed(seed)
    properties = {"Threads": str(threads)} if threads is not None and platform == "CPU" else {}
    made = openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform), properties)
    made.setPositions(np.asarray(positions, dtype=float).reshape(-1, 3))
    return made


def energy_and_forces(made: openmm.Context) -> tuple[float, np.ndarray]:
    """Potential energy, kJ/mol, and forces (particles, 3), kJ/mol/nm."""
    state = made.getState(energy=True, forces=True)
    return (state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole),
            state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer))
