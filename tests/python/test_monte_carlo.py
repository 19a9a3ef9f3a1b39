# SPDX-License-Identifier: MIT
"""Monte Carlo moves: distributions whose answers are known, with and without dynamics between the moves, and what is refused."""
import numpy as np
import openmm
import pytest
from openmm import app, unit

from conftest import MOLAR_GAS_CONSTANT
from openmmflow import FlowForce, FlowModel, FlowMonteCarlo, dataset, model_file, shipped
from openmmflow.builder import internal_coordinates
from openmmflow.monte_carlo import make_whole, superposition
from random_flow import ANGLE, BOND, MASS, random_flow

TEMPERATURE = 300.0
KT = MOLAR_GAS_CONSTANT * TEMPERATURE
BOND_K, ANGLE_K, TORSION_K, FIELD = 90_000.0, 600.0, 4.0, 20.0
"""kJ/mol/nm², kJ/mol/rad², kJ/mol, kJ/mol/nm: about as wide as the random flow."""


@pytest.fixture(scope="module")
def model():
    return FlowModel.from_bytes(model_file.pack(*random_flow(particles=4)))


def chain_system(model, copies=1, field=0.0):
    """Chains 0-1-2-3 whose bonds, angles and torsion are independent; a field pulls the first two particles apart along z."""
    system = openmm.System()
    bonds, angles, torsions = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce(), openmm.PeriodicTorsionForce()
    pull = openmm.CustomExternalForce("-f*z")
    pull.addPerParticleParameter("f")
    for copy in range(copies):
        first = 4 * copy
        for _ in range(4):
            system.addParticle(MASS)
        for i in range(3):
            bonds.addBond(first + i, first + i + 1, BOND, BOND_K)
        for i in range(2):
            angles.addAngle(first + i, first + i + 1, first + i + 2, ANGLE, ANGLE_K)
        torsions.addTorsion(first, first + 1, first + 2, first + 3, 1, 0.5, TORSION_K)
        if field:
            pull.addParticle(first, [-field])
            pull.addParticle(first + 1, [field])
    for force in (bonds, angles, torsions, pull):
        system.addForce(force)
    return system


