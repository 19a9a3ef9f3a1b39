# SPDX-License-Identifier: MIT
"""FlowForce from Python: everything that OpenMM users do with a Force."""
import copy
import gc
import inspect
import io
import math
import pickle
from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app, unit

import openmmflow
from conftest import MOLAR_GAS_CONSTANT
from openmmflow import FlowForce, FlowModel, FlowModelError, SupportMargins, model_file
from random_flow import MASS, conformations, random_flow, rotation

THERMAL_ENERGY = MOLAR_GAS_CONSTANT * 300.0
# Relative accuracy of energies and forces: the CPU platform evaluates couplings in single precision.
PRECISION = {"Reference": 1e-11, "CPU": 2e-5}
PLATFORMS = list(PRECISION)


def system_of(*forces, particles=6, masses=MASS, box=None):
    system = openmm.System()
    for mass in np.broadcast_to(masses, particles):
        system.addParticle(mass)
    for force in forces:
        system.addForce(force)
    if box is not None:
        system.setDefaultPeriodicBoxVectors(*(openmm.Vec3(*vector) for vector in np.asarray(box, dtype=float)))
    return system


def context_of(system, positions, integrator=None, platform="Reference"):
    context = openmm.Context(system, integrator or openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName(platform))
    context.setPositions(positions)
    return context


def energy_of(context, **what):
    return context.getState(energy=True, **what).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)


def forces_of(context, **what):
    state = context.getState(forces=True, **what)
    return state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)


def positions_of(context):
    return context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)


def chain_topology(chains=1, particles=6):
    topology = app.Topology()
    for _ in range(chains):
        residue = topology.addResidue("CHN", topology.addChain())
        atoms = [topology.addAtom(f"C{i}", app.Element.getBySymbol("C"), residue) for i in range(particles)]
        for first, second in zip(atoms, atoms[1:]):
            topology.addBond(first, second)
    return topology


def rebuilt(model, **changes):
    """The model with another architecture."""
    architecture, tensors = model_file.unpack(model.to_bytes())
    return FlowModel.from_bytes(model_file.pack({**architecture, **changes}, tensors))


# Energies and forces

@pytest.mark.parametrize("platform", PLATFORMS)
def test_is_the_potential_of_the_model(small_model, small_positions, platform):
    context = context_of(system_of(FlowForce(small_model)), small_positions[0], platform=platform)
    log_prob, gradient = small_model.log_prob_and_gradient(small_positions)
    for frame, expected, expected_gradient in zip(small_positions, log_prob, gradient):
        context.setPositions(frame)
        assert energy_of(context) == pytest.approx(-THERMAL_ENERGY * expected, rel=PRECISION[platform])
        np.testing.assert_allclose(forces_of(context), THERMAL_ENERGY * expected_gradient, rtol=0,
                                   atol=PRECISION[platform] * THERMAL_ENERGY * np.abs(expected_gradient).max())


def test_forces_are_the_derivative_of_the_energy(small_model, small_positions):
    x = small_positions[0]
    context = context_of(system_of(FlowForce(small_model)), x)
    forces = forces_of(context)

    def energy_at(displacement, particle, axis):
        moved = x.copy()
        moved[particle, axis] += displacement
        context.setPositions(moved)
        return energy_of(context)

    numerical = np.zeros_like(x)
    h = 2e-5
    for particle, axis in np.ndindex(x.shape):
        differences = [energy_at(n * h, particle, axis) - energy_at(-n * h, particle, axis) for n in (1, 2)]
        numerical[particle, axis] = -(8 * differences[0] - differences[1]) / (12 * h)
    np.testing.assert_allclose(forces, numerical, rtol=0, atol=1e-7 * np.abs(forces).max())


def test_several_molecules_anywhere_in_the_system(small_model, small_positions):
    """Molecules of interleaved, unordered particles among others that the force does not touch."""
    order = np.random.default_rng(0).permutation(15)
    molecules = [order[:6], order[6:12]]
    x = np.random.default_rng(1).normal(size=(15, 3))
    force = FlowForce(small_model)
    for molecule, frame in zip(molecules, small_positions):
        x[molecule] = frame
        force.addMolecule(molecule)
    context = context_of(system_of(force, particles=15), x)
    log_prob, gradient = small_model.log_prob_and_gradient(small_positions[:2])
    assert energy_of(context) == pytest.approx(-THERMAL_ENERGY * log_prob.sum(), rel=1e-12)
    forces = forces_of(context)
    for molecule, expected in zip(molecules, gradient):
        np.testing.assert_allclose(forces[molecule], THERMAL_ENERGY * expected, rtol=1e-11, atol=1e-9)
    assert (forces[order[12:]] == 0).all()
    np.testing.assert_allclose(force.getLogProbs(context), log_prob, rtol=1e-13)
    np.testing.assert_allclose(force.getLatents(context), small_model.to_latent(small_positions[:2]), rtol=1e-12)


