# SPDX-License-Identifier: MIT
"""The potential "flow" of OpenMM-ML: Systems of the flow alone, and of the flow within a larger topology."""
import warnings

import numpy as np
import openmm
import pytest
from openmm import app, unit

from conftest import MOLAR_GAS_CONSTANT
from openmmflow import FlowForce, FlowModel, FlowModelError, dataset, model_file, replaceMolecule, shipped
from random_flow import random_flow

openmmml = pytest.importorskip("openmmml", reason="OpenMM-ML is not installed (pip install openmmml)")

THERMAL_ENERGY = MOLAR_GAS_CONSTANT * 300


def evaluate(system, positions, **parameters):
    """Energy and forces in kJ/mol and nm."""
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    for name, value in parameters.items():
        context.setParameter(name, value)
    state = context.getState(energy=True, forces=True)
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value


@pytest.fixture(scope="module")
def potential():
    return openmmml.MLPotential("flow", modelPath=str(shipped.MODEL))


@pytest.fixture(scope="module")
def dimer():
    """Two molecules of alanine dipeptide side by side in vacuum: (topology, positions in nm, System of a force field)."""
    pdb = dataset.alanine_dipeptide()
    modeller = app.Modeller(pdb.topology, pdb.positions)
    modeller.add(pdb.topology, [position + openmm.Vec3(0, 0, 0.6) * unit.nanometer for position in pdb.positions])
    system = app.ForceField("amber14/protein.ff14SB.xml").createSystem(modeller.topology)
    return modeller.topology, np.array(modeller.positions.value_in_unit(unit.nanometer)), system


def test_create_system(potential):
    pdb = dataset.alanine_dipeptide()
    system = potential.createSystem(pdb.topology)
    assert [type(force).__name__ for force in system.getForces()] == ["Force", "CMMotionRemover"]
    assert FlowForce.isinstance(system.getForce(0)) and not system.usesPeriodicBoundaryConditions()
    x = pdb.getPositions(asNumpy=True)
    energy, forces = evaluate(system, x)
    log_prob, gradient = FlowModel.load(shipped.MODEL).log_prob_and_gradient(x)
    assert abs(energy + THERMAL_ENERGY * log_prob) <= 1e-9 * abs(energy)
    np.testing.assert_allclose(forces, THERMAL_ENERGY * gradient, rtol=1e-9, atol=1e-7)


def test_create_system_of_several_molecules(potential, dimer):
    topology, x, _ = dimer
    energy, _ = evaluate(potential.createSystem(topology, removeCMMotion=False), x)
    expected = -THERMAL_ENERGY * FlowModel.load(shipped.MODEL).log_prob(x.reshape(2, 22, 3)).sum()
    assert abs(energy - expected) <= 1e-9 * abs(expected)


def test_constraints_of_the_model(tmp_path):
    model_file.write(tmp_path / "model.safetensors", *random_flow(constraints=[[0, 1, 0.15]]))
    potential = openmmml.MLPotential("flow", modelPath=tmp_path / "model.safetensors")
    topology = app.Topology()
    residue = topology.addResidue("CHN", topology.addChain())
    atoms = [topology.addAtom(f"C{i}", app.element.carbon, residue) for i in range(6)]
    for pair in zip(atoms, atoms[1:]):
        topology.addBond(*pair)
    system = potential.createSystem(topology)
    assert [system.getConstraintParameters(i) for i in range(system.getNumConstraints())] == [[0, 1, 0.15 * unit.nanometer]]
    openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))


def test_mixed_system(potential, dimer):
    """The second molecule is the flow, the first and what acts between them are the force field."""
    topology, x, system = dimer
    atoms = range(22, 44)
    with pytest.warns(UserWarning, match="counts twice"):
        mixed = potential.createMixedSystem(topology, system, atoms, forceGroup=3)
    with pytest.warns(UserWarning, match="would count twice"):
        ours = replaceMolecule(system, atoms, shipped.MODEL)
    energy, forces = evaluate(mixed, x)
    our_energy, our_forces = evaluate(ours, x)
    print(f"\nOpenMM-ML {energy:.9f} kJ/mol, replaceMolecule {our_energy:.9f}")
    assert abs(energy - our_energy) <= 1e-9 * abs(energy)
    np.testing.assert_allclose(forces, our_forces, rtol=1e-9, atol=1e-6)
    assert [force.getForceGroup() for force in mixed.getForces() if FlowForce.isinstance(force)] == [3]