def context_of(system, positions, integrator=None):
    context = openmm.Context(system, integrator or openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(np.reshape(positions, (-1, 3)))
    return context


def moment(density, value, low, high):
    """Mean of value(x) under an unnormalized density on (low, high)."""
    x = np.linspace(low, high, 200_001)
    weight = density(x)
    return (weight @ value(x)) / weight.sum()


def expected_moments():
    """Means of b, b², cos θ, cos φ, sin φ."""
    def bond(b):
        return b ** 2 * np.exp(-0.5 * BOND_K * (b - BOND) ** 2 / KT)

    def angle(a):
        return np.sin(a) * np.exp(-0.5 * ANGLE_K * (a - ANGLE) ** 2 / KT)

    def torsion(t):
        return np.exp(-TORSION_K * (1 + np.cos(t - 0.5)) / KT)

    turn = (-np.pi, np.pi)
    return np.array([moment(bond, lambda b: b, 0.1, 0.2), moment(bond, np.square, 0.1, 0.2), moment(angle, np.cos, 0.5, np.pi),
                     moment(torsion, np.cos, *turn), moment(torsion, np.sin, *turn)])


def moments(positions):
    """The same of conformations (frames, 4, 3): (frames, 5)."""
    c = internal_coordinates(positions, [[0, -1, -1, -1], [1, 0, -1, -1], [2, 1, 0, -1], [3, 2, 1, 0]])
    bond, angle, torsion = c[:, :3], np.pi * c[:, 3:5], np.pi * (2 * c[:, 5] - 1)
    return np.stack([bond.mean(axis=1), (bond ** 2).mean(axis=1), np.cos(angle).mean(axis=1), np.cos(torsion), np.sin(torsion)], axis=1)


def deviations(values, expected, blocks=40):
    """Means of a correlated series less what is expected, in standard errors from blocks."""
    means = np.array([block.mean(axis=0) for block in np.array_split(values, blocks)])
    return (values.mean(axis=0) - expected) / (means.std(axis=0, ddof=1) / np.sqrt(blocks))


def positions_of(context):
    return context.getState(positions=True).getPositions(asNumpy=True)._value


@pytest.mark.parametrize("independence", [0.0, 1.0])
@pytest.mark.parametrize("periodic", [False, True])
def test_every_move_is_accepted_when_the_flow_is_the_target(small_model, independence, periodic):
    """exp(-U/k_BT)/p is constant then, so any error in the acceptance, ln p or the placement would reject moves."""
    system = openmm.System()
    for _ in range(2 * small_model.num_particles):
        system.addParticle(MASS)
    force = FlowForce(small_model)
    molecules = [range(6), range(6, 12)]
    for particles in molecules:
        force.addMolecule(particles)
    system.addForce(force)
    positions = small_model.sample(2, seed=5)[0] + [[[0.1, 0.2, 0.3]], [[1.9, 0.1, 1.0]]]
    if periodic:
        box = np.array([[2.0, 0, 0], [0.3, 2.0, 0], [-0.2, 0.4, 2.0]])
        system.setDefaultPeriodicBoxVectors(*box)
        force.setUsesPeriodicBoundaryConditions(True)
        # Each particle in an image of its own.
        positions = positions + np.random.default_rng(1).integers(-1, 2, (2, 6, 3)) @ box
    context = context_of(system, positions)
    mover = FlowMonteCarlo(small_model, system, molecules, temperature=small_model.temperature, independence=independence)
    accepted = mover.step(context, 300)
    assert accepted == 300, mover.statistics
    used = mover.statistics["independence" if independence else "latent"]
    assert used.attempted == used.accepted == 300 and used.acceptance == 1
    assert np.isfinite(small_model.log_prob(positions_of(context).reshape(2, 6, 3))).all()


@pytest.mark.parametrize("options", [
    {"independence": 1.0}, {"independence": 1.0, "orientation": "uniform"}, {"independence": 0.0, "latent_step": 0.15},
    {"independence": 0.3, "latent_step": 0.3}], ids=["independence", "uniform", "latent", "both"])
def test_known_distribution(model, options):
    system = chain_system(model)
    context = context_of(system, model.sample(1, seed=1)[0])
    mover = FlowMonteCarlo(model, system, temperature=TEMPERATURE, seed=11, **options)
    frames = []
    for _ in range(3000):
        mover.step(context, 2)
        frames.append(positions_of(context))
    z = deviations(moments(np.array(frames)[100:]), expected_moments())
    print({kind: round(s.acceptance, 3) for kind, s in mover.statistics.items()}, "deviations in standard errors:", z.round(1))
    assert np.abs(z).max() < 4.5
    assert all(s.acceptance > 0.05 for s in mover.statistics.values() if s.attempted)


def test_measure_frame_proposes_from_the_same_density():
    """ln p of measure "frame" is converted: the target comes out right, and with the same acceptance."""
    acceptance = []
    for measure in ("cartesian", "frame"):
        model = FlowModel.from_bytes(model_file.pack(*random_flow(particles=4, measure=measure)))
        system = chain_system(model)
        context = context_of(system, model.sample(1, seed=1)[0])
        mover = FlowMonteCarlo(model, system, temperature=TEMPERATURE, seed=3)
        acceptance.append(mover.step(context, 400))
    assert acceptance[0] == acceptance[1] > 40


@pytest.mark.parametrize("velocities", ["redraw", "keep"])
@pytest.mark.parametrize("orientation", ["superposed", "uniform"])
def test_between_steps_of_dynamics_in_a_field(model, velocities, orientation):
    """Conformations, orientation in the field and kinetic energy, all known, of chains that are moved by both."""
    copies = 20
    system = chain_system(model, copies, FIELD)
    molecules = [range(4 * i, 4 * i + 4) for i in range(copies)]
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 5.0, 0.001)
    integrator.setRandomNumberSeed(7)
    context = context_of(system, model.sample(copies, seed=1)[0], integrator)
    # Uniform orientations are the way to equilibrium that does not need dynamics.
    FlowMonteCarlo(model, system, molecules, orientation="uniform", independence=1.0).step(context, 100 * copies)
    context.setVelocitiesToTemperature(TEMPERATURE, 5)
    mover = FlowMonteCarlo(model, system, molecules, velocities=velocities, orientation=orientation, latent_step=0.1, seed=2)
    values = []
    for cycle in range(700):
        integrator.step(20)
        mover.step(context, 10)
        # The kinetic energy of the time of the positions, a few steps after the moves.
        integrator.step(5)
        state = context.getState(positions=True, velocities=True, forces=True)
        x, v, f = (a(asNumpy=True)._value.reshape(copies, 4, 3) for a in (state.getPositions, state.getVelocities, state.getForces))
        v = v + 0.0005 * f / MASS
        values.append(np.stack([x[:, 1, 2] - x[:, 0, 2], 0.5 * MASS * (v ** 2).sum(axis=(1, 2))]))

    def bond(b):    # its direction integrated out: ∫ exp(a cos) dcos = 2 sinh(a)/a
        a = FIELD * b / KT
        return b ** 2 * np.exp(-0.5 * BOND_K * (b - BOND) ** 2 / KT) * np.sinh(a) / a

    along = moment(bond, lambda b: b / np.tanh(FIELD * b / KT) - KT / FIELD, 0.1, 0.2)
    of_copies = np.mean(values, axis=0)    # copies are independent
    error = of_copies.std(axis=1, ddof=1) / np.sqrt(copies)
    z = (of_copies.mean(axis=1) - [along, 6 * KT]) / error
    print(f"{ {kind: round(s.acceptance, 3) for kind, s in mover.statistics.items()} } bond along the field {of_copies[0].mean():.4f} nm, expected "
          f"{along:.4f}; kinetic energy {of_copies[1].mean():.3f} kJ/mol, expected {6 * KT:.3f}; in standard errors {z.round(1)}")
    assert np.abs(z).max() < 4.5
    assert np.all(error < [0.2 * along, 0.02 * 6 * KT])