def test_invariances(small_model, small_positions):
    random = np.random.default_rng(4)
    x = small_positions[0]
    plain = context_of(system_of(FlowForce(small_model)), x)
    energy = energy_of(plain)
    forces = forces_of(plain)

    turn = rotation(random)
    plain.setPositions(x @ turn.T + random.normal(size=3))
    assert abs(energy_of(plain) - energy) <= 1e-9 * THERMAL_ENERGY
    np.testing.assert_allclose(forces_of(plain), forces @ turn.T, rtol=0, atol=1e-9 * np.abs(forces).max())

    order = random.permutation(6)
    force = FlowForce(small_model)
    force.addMolecule(order)
    renumbered = np.empty_like(x)
    renumbered[order] = x
    context = context_of(system_of(force), renumbered)
    assert abs(energy_of(context) - energy) <= 1e-9 * THERMAL_ENERGY
    np.testing.assert_allclose(forces_of(context)[order], forces, rtol=0, atol=1e-9 * np.abs(forces).max())


@pytest.mark.parametrize("box", [np.diag([2.0, 2.2, 2.4]), [[2, 0, 0], [0.6, 2, 0], [-0.5, 0.7, 2]]], ids=["rectangular", "triclinic"])
def test_wrapped_molecules_are_made_whole(small_model, small_positions, box):
    box = np.array(box, dtype=float)
    force = FlowForce(small_model)
    force.setUsesPeriodicBoundaryConditions(True)
    system = system_of(force, box=box)
    assert force.usesPeriodicBoundaryConditions() and system.usesPeriodicBoundaryConditions()
    context = context_of(system, small_positions[0])
    energy = energy_of(context)
    forces = forces_of(context)
    assert energy == pytest.approx(-THERMAL_ENERGY * small_model.log_prob(small_positions[0]), rel=1e-12)
    shifts = np.random.default_rng(2).integers(-2, 3, size=(6, 3))
    context.setPositions(small_positions[0] + shifts @ box)
    assert abs(energy_of(context) - energy) <= 1e-9 * THERMAL_ENERGY
    np.testing.assert_allclose(forces_of(context), forces, rtol=0, atol=1e-9 * np.abs(forces).max())
    np.testing.assert_allclose(force.getLogProbs(context), small_model.log_prob(small_positions[0]), rtol=1e-11)


def test_outside_of_the_support_it_is_finite_and_pushes_back(small_model, small_positions):
    x = small_positions[0].copy()
    context = context_of(system_of(FlowForce(small_model)), x)
    away = (x[5] - x[4]) / np.linalg.norm(x[5] - x[4])
    x[5] += 0.1 * away
    context.setPositions(x)
    assert small_model.log_prob(x) == -np.inf
    assert math.isfinite(energy_of(context)) and np.isfinite(forces_of(context)).all()
    assert forces_of(context)[5] @ away < 0


# Dynamics

def test_simulation_with_reporters(tmp_path, small_model, small_positions):
    """Simulation with thermostat, minimizer and the reporters that come with OpenMM."""
    topology = chain_topology()
    integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 5 / unit.picosecond, 1 * unit.femtosecond)
    integrator.setRandomNumberSeed(1)
    simulation = app.Simulation(topology, system_of(FlowForce(small_model)), integrator, openmm.Platform.getPlatformByName("CPU"))
    simulation.context.setPositions(small_positions[0])
    before = energy_of(simulation.context)
    simulation.minimizeEnergy()
    assert energy_of(simulation.context) < before
    simulation.context.setVelocitiesToTemperature(300, 1)
    log = io.StringIO()
    simulation.reporters += [
        app.StateDataReporter(log, 100, step=True, potentialEnergy=True, totalEnergy=True, temperature=True),
        app.DCDReporter(str(tmp_path / "trajectory.dcd"), 100),
        app.PDBReporter(str(tmp_path / "trajectory.pdb"), 500),
        app.CheckpointReporter(str(tmp_path / "checkpoint"), 500),
    ]
    simulation.step(5000)
    rows = np.loadtxt(io.StringIO(log.getvalue()), delimiter=",")
    assert rows.shape == (50, 4) and np.isfinite(rows).all()
    assert 200 < rows[10:, 3].mean() < 400
    assert np.isfinite(small_model.log_prob(positions_of(simulation.context)))
    assert len(app.PDBFile(str(tmp_path / "trajectory.pdb")).positions) == 6
    assert (tmp_path / "trajectory.dcd").stat().st_size > 50 * 6 * 12 and (tmp_path / "checkpoint").stat().st_size > 0


def test_minimizer_finds_a_stationary_point(small_model, small_positions):
    context = context_of(system_of(FlowForce(small_model)), small_positions[0])
    openmm.LocalEnergyMinimizer.minimize(context, 0.01, 0)
    assert np.sqrt((forces_of(context)**2).mean()) < 0.1