def test_interpolation(potential, dimer):
    topology, x, system = dimer
    atoms = range(22, 44)
    with pytest.warns(UserWarning, match="counts twice"):
        mixed = potential.createMixedSystem(topology, system, atoms)
        interpolated = potential.createMixedSystem(topology, system, atoms, interpolate=True)
    (e0, f0), (e1, f1) = evaluate(system, x), evaluate(mixed, x)
    for scale in (0.0, 0.3, 1.0):
        energy, forces = evaluate(interpolated, x, lambda_interpolate=scale)
        expected = (1 - scale) * e0 + scale * e1
        print(f"\nlambda {scale}: {energy:.9f} kJ/mol, expected {expected:.9f}")
        # OpenMM-ML turns charges into bonds of its own, with Coulomb's constant rounded to 1e-8.
        assert abs(energy - expected) <= 1e-5
        np.testing.assert_allclose(forces, (1 - scale) * f0 + scale * f1, rtol=1e-7, atol=1e-4)


def test_periodic_mixed_system(potential):
    """In PME with constraints of hydrogens: molecules are made whole, constraints are removed, and dynamics runs."""
    pdb = dataset.alanine_dipeptide()
    field = app.ForceField("amber14/protein.ff14SB.xml", "amber14/tip3p.xml")
    modeller = app.Modeller(pdb.topology, pdb.positions)
    modeller.addSolvent(field, boxSize=openmm.Vec3(2.2, 2.2, 2.2) * unit.nanometer)
    system = field.createSystem(modeller.topology, nonbondedMethod=app.PME, nonbondedCutoff=1.0 * unit.nanometer, constraints=app.HBonds)
    with pytest.warns(UserWarning, match="counts twice"):
        mixed = potential.createMixedSystem(modeller.topology, system, range(22))
    flow = FlowForce.cast(next(force for force in mixed.getForces() if FlowForce.isinstance(force)))
    assert flow.usesPeriodicBoundaryConditions()
    assert mixed.getNumConstraints() == system.getNumConstraints() - 12
    simulation = app.Simulation(modeller.topology, mixed, openmm.LangevinMiddleIntegrator(300, 5.0, 0.001),
                                openmm.Platform.getPlatformByName("CPU"))
    simulation.context.setPositions(modeller.positions)
    simulation.minimizeEnergy(maxIterations=30)
    simulation.step(100)
    assert flow.getLogProbs(simulation.context)[0] > 100


def test_an_implicit_solvent_warns(potential):
    pdb = dataset.alanine_dipeptide()
    system = app.ForceField("amber99sbildn.xml", "amber99_obc.xml").createSystem(pdb.topology)
    with pytest.warns(UserWarning, match="trained on a molecule in implicit solvent"):
        potential.createMixedSystem(pdb.topology, system, range(22))


def test_order_of_atoms_warns(potential):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        potential.createSystem(dataset.alanine_dipeptide().topology)
    pdb = dataset.alanine_dipeptide()
    system = app.ForceField("amber14/protein.ff14SB.xml").createSystem(pdb.topology)
    with pytest.warns(UserWarning, match="order in which the model was trained"):
        potential.createMixedSystem(pdb.topology, system, list(reversed(range(22))))


def test_wrong_arguments(potential, dimer, tmp_path):
    topology, _, system = dimer
    with pytest.raises(ValueError, match="needs a model: MLPotential\\(\"flow\", modelPath="):
        openmmml.MLPotential("flow")
    with pytest.raises(TypeError, match="has no argument modelName"):
        openmmml.MLPotential("flow", modelPath=shipped.MODEL, modelName="x")
    with pytest.raises(FlowModelError):
        openmmml.MLPotential("flow", modelPath=tmp_path / "absent.safetensors")
    with pytest.raises(ValueError, match="44 atoms are 2 molecules"):
        potential.createMixedSystem(topology, system, range(44))
    # OpenMM-ML caps bonds that are cut, and the flow is of a whole molecule.
    with pytest.raises(ValueError, match="molecule of 22 particles, but .* atoms were given"):
        potential.createMixedSystem(topology, system, range(22, 40))