def test_velocities_of_others_are_kept_and_moved_ones_redrawn(model):
    system = chain_system(model, 2)
    for velocities, same in (("keep", [True, True]), ("redraw", [False, True])):
        integrator = openmm.CustomIntegrator(0.001)    # not known as leapfrog: velocities are taken as they are
        context = context_of(system, model.sample(2, seed=1)[0], integrator)
        before = np.random.default_rng(1).normal(size=(8, 3))
        context.setVelocities(before)
        mover = FlowMonteCarlo(model, system, [range(4)], temperature=TEMPERATURE, velocities=velocities)
        while not mover.step(context, 1):
            pass
        after = context.getState(velocities=True).getVelocities(asNumpy=True)._value
        assert [np.array_equal(after[a:a + 4], before[a:a + 4]) for a in (0, 4)] == same
        integrator = openmm.VerletIntegrator(0.001)
        context = context_of(system, model.sample(2, seed=1)[0], integrator)
        context.setVelocities(before)
        forces = context.getState(forces=True).getForces(asNumpy=True)._value
        mover = FlowMonteCarlo(model, system, [range(4)], temperature=TEMPERATURE, velocities="keep")
        while not mover.step(context, 1):
            pass
        state = context.getState(velocities=True, forces=True)
        at_positions = [v + 0.0005 * f / MASS for v, f in ((before, forces), (state.getVelocities(asNumpy=True)._value,
                                                                             state.getForces(asNumpy=True)._value))]
        np.testing.assert_allclose(at_positions[1], at_positions[0], atol=1e-12)


def test_nothing_moves_from_outside_of_the_support(model):
    system = chain_system(model)
    stretched = model.sample(1, seed=1)[0][0]
    stretched[3] += 3 * (stretched[3] - stretched[2])
    context = context_of(system, stretched)
    mover = FlowMonteCarlo(model, system, temperature=TEMPERATURE)
    assert mover.step(context, 20) == 0
    assert sum(s.outside for s in mover.statistics.values()) == 20
    np.testing.assert_array_equal(positions_of(context), stretched)


def test_rigid_water_around_the_molecule():
    """A molecule in a box with constrained neighbours: their velocities still obey the constraint after the moves."""
    model = FlowModel.from_bytes(model_file.pack(*random_flow(particles=4)))
    system = chain_system(model)
    for _ in range(2):
        system.addParticle(10.0)
    system.addConstraint(4, 5, 0.1)
    pair = openmm.CustomNonbondedForce("0.5*(0.3/r)^6")
    pair.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffPeriodic)
    pair.setCutoffDistance(0.9)
    for _ in range(6):
        pair.addParticle([])
    pair.createExclusionsFromBonds([(0, 1), (1, 2), (2, 3), (4, 5)], 3)
    system.addForce(pair)
    system.setDefaultPeriodicBoxVectors([2, 0, 0], [0, 2, 0], [0, 0, 2])
    positions = np.vstack([model.sample(1, seed=1)[0][0], [[0.5, 0.3, 0.4], [0.6, 0.3, 0.4]]])
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 5.0, 0.001)
    context = context_of(system, positions, integrator)
    context.setVelocitiesToTemperature(TEMPERATURE, 3)
    mover = FlowMonteCarlo(model, system, [range(4)])
    for _ in range(20):
        integrator.step(10)
        mover.step(context, 5)
        state = context.getState(positions=True, velocities=True)
        x, v = state.getPositions(asNumpy=True)._value, state.getVelocities(asNumpy=True)._value
        assert abs((x[5] - x[4]) @ (v[5] - v[4])) < 1e-4
    assert sum(s.accepted for s in mover.statistics.values()) > 5