def total_energy(context):
    state = context.getState(energy=True)
    return (state.getPotentialEnergy() + state.getKineticEnergy()).value_in_unit(unit.kilojoule_per_mole)


def custom_verlet(step_size):
    integrator = openmm.CustomIntegrator(step_size)
    integrator.addComputePerDof("v", "v+0.5*dt*f/m")
    integrator.addComputePerDof("x", "x+dt*v")
    integrator.addComputePerDof("v", "v+0.5*dt*f/m")
    return integrator


@pytest.mark.parametrize("integrator", [openmm.VerletIntegrator, custom_verlet], ids=["Verlet", "Custom"])
def test_dynamics_conserves_energy(small_model, small_positions, integrator):
    """As the square of the step size: the mark of a smooth potential."""
    fluctuations = []
    for step_size in (0.00025, 0.0005):
        context = context_of(system_of(FlowForce(small_model)), small_positions[1], integrator(step_size))
        of_starts = []
        for start in range(4):
            context.setPositions(small_positions[start])
            openmm.LocalEnergyMinimizer.minimize(context)
            context.setVelocitiesToTemperature(100, start)
            energies = []
            for _ in range(200):
                context.getIntegrator().step(round(0.005 / step_size))
                energies.append(total_energy(context))
            of_starts.append(np.std(energies))
        fluctuations.append(np.mean(of_starts))
    print(f"\nNVE, mean std of the total energy: {fluctuations[0]:.2e} kJ/mol at 0.25 fs, {fluctuations[1]:.2e} at 0.5 fs")
    assert fluctuations[0] < 0.05
    assert fluctuations[1] / fluctuations[0] == pytest.approx(4, rel=0.2)


def test_custom_integrator_sees_the_force_group(small_model, small_positions):
    force = FlowForce(small_model)
    force.setForceGroup(3)
    springs = openmm.CustomExternalForce("x")
    springs.addParticle(0, [])
    integrator = openmm.CustomIntegrator(0.001)
    integrator.addGlobalVariable("flow", 0)
    integrator.addGlobalVariable("rest", 0)
    integrator.addComputeGlobal("flow", "energy3")
    integrator.addComputeGlobal("rest", "energy0")
    context = context_of(system_of(force, springs), small_positions[0], integrator)
    integrator.step(1)
    assert integrator.getGlobalVariableByName("flow") == energy_of(context, groups={3})
    assert integrator.getGlobalVariableByName("rest") == energy_of(context, groups={0}) != 0


def test_force_groups(small_model, small_positions):
    force = FlowForce(small_model)
    force.setForceGroup(5)
    bond = openmm.HarmonicBondForce()
    bond.addBond(0, 5, 0.5, 100.0)
    context = context_of(system_of(force, bond), small_positions[0])
    flow, rest = energy_of(context, groups={5}), energy_of(context, groups={0})
    assert flow == pytest.approx(-THERMAL_ENERGY * small_model.log_prob(small_positions[0]), rel=1e-12)
    assert energy_of(context) == pytest.approx(flow + rest, rel=1e-13) and rest > 0
    np.testing.assert_allclose(forces_of(context), forces_of(context, groups={5}) + forces_of(context, groups={0}), atol=1e-10)
    assert energy_of(context, groups={1}) == 0 and (forces_of(context, groups={1}) == 0).all()


def test_multiple_time_steps(small_model, small_positions):
    force = FlowForce(small_model)
    force.setForceGroup(1)
    bond = openmm.HarmonicBondForce()
    bond.addBond(0, 5, 0.5, 100.0)
    context = context_of(system_of(force, bond), small_positions[0], openmm.MTSIntegrator(0.001, [(0, 1), (1, 2)]))
    openmm.LocalEnergyMinimizer.minimize(context)
    context.setVelocitiesToTemperature(100, 3)
    start = total_energy(context)
    context.getIntegrator().step(500)
    assert total_energy(context) == pytest.approx(start, abs=0.5)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_inside_a_custom_cv_force(small_model, small_positions, platform):
    plain = context_of(system_of(FlowForce(small_model)), small_positions[0])
    energy, forces = energy_of(plain), forces_of(plain)
    cv = openmm.CustomCVForce("k*u^2")
    cv.addGlobalParameter("k", 0.25)
    cv.addCollectiveVariable("u", FlowForce(small_model))
    context = context_of(system_of(cv), small_positions[0], platform=platform)
    tolerance = PRECISION[platform]
    assert cv.getCollectiveVariableValues(context) == (pytest.approx(energy, rel=tolerance),)
    assert energy_of(context) == pytest.approx(0.25 * energy**2, rel=2 * tolerance)
    np.testing.assert_allclose(forces_of(context), 0.5 * energy * forces, rtol=0, atol=tolerance * np.abs(energy * forces).max())
    context.getIntegrator().step(10)
    assert math.isfinite(energy_of(context))


@pytest.mark.parametrize("integrator", [lambda: openmm.VerletIntegrator(0.001), lambda: openmm.LangevinMiddleIntegrator(300, 1, 0.001)],
                         ids=["Verlet", "LangevinMiddle"])
def test_checkpoint_goes_on_where_it_was(small_model, small_positions, integrator):
    system = system_of(FlowForce(small_model))
    context = context_of(system, small_positions[0], integrator())
    context.setVelocitiesToTemperature(300, 1)
    context.getIntegrator().step(50)
    checkpoint = context.createCheckpoint()
    context.getIntegrator().step(50)
    there = positions_of(context)
    context.loadCheckpoint(checkpoint)
    context.getIntegrator().step(50)
    np.testing.assert_array_equal(positions_of(context), there)


def test_state_goes_on_where_it_was(tmp_path, small_model, small_positions):
    """Simulation.saveState and loadState in another Simulation, made from the System's XML; λ travels with the State."""
    def simulation_of(system):
        return app.Simulation(chain_topology(), system, openmm.VerletIntegrator(0.001),
                              openmm.Platform.getPlatformByName("Reference"))

    simulation = simulation_of(system_of(FlowForce(small_model)))
    simulation.context.setPositions(small_positions[0])
    simulation.context.setVelocitiesToTemperature(300, 1)
    simulation.context.setParameter("FlowScale", 0.75)
    simulation.step(50)
    simulation.saveState(str(tmp_path / "state.xml"))
    system_xml = openmm.XmlSerializer.serialize(simulation.system)
    simulation.step(50)

    other = simulation_of(openmm.XmlSerializer.deserialize(system_xml))
    other.loadState(str(tmp_path / "state.xml"))
    assert other.context.getParameter("FlowScale") == 0.75 and other.currentStep == 50
    other.step(50)
    np.testing.assert_array_equal(positions_of(other.context), positions_of(simulation.context))


def test_barostat_scales_whole_molecules(small_model, small_positions):
    """OpenMM learns the molecules from the force's bond graph alone, so volume moves leave their energies unchanged."""
    random = np.random.default_rng(3)
    force = FlowForce(small_model)
    force.setUsesPeriodicBoundaryConditions(True)
    for molecule in range(8):
        force.addMolecule(range(6 * molecule, 6 * molecule + 6))
    barostat = openmm.MonteCarloBarostat(1 * unit.bar, 300 * unit.kelvin, 5)
    barostat.setRandomNumberSeed(1)
    system = system_of(force, barostat, particles=48, box=3 * np.eye(3))
    integrator = openmm.LangevinMiddleIntegrator(300, 1, 0.001)
    integrator.setRandomNumberSeed(2)
    x = (small_positions[:8] + random.uniform(0, 3, size=(8, 1, 3))).reshape(-1, 3)
    context = context_of(system, x, integrator)
    assert sorted(map(sorted, context.getMolecules())) == [list(range(6 * m, 6 * m + 6)) for m in range(8)]
    volume = context.getState().getPeriodicBoxVolume().value_in_unit(unit.nanometer**3)
    integrator.step(500)
    state = context.getState(positions=True, energy=True, enforcePeriodicBox=True)
    assert state.getPeriodicBoxVolume().value_in_unit(unit.nanometer**3) != volume
    energy = state.getPotentialEnergy()._value
    assert energy == pytest.approx(-THERMAL_ENERGY * force.getLogProbs(context).sum(), rel=1e-9)
    # enforcePeriodicBox moved whole molecules.
    whole = state.getPositions(asNumpy=True)._value.reshape(8, 6, 3)
    np.testing.assert_allclose(small_model.log_prob(whole), force.getLogProbs(context), rtol=1e-9)


def test_hydrogen_mass_repartitioning(small_model, small_positions):
    energies = {energy_of(context_of(system_of(FlowForce(small_model), masses=masses), small_positions[0]))
                for masses in (12.0, [4, 8, 12, 12, 8, 4])}
    assert len(energies) == 1


# λ, temperature, margins, models

def test_temperature(small_model, small_positions):
    force = FlowForce(small_model)
    assert force.getTemperature() == 300 * unit.kelvin and not force.hasTemperatureOverride()
    for temperature in (450, 450.0, np.float32(450), np.int64(450), 450 * unit.kelvin):
        force = FlowForce(small_model)
        force.setTemperature(temperature)
        assert force.getTemperature() == 450 * unit.kelvin and force.hasTemperatureOverride()
    context = context_of(system_of(force), small_positions[0])
    assert energy_of(context) == pytest.approx(-1.5 * THERMAL_ENERGY * small_model.log_prob(small_positions[0]), rel=1e-12)


@pytest.mark.parametrize("temperature", [0, -1, math.nan, math.inf])
def test_impossible_temperatures(small_model, temperature):
    with pytest.raises(openmm.OpenMMException, match="temperature"):
        FlowForce(small_model).setTemperature(temperature)