def test_alanine_dipeptide_in_explicit_water():
    """Latent steps of the shipped model, which knows no explicit water, at fixed positions of rigid TIP3P, between steps of dynamics."""
    pdb = dataset.alanine_dipeptide()
    force_field = app.ForceField("amber99sbildn.xml", "tip3p.xml")
    solvated = app.Modeller(pdb.topology, pdb.positions)
    solvated.addSolvent(force_field, boxSize=openmm.Vec3(2.2, 2.2, 2.2) * unit.nanometer)
    system = force_field.createSystem(solvated.topology, nonbondedMethod=app.PME, nonbondedCutoff=0.9 * unit.nanometer, constraints=None)
    integrator = openmm.LangevinMiddleIntegrator(300, 5, 0.001)
    integrator.setRandomNumberSeed(1)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"), {"Threads": "1"})
    context.setPositions(solvated.positions)
    openmm.LocalEnergyMinimizer.minimize(context, 10, 50)
    context.setVelocitiesToTemperature(300, 1)
    integrator.step(300)
    mover = FlowMonteCarlo(FlowModel.load(shipped.MODEL), system, [range(22)], independence=0.1, latent_step=0.004)
    for _ in range(5):
        integrator.step(20)
        mover.step(context, 20)
    latent = mover.statistics["latent"]
    print(f"{system.getNumParticles()} particles: {latent.accepted} of {latent.attempted} latent steps accepted, {mover.statistics['independence']}")
    assert latent.outside == 0 and latent.acceptance > 0.3
    state = context.getState(positions=True, velocities=True, energy=True)
    x, v = state.getPositions(asNumpy=True)._value, state.getVelocities(asNumpy=True)._value
    for constraint in range(0, system.getNumConstraints(), 50):
        first, second, distance = system.getConstraintParameters(constraint)
        assert np.linalg.norm(x[first] - x[second]) == pytest.approx(distance._value, abs=1e-4)
        assert abs((x[first] - x[second]) @ (v[first] - v[second])) < 1e-3
    assert np.isfinite(state.getPotentialEnergy()._value)


def test_superposition_and_whole_molecules():
    random = np.random.default_rng(1)
    first, second = random.normal(size=(2, 7, 3))
    first, second = first - first.mean(axis=0), second - second.mean(axis=0)
    there, back = superposition(first, second), superposition(second, first)
    np.testing.assert_allclose(there @ back, np.eye(3), atol=1e-12)
    assert np.linalg.det(there) == pytest.approx(1)
    np.testing.assert_allclose(first @ there @ superposition(first @ there, first), first, atol=1e-12)
    best = np.sum((first @ there - second) ** 2)
    for _ in range(50):
        rotation, _ = np.linalg.qr(random.normal(size=(3, 3)))
        assert np.sum((first @ (rotation * np.linalg.det(rotation)) - second) ** 2) >= best
    box = np.array([[3.0, 0, 0], [0.5, 3.0, 0], [-0.4, 0.6, 3.0]])
    whole = np.cumsum(random.normal(scale=0.1, size=(6, 3)), axis=0)
    torn = whole + random.integers(-2, 3, (6, 3)) @ box
    again = make_whole(torn, [(0, 1), (1, 2), (2, 3), (2, 4), (4, 5)], box)
    np.testing.assert_allclose(again - again[0], whole - whole[0], atol=1e-12)


def test_bad_input(model):
    system = chain_system(model, 2)
    for arguments, message in (
            ({}, "say which are the molecules"), ({"molecules": [range(3)]}, "the model is of 4"), ({"molecules": [range(6, 10)]}, "does not have"),
            ({"molecules": [range(4), range(3, 7)]}, "shares particle 3"), ({"molecules": [range(4)], "independence": 2}, "from 0 to 1"),
            ({"molecules": [range(4)], "velocities": "drop"}, "redraw"), ({"molecules": [range(4)], "orientation": "any"}, "superposed"),
            ({"molecules": [range(4)], "temperature": -1}, "must be positive"), ({"molecules": [range(4)], "latent_step": -1}, "not be negative")):
        with pytest.raises(ValueError, match=message):
            FlowMonteCarlo(model, system, **arguments)
    system.addConstraint(0, 1, 0.15)
    with pytest.raises(ValueError, match="is constrained"):
        FlowMonteCarlo(model, system, [range(4)])
    system = chain_system(model, 2)
    system.setParticleMass(2, 0)
    with pytest.raises(ValueError, match="no mass"):
        FlowMonteCarlo(model, system, [range(4)])
    with pytest.raises(TypeError, match="temperature was given in"):
        FlowMonteCarlo(model, system, [range(4, 8)], temperature=3 * unit.nanometer)
    mover = FlowMonteCarlo(model, system, [range(4, 8)])
    with pytest.raises(ValueError, match="has no temperature"):
        mover.step(context_of(system, model.sample(2)[0]))
    with pytest.raises(ValueError, match="the mover was made for 8"):
        mover.temperature = 300
        mover.step(context_of(chain_system(model), model.sample(1)[0]))