@pytest.mark.parametrize("temperature", [300 * unit.kilojoule_per_mole, 1 * unit.nanometer, "300", None, [300]])
def test_no_temperatures(small_model, temperature):
    force = FlowForce(small_model)
    with pytest.raises(TypeError, match="temperature"):
        force.setTemperature(temperature)
    assert not force.hasTemperatureOverride()


def test_scale_parameter(small_model, small_positions):
    force = FlowForce(small_model)
    assert force.getScaleParameterName() == "FlowScale" and force.getDefaultScale() == 1
    force.setScaleParameterName("lambda_flow")
    force.setDefaultScale(0.5)
    force.addEnergyParameterDerivative("lambda_flow")
    assert force.getNumEnergyParameterDerivatives() == 1 and force.getEnergyParameterDerivativeName(0) == "lambda_flow"
    context = context_of(system_of(force), small_positions[0])
    full = -THERMAL_ENERGY * small_model.log_prob(small_positions[0])
    for scale in (0.5, 1, 0, -0.25):
        context.setParameter("lambda_flow", scale)
        state = context.getState(energy=True, parameterDerivatives=True)
        assert state.getPotentialEnergy()._value == pytest.approx(scale * full, rel=1e-12, abs=1e-12)
        assert state.getEnergyParameterDerivatives()["lambda_flow"] == pytest.approx(full, rel=1e-12)


def test_forces_share_a_scale_parameter(small_model, small_positions):
    forces = [FlowForce(small_model), FlowForce(small_model)]
    for i, force in enumerate(forces):
        force.addMolecule(range(6 * i, 6 * i + 6))
        force.addEnergyParameterDerivative("FlowScale")
    context = context_of(system_of(*forces, particles=12), small_positions[:2].reshape(12, 3))
    full = -THERMAL_ENERGY * small_model.log_prob(small_positions[:2]).sum()
    context.setParameter("FlowScale", 0.5)
    state = context.getState(energy=True, parameterDerivatives=True)
    assert state.getPotentialEnergy()._value == pytest.approx(0.5 * full, rel=1e-12)
    assert state.getEnergyParameterDerivatives()["FlowScale"] == pytest.approx(full, rel=1e-12)


def test_bad_scales(small_model):
    force = FlowForce(small_model)
    for wrong in (math.nan, math.inf):
        with pytest.raises(openmm.OpenMMException, match="scale"):
            force.setDefaultScale(wrong)
    with pytest.raises(TypeError, match="scale"):
        force.setDefaultScale(1 * unit.kelvin)
    with pytest.raises(openmm.OpenMMException, match="empty"):
        force.setScaleParameterName("")
    with pytest.raises(openmm.OpenMMException, match="FlowScale"):
        force.addEnergyParameterDerivative("lambda")
    with pytest.raises(openmm.OpenMMException):
        force.getEnergyParameterDerivativeName(0)


def test_margins(small_model):
    force = FlowForce(small_model)
    default = force.getMargins()
    assert isinstance(default, SupportMargins) and not force.hasMarginsOverride()
    assert [len(margins) for margins in default] == [5, 4, 3]
    assert default.bonds.unit == unit.nanometer and default.angles.unit == default.torsionAngles.unit == unit.radian
    assert all((margins._value > 0).all() for margins in default)

    force.setMargins(default._replace(bonds=0.01 * unit.angstrom, angles=np.full(4, 0.02)))
    assert force.hasMarginsOverride()
    changed = force.getMargins()
    np.testing.assert_allclose(changed.bonds._value, 0.001)
    np.testing.assert_allclose(changed.angles._value, 0.02)
    np.testing.assert_array_equal(changed.torsionAngles._value, default.torsionAngles._value)
    for wrong in (default._replace(bonds=[0.001]), default._replace(angles=-0.1), default._replace(torsionAngles=math.nan)):
        with pytest.raises(openmm.OpenMMException, match="margin"):
            force.setMargins(wrong)
    for wrong in (default._replace(bonds=0.001 * unit.radian), 0.001, default.bonds, None, default[:2]):
        with pytest.raises(TypeError, match="margins"):
            force.setMargins(wrong)
    np.testing.assert_array_equal(force.getMargins().bonds._value, changed.bonds._value)


def test_margins_of_mixed_coordinates():
    """Of the particles outside of the block alone."""
    force = FlowForce(Path(__file__).parents[1] / "data" / "version2" / "model.safetensors")
    force.setMargins(force.getMargins()._replace(bonds=0.002, angles=0.03, torsionAngles=0.04))
    for found, expected in zip(force.getMargins(), (0.002, 0.03, 0.04)):
        assert found._value.tolist() == [expected] * 3


def test_update_parameters_in_context(small_model, small_positions):
    force = FlowForce(small_model)
    context = context_of(system_of(force), small_positions[0])
    other = FlowModel.from_bytes(model_file.pack(*random_flow(seed=9)))
    force.setModel(other)
    force.setTemperature(330)
    assert force.getModel() == other
    assert force.getLogProbs(context) == pytest.approx([small_model.log_prob(small_positions[0])], rel=1e-12)
    force.updateParametersInContext(context)
    expected = other.log_prob(small_positions[0])
    assert energy_of(context) == pytest.approx(-1.1 * THERMAL_ENERGY * expected, rel=1e-12)
    assert force.getLogProbs(context) == pytest.approx([expected], rel=1e-12)


@pytest.mark.parametrize("change", [
    lambda force: force.setModel(FlowModel.from_bytes(model_file.pack(*random_flow(measure="frame")))),
    lambda force: force.addMolecule(range(6, 12)),
    lambda force: force.setMoleculeParticles(0, range(5, -1, -1)),
    lambda force: force.setScaleParameterName("other"),
    lambda force: force.addEnergyParameterDerivative("FlowScale"),
    lambda force: force.setUsesPeriodicBoundaryConditions(True),
])
def test_what_cannot_change_in_a_context(small_model, small_positions, change):
    force = FlowForce(small_model)
    force.addMolecule(range(6))
    context = context_of(system_of(force, particles=12), small_positions[:2].reshape(12, 3))
    energy = energy_of(context)
    change(force)
    with pytest.raises(openmm.OpenMMException, match="updateParametersInContext"):
        force.updateParametersInContext(context)
    assert energy_of(context) == energy


# Copies

def assert_same(force, original, positions):
    """Bit for bit the same energies, and all settings."""
    assert type(force) is FlowForce and force.this != original.this
    assert force.getModel() == original.getModel()
    for getter in ("getName", "getForceGroup", "getTemperature", "hasTemperatureOverride", "getScaleParameterName", "getDefaultScale",
                   "getNumEnergyParameterDerivatives", "usesPeriodicBoundaryConditions", "getNumMolecules", "hasMarginsOverride"):
        assert getattr(force, getter)() == getattr(original, getter)(), getter
    assert force.getMoleculeParticles(0) == original.getMoleculeParticles(0)
    for margins, expected in zip(force.getMargins(), original.getMargins()):
        np.testing.assert_array_equal(margins._value, expected._value)
    energies = [energy_of(context_of(system_of(copy.copy(each), box=4 * np.eye(3)), positions)) for each in (force, original)]
    assert energies[0] == energies[1]


@pytest.fixture
def unusual_force(small_model):
    force = FlowForce(small_model)
    force.setName("flow of chains")
    force.setForceGroup(7)
    force.addMolecule([5, 4, 3, 2, 1, 0])
    force.setTemperature(310.5)
    force.setScaleParameterName("lambda")
    force.setDefaultScale(0.1)
    force.addEnergyParameterDerivative("lambda")
    force.setUsesPeriodicBoundaryConditions(True)
    force.setMargins(force.getMargins()._replace(bonds=0.0007))
    return force


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda force: pickle.loads(pickle.dumps(force)),
                                       lambda force: FlowForce.cast(openmm.XmlSerializer.clone(force)),
                                       lambda force: FlowForce.cast(openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(force)))],
                         ids=["copy", "deepcopy", "pickle", "clone", "xml"])
def test_copies_of_a_force(unusual_force, small_positions, duplicate):
    force = duplicate(unusual_force)
    assert_same(force, unusual_force, small_positions[0][::-1])
    system = system_of(force)
    assert not force.thisown and FlowForce.isinstance(system.getForce(0))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda system: pickle.loads(pickle.dumps(system)),
                                       lambda system: openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))],
                         ids=["deepcopy", "pickle", "xml"])
def test_copies_of_a_system(unusual_force, small_positions, duplicate):
    system = system_of(unusual_force, box=4 * np.eye(3))
    other = duplicate(system)
    assert_same(FlowForce.cast(other.getForce(0)), unusual_force, small_positions[0][::-1])
    energies = [energy_of(context_of(each, small_positions[0][::-1])) for each in (system, other)]
    assert energies[0] == energies[1]


def test_the_model_is_inside_the_xml(small_model):
    """Weights of both types come back as they were: no file is needed to read a System."""
    for dtype in (np.float32, np.float64):
        model = FlowModel.from_bytes(model_file.pack(*random_flow(seed=3, dtype=dtype)))
        xml = openmm.XmlSerializer.serialize(FlowForce(model))
        assert FlowForce.cast(openmm.XmlSerializer.deserialize(xml)).getModel().to_bytes() == model.to_bytes()


def test_damaged_xml(small_model):
    xml = openmm.XmlSerializer.serialize(FlowForce(small_model))
    middle = len(xml) // 2
    damaged = xml[:middle] + ("A" if xml[middle] != "A" else "B") + xml[middle + 1:]
    with pytest.raises(openmm.OpenMMException):
        openmm.XmlSerializer.deserialize(damaged)


def test_attributes_of_subclasses_survive_copies(small_model):
    class MyForce(FlowForce):
        pass

    force = MyForce(small_model)
    force.note = ["mine"]
    other = copy.deepcopy(force)
    assert type(other) is MyForce and other.note == ["mine"] and other.note is not force.note


# Being an OpenMM Force

def test_is_a_force(small_model):
    force = FlowForce(small_model)
    assert isinstance(force, openmm.Force) and force.getName() == "FlowForce" and force.thisown
    assert "6 particles" in repr(force) and small_model.checksum in repr(force)
    force.setName("other")
    assert force.getName() == "other"


def test_system_owns_what_was_added(small_model):
    force = FlowForce(small_model)
    system = system_of(force)
    assert not force.thisown
    with pytest.raises(Exception, match="own"):
        system.addForce(force)
    assert system.getNumForces() == 1


def test_cast(small_model):
    system = system_of(FlowForce(small_model), openmm.HarmonicBondForce())
    plain = system.getForce(0)
    assert type(plain) is openmm.Force and FlowForce.isinstance(plain)
    force = FlowForce.cast(plain)
    assert type(force) is FlowForce and FlowForce.cast(force) is force and not force.thisown
    force.setTemperature(320)
    assert FlowForce.cast(system.getForce(0)).getTemperature() == 320 * unit.kelvin
    assert not FlowForce.isinstance(system.getForce(1))
    with pytest.raises(TypeError, match="HarmonicBondForce"):
        FlowForce.cast(system.getForce(1))


def test_cast_shares_ownership(small_model):
    """A Force that nobody else owns lives as long as the last of the two objects, and can be added to a System once."""
    for keep_plain in (True, False):
        plain = openmm.XmlSerializer.clone(FlowForce(small_model))
        force = FlowForce.cast(plain)
        assert plain.thisown and force.thisown
        survivor = plain if keep_plain else force
        del plain, force
        gc.collect()
        assert survivor.getName() == "FlowForce" and FlowForce.cast(survivor).getModel() == small_model
        system = system_of(survivor)
        with pytest.raises(Exception, match="own"):
            system.addForce(survivor)


def test_everything_is_documented():
    public = [name for name in vars(FlowForce) if not name.startswith("_")]
    assert len(public) >= 25
    for name in public:
        assert inspect.getdoc(getattr(FlowForce, name)), name
    generated = [name for name in vars(openmmflow.bindings.FlowForce) if not name.startswith("_") and name not in ("thisown", "fromForce")]
    assert set(generated) <= set(public)
    assert "k_B T" in FlowForce.__doc__ and FlowForce.__module__ == FlowModel.__module__ == "openmmflow"


# Arguments

@pytest.mark.parametrize("particles", [range(6), [0, 1, 2, 3, 4, 5], (0, 1, 2, 3, 4, 5), np.arange(6), np.arange(6, dtype=np.uint8),
                                       iter(range(6)), [np.int32(i) for i in range(6)]], ids=lambda value: type(value).__name__)
def test_particles_of_any_integers(small_model, particles):
    force = FlowForce(small_model)
    assert force.addMolecule(particles) == 0
    assert force.getMoleculeParticles(0) == (0, 1, 2, 3, 4, 5)
    force.setMoleculeParticles(np.int64(0), np.arange(6)[::-1])
    assert force.getMoleculeParticles(0) == (5, 4, 3, 2, 1, 0)
    assert force.getNumMolecules() == 1


@pytest.mark.parametrize("particles", [[0.0, 1.0], np.arange(6.0), "012345", 6, None, [0, None], [[0, 1]]])
def test_particles_that_are_none(small_model, particles):
    force = FlowForce(small_model)
    with pytest.raises(TypeError, match="particles must be a sequence of integers"):
        force.addMolecule(particles)
    assert force.getNumMolecules() == 0


def test_indices(small_model):
    force = FlowForce(small_model)
    force.addMolecule(range(6))
    for index in (1, -1, 2**31 - 1):
        with pytest.raises(openmm.OpenMMException, match=str(index)):
            force.getMoleculeParticles(index)
        with pytest.raises(openmm.OpenMMException, match=str(index)):
            force.setMoleculeParticles(index, range(6))
    with pytest.raises(OverflowError):
        force.addMolecule([2**40, 1, 2, 3, 4, 5])
    with pytest.raises(TypeError, match="index must be an integer"):
        force.getMoleculeParticles(0.0)


def test_constructor_takes_models_and_paths(tmp_path, small_model):
    path = tmp_path / "model.safetensors"
    small_model.save(path)
    for argument in (small_model, path, str(path)):
        assert FlowForce(argument).getModel() == small_model
    for wrong in (None, 5, small_model.to_bytes(), {}):
        with pytest.raises(TypeError, match="FlowModel or the path"):
            FlowForce(wrong)
    with pytest.raises(TypeError, match="FlowModel or the path"):
        FlowForce(small_model).setModel(3)
    with pytest.raises(FlowModelError, match="nothing"):
        FlowForce(tmp_path / "nothing")
    (tmp_path / "foreign").write_bytes(b"PK\x03\x04" * 10)
    with pytest.raises(FlowModelError):
        FlowForce(tmp_path / "foreign")


def test_a_force_keeps_its_model(small_flow, small_positions):
    model = FlowModel.from_bytes(model_file.pack(*small_flow))
    expected = model.log_prob(small_positions[0])
    force = FlowForce(model)
    del model
    gc.collect()
    assert force.getModel().log_prob(small_positions[0]) == expected


# Systems that the force cannot be used in

def refuses(system, match):
    with pytest.raises(openmm.OpenMMException, match=match):
        openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))


@pytest.mark.parametrize("particles, match", [
    (range(5), "5.*6|6.*5"), ([0, 1, 2, 3, 4, 6], "6"), ([-1, 1, 2, 3, 4, 5], "-1"), ([0, 1, 2, 3, 4, 4], "4"), ([], "6"),
])
def test_wrong_particles(small_model, particles, match):
    force = FlowForce(small_model)
    force.addMolecule(particles)
    refuses(system_of(force), match)


def test_a_particle_in_two_molecules(small_model):
    force = FlowForce(small_model)
    force.addMolecule(range(6))
    force.addMolecule(range(5, 11))
    refuses(system_of(force, particles=12), "5")


def test_without_molecules_the_system_must_be_one(small_model):
    refuses(system_of(FlowForce(small_model), particles=12), "addMolecule")


def test_constraints_must_be_those_of_the_model(small_model):
    constrained = rebuilt(small_model, constraints=[[0, 1, 0.15]])
    system = system_of(FlowForce(small_model))
    system.addConstraint(0, 1, 0.15)
    refuses(system, "constrain")
    refuses(system_of(FlowForce(constrained)), "constrain")
    system = system_of(FlowForce(constrained))
    system.addConstraint(1, 0, 0.16)
    refuses(system, "constrain")
    system = system_of(FlowForce(constrained))
    system.addConstraint(1, 0, 0.15)
    openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))


def test_virtual_sites_and_massless_particles(small_model):
    refuses(system_of(FlowForce(small_model), masses=[12, 12, 0, 12, 12, 12]), "mass")
    system = system_of(FlowForce(small_model), masses=[12, 12, 0, 12, 12, 12])
    system.setVirtualSite(2, openmm.TwoParticleAverageSite(1, 3, 0.5, 0.5))
    refuses(system, "virtual")


def test_drude_particles(small_model):
    drude = openmm.DrudeForce()
    drude.addParticle(3, 2, -1, -1, -1, -1.0, 0.001, 1, 1)
    refuses(system_of(FlowForce(small_model), drude), "Drude")


def test_platforms_without_the_kernel_say_so(small_model, small_positions):
    names = [openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())]
    assert all(openmmflow.why_not_supported(name) == "" for name in PLATFORMS)
    others = [name for name in names if openmmflow.why_not_supported(name)]
    if not others:
        pytest.skip(f"FlowForce runs on every platform of this machine: {', '.join(names)}")
    for name in others:
        assert name in openmmflow.why_not_supported(name)
        with pytest.raises(openmm.OpenMMException):
            context_of(system_of(FlowForce(small_model)), small_positions[0], platform=name)


def test_context_of_another_system(small_model, small_positions):
    context = context_of(system_of(FlowForce(small_model)), small_positions[0])
    stranger = FlowForce(small_model)
    for call in (stranger.getLogProbs, stranger.getLatents, stranger.updateParametersInContext):
        with pytest.raises(openmm.OpenMMException):
            call(context)
        with pytest.raises(TypeError):
            call(None)


# The published flow

def test_published_flow(published_model, shared_data):
    """All published reference configurations through a Context, in measure "frame"."""
    reference = np.load(shared_data / "published_ala2_smooth_reference.npz")
    positions = reference["positions"]
    context = context_of(system_of(FlowForce(published_model), particles=22), positions[0])
    thermal_energy = MOLAR_GAS_CONSTANT * published_model.temperature
    energies = np.empty(len(positions))
    forces = np.empty_like(positions)
    for frame, x in enumerate(positions):
        context.setPositions(x)
        state = context.getState(energy=True, forces=True)
        energies[frame] = state.getPotentialEnergy()._value
        forces[frame] = state.getForces(asNumpy=True)._value
    energy_error = np.abs(energies / thermal_energy - reference["u"]).max()
    expected = -thermal_energy * reference["gradient"]
    force_error = (np.linalg.norm(forces - expected, axis=(1, 2)) / np.linalg.norm(expected, axis=(1, 2))).max()
    print(f"\npublished flow, FlowForce on the Reference platform, {len(positions)} configurations: "
          f"max |dU| = {energy_error:.2e} k_B T, max relative force error = {force_error:.2e}")
    assert energy_error <= 1e-8 and force_error <= 1e-9
