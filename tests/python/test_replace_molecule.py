# SPDX-License-Identifier: MIT
"""openmmflow.replaceMolecule: what is taken out of a System is exactly the molecule's own energy, and what is put in is the flow."""
import itertools

import numpy as np
import openmm
import pytest
from openmm import app, unit

import openmmflow
from conftest import MOLAR_GAS_CONSTANT
from openmmflow import FlowForce, FlowModel, dataset, model_file, replaceMolecule, shipped
from random_flow import MASS, conformations, random_flow

MOLECULE = [7, 3, 4, 5, 8, 9]    # particles of the System in the order of the model
OTHERS = [0, 1, 2, 6, 10]
COUNT = 11
BOX = 4.0


def energy(system, positions, groups=-1):
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    return context.getState(energy=True, groups=groups).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)


def flow_of(system):
    return FlowForce.cast(system.getForces()[-1])


def without_flow(system):
    """A copy of the result of replaceMolecule without its FlowForce."""
    copy = openmm.XmlSerializer.clone(system)
    assert FlowForce.isinstance(copy.getForce(copy.getNumForces() - 1))
    copy.removeForce(copy.getNumForces() - 1)
    return copy


def everything(kept, *, method=openmm.NonbondedForce.NoCutoff, pairs=True):
    """A System of 11 particles with every kind of force between particles that replaceMolecule knows.

    Terms on listed particles are there if ``kept`` says so of their particles; what acts between pairs is cut down by exceptions, which
    are those of the terms of pairs that ``kept`` refuses.
    """
    random = np.random.default_rng(4)
    system = openmm.System()
    for _ in range(COUNT):
        system.addParticle(MASS)
    system.setDefaultPeriodicBoxVectors(*(np.eye(3) * BOX))

    def terms(size, count=25):
        for _ in range(count):
            particles = [int(p) for p in random.permutation(MOLECULE if random.random() < 0.5 else COUNT)[:size]]
            numbers = random.uniform(0.5, 2.0, 6)
            if kept(particles):
                yield particles, numbers

    forces = {name: getattr(openmm, name)() for name in (
        "HarmonicBondForce", "HarmonicAngleForce", "PeriodicTorsionForce", "RBTorsionForce", "CMAPTorsionForce", "NonbondedForce")}
    for particles, n in terms(2):
        forces["HarmonicBondForce"].addBond(*particles, 0.1 * n[0], 100 * n[1])
    for particles, n in terms(3):
        forces["HarmonicAngleForce"].addAngle(*particles, n[0], 10 * n[1])
    for particles, n in terms(4):
        forces["PeriodicTorsionForce"].addTorsion(*particles, 2, n[0], n[1])
    for particles, n in terms(4):
        forces["RBTorsionForce"].addTorsion(*particles, *n)
    forces["CMAPTorsionForce"].addMap(4, random.normal(size=16))
    for particles, _ in terms(5):
        forces["CMAPTorsionForce"].addTorsion(0, *particles[:4], *particles[1:])

    custom = {"bond": openmm.CustomBondForce("k*r^3"), "angle": openmm.CustomAngleForce("k*theta^2"),
              "torsion": openmm.CustomTorsionForce("k*cos(theta-1)"),
              "compound": openmm.CustomCompoundBondForce(3, "k*distance(p1,p2)*angle(p1,p2,p3)"),
              "centroid": openmm.CustomCentroidBondForce(2, "k*distance(g1,g2)")}
    for name, add in (("bond", "addPerBondParameter"), ("angle", "addPerAngleParameter"), ("torsion", "addPerTorsionParameter"),
                      ("compound", "addPerBondParameter"), ("centroid", "addPerBondParameter")):
        getattr(custom[name], add)("k")
    for name, size, add in (("bond", 2, "addBond"), ("angle", 3, "addAngle"), ("torsion", 4, "addTorsion")):
        for particles, n in terms(size):
            getattr(custom[name], add)(*particles, [n[0]])
    for particles, n in terms(3):
        custom["compound"].addBond(particles, [n[0]])
    for particles, n in terms(4):
        groups = [custom["centroid"].addGroup(particles[:2]), custom["centroid"].addGroup(particles[2:])]
        custom["centroid"].addBond(groups, [n[0]])

    nonbonded = forces["NonbondedForce"]
    nonbonded.setNonbondedMethod(method)
    nonbonded.setCutoffDistance(1.9)
    nonbonded.setUseDispersionCorrection(False)
    custom_nonbonded = openmm.CustomNonbondedForce("a1*a2*exp(-r)")
    custom_nonbonded.addPerParticleParameter("a")
    if method != openmm.NonbondedForce.NoCutoff:
        custom_nonbonded.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffPeriodic)
        custom_nonbonded.setCutoffDistance(1.9)
    hydrogen_bonds = openmm.CustomHbondForce("k*distance(d1,a1)*angle(d1,d2,a1)")
    hydrogen_bonds.addGlobalParameter("k", 0.7)
    external = openmm.CustomExternalForce("x*y")
    gay_berne = openmm.GayBerneForce()
    for index in range(COUNT):
        nonbonded.addParticle(random.normal(), random.uniform(0.1, 0.2), random.uniform(0.1, 0.6))
        custom_nonbonded.addParticle([random.uniform(0.5, 2)])
        external.addParticle(index, [])
        gay_berne.addParticle(0.01, random.uniform(0.1, 0.6), -1, -1, *3 * [random.uniform(0.01, 0.02)], 1, 1, 1)
        hydrogen_bonds.addDonor(index, (index + 1) % COUNT, -1)
        hydrogen_bonds.addAcceptor((index + 4) % COUNT, -1, -1)
    nonbonded.addGlobalParameter("swell", 1.5)
    for first, second in itertools.combinations(range(COUNT), 2):
        special = random.random() < 0.3
        numbers = random.uniform(0.1, 0.4, 3)
        if not kept([first, second]) and not pairs:
            nonbonded.addException(first, second, 0, 1, 0)
            custom_nonbonded.addExclusion(first, second)
            gay_berne.addException(first, second, 1, 0)
        elif special:
            exception = nonbonded.addException(second, first, *numbers)
            if numbers[0] < 0.25:
                nonbonded.addExceptionParameterOffset("swell", exception, *numbers)
            custom_nonbonded.addExclusion(second, first)
    for donor, acceptor in itertools.product(range(COUNT), repeat=2):
        particles = {donor, (donor + 1) % COUNT, (acceptor + 4) % COUNT}
        if len(particles) < 3 or not kept(list(particles)) and not pairs:
            hydrogen_bonds.addExclusion(donor, acceptor)
    for force in (*forces.values(), *custom.values(), custom_nonbonded, gay_berne, hydrogen_bonds, external):
        system.addForce(force)
    return system


def internal(particles):
    return set(particles) <= set(MOLECULE)


@pytest.fixture(scope="module")
def conformation(small_positions):
    positions = np.random.default_rng(2).uniform(0, 1.2, (COUNT, 3))
    positions[MOLECULE] = small_positions[0] - small_positions[0].mean(axis=0) + 0.6
    return positions


@pytest.mark.parametrize("method", ["NoCutoff", "CutoffNonPeriodic", "CutoffPeriodic", "Ewald", "PME", "LJPME"])
def test_what_stays_is_what_is_not_internal(method, small_model, conformation):
    """A System made without the molecule's own terms has the energy of one from which they were taken out."""
    method = getattr(openmm.NonbondedForce, method)
    full = everything(lambda particles: True, method=method)
    before = openmm.XmlSerializer.serialize(full)
    with pytest.warns(UserWarning):    # its bonds are at random: not those of the model, and also to other particles
        mixed = replaceMolecule(full, MOLECULE, small_model)
    assert openmm.XmlSerializer.serialize(full) == before
    expected = energy(everything(lambda particles: not internal(particles), method=method, pairs=False), conformation)
    error = abs(energy(without_flow(mixed), conformation) - expected)
    print(f"\nrest of the System: {error:.1e} of {expected:.1f} kJ/mol; in all {energy(full, conformation):.1f}")
    assert error <= 1e-9 * abs(expected)
    assert abs(energy(full, conformation) - expected) > 10


def test_energy_by_hand(small_model, conformation):
    """E_mixed = E_full - E_internal + U_flow, E_internal written down here."""
    random = np.random.default_rng(1)
    system = openmm.System()
    bonds, angles, torsions = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce(), openmm.PeriodicTorsionForce()
    nonbonded = openmm.NonbondedForce()
    charges, sigmas, depths = random.normal(size=COUNT), random.uniform(0.1, 0.2, COUNT), random.uniform(0.1, 0.5, COUNT)
    for q, sigma, depth in zip(charges, sigmas, depths):
        system.addParticle(MASS)
        nonbonded.addParticle(q, sigma, depth)
    x = conformation
    inside = 0.0
    pairs = {frozenset(pair): (charges[pair[0]] * charges[pair[1]], sigmas[list(pair)].mean(), np.sqrt(depths[list(pair)].prod()))
             for pair in itertools.combinations(MOLECULE, 2)}
    for i, j in zip(MOLECULE, MOLECULE[1:]):
        bonds.addBond(i, j, 0.14, 2e5)
        inside += 0.5 * 2e5 * (np.linalg.norm(x[i] - x[j]) - 0.14) ** 2
        nonbonded.addException(i, j, 0, 1, 0)
        del pairs[frozenset((i, j))]
    for i, j, k in zip(MOLECULE, MOLECULE[1:], MOLECULE[2:]):
        angles.addAngle(i, j, k, 1.9, 300.0)
        a, b = x[i] - x[j], x[k] - x[j]
        inside += 0.5 * 300 * (np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) - 1.9) ** 2
        nonbonded.addException(i, k, 0.3, 0.15, 0.2)
        pairs[frozenset((i, k))] = (0.3, 0.15, 0.2)
    for i, j, k, l in zip(MOLECULE, MOLECULE[1:], MOLECULE[2:], MOLECULE[3:]):
        torsions.addTorsion(i, j, k, l, 3, 0.4, 5.0)
        axis = x[k] - x[j]
        first, second = np.cross(x[i] - x[j], axis), np.cross(x[l] - x[k], axis)
        cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
        sign = np.sign(np.cross(first, second) @ axis)
        # IUPAC: looking along the axis, clockwise is positive.
        inside += 5.0 * (1 + np.cos(3 * sign * np.arccos(cosine) - 0.4))
    for pair, (q, sigma, depth) in pairs.items():
        i, j = pair
        r = np.linalg.norm(x[i] - x[j])
        inside += 138.93545764438198 * q / r + 4 * depth * ((sigma / r) ** 12 - (sigma / r) ** 6)
    bonds.addBond(OTHERS[0], OTHERS[1], 0.2, 500.0)
    for force in (bonds, angles, torsions, nonbonded):
        system.addForce(force)

    mixed = replaceMolecule(system, MOLECULE, small_model)
    flow = -MOLAR_GAS_CONSTANT * small_model.temperature * small_model.log_prob(x[MOLECULE])
    expected = energy(system, x) - inside + flow
    error = abs(energy(mixed, x) - expected)
    print(f"\nE_full {energy(system, x):.3f}, E_internal {inside:.3f}, U_flow {flow:.3f}: E_mixed is off by {error:.1e} kJ/mol")
    assert error <= 1e-8 * max(abs(inside), abs(expected))


def chain_system(constraints=()):
    """Eleven particles; harmonic bonds and constraints along the chain MOLECULE."""
    system = openmm.System()
    bonds = openmm.HarmonicBondForce()
    for _ in range(COUNT):
        system.addParticle(MASS)
    for i, j in zip(MOLECULE, MOLECULE[1:]):
        bonds.addBond(i, j, 0.15, 2e5)
    for i, j, distance in constraints:
        system.addConstraint(i, j, distance)
    system.addForce(bonds)
    return system


def constraints_of(system):
    parameters = (system.getConstraintParameters(index) for index in range(system.getNumConstraints()))
    return {(frozenset((i, j)), round(d.value_in_unit(unit.nanometer), 9)) for i, j, d in parameters}


def test_constraints_become_those_of_the_model(small_model):
    others = (OTHERS[0], OTHERS[1], 0.3)
    system = chain_system([others, (MOLECULE[1], MOLECULE[0], 0.149), (MOLECULE[2], MOLECULE[3], 0.15)])
    free = replaceMolecule(system, MOLECULE, small_model)
    assert constraints_of(free) == {(frozenset(others[:2]), 0.3)}
    constrained = FlowModel.from_bytes(model_file.pack(*random_flow(constraints=[[0, 1, 0.15], [4, 5, 0.151]])))
    result = replaceMolecule(system, MOLECULE, constrained)
    assert constraints_of(result) == {(frozenset(others[:2]), 0.3), (frozenset(MOLECULE[:2]), 0.15), (frozenset(MOLECULE[4:]), 0.151)}
    openmm.Context(result, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    assert constraints_of(system) == {(frozenset((i, j)), d) for i, j, d in [
        others, (MOLECULE[1], MOLECULE[0], 0.149), (MOLECULE[2], MOLECULE[3], 0.15)]}


def test_several_molecules_interact(small_model, small_positions):
    """Two molecules: their own energies are replaced, what acts between them stays."""
    system = openmm.System()
    nonbonded = openmm.NonbondedForce()
    for index in range(12):
        system.addParticle(MASS)
        nonbonded.addParticle(0.3 * (-1) ** index, 0.1, 0.2)
    system.addForce(nonbonded)
    x = np.concatenate([small_positions[0] - small_positions[0].mean(axis=0), small_positions[1] - small_positions[1].mean(axis=0) + 0.8])
    mixed = replaceMolecule(system, range(12), small_model)
    assert flow_of(mixed).getNumMolecules() == 2
    expected = 0.0
    for i, j in itertools.product(range(6), range(6, 12)):
        r = np.linalg.norm(x[i] - x[j])
        expected += 138.93545764438198 * 0.09 * (-1) ** (i + j) / r + 0.8 * ((0.1 / r) ** 12 - (0.1 / r) ** 6)
    assert abs(energy(without_flow(mixed), x) - expected) <= 1e-9


def spoil(change):
    def make():
        system = chain_system()
        change(system)
        return system
    return make


def virtual(particle, *parents):
    return lambda system: system.setVirtualSite(particle, openmm.TwoParticleAverageSite(*parents, 0.5, 0.5)) or system.setParticleMass(particle, 0)


@pytest.mark.parametrize("make, arguments, message", [
    (chain_system, {"atoms": MOLECULE[:5]}, "molecule of 6 particles, but 5 atoms"),
    (chain_system, {"atoms": []}, "but 0 atoms"),
    (chain_system, {"atoms": [*MOLECULE[:5], 11]}, "no particle 11: the System has 11"),
    (chain_system, {"atoms": [*MOLECULE[:5], MOLECULE[0]]}, "particle 7 is given twice"),
    (chain_system, {"keep": ["NoSuchForce"]}, "keep names no Force of the System: NoSuchForce; its Forces are HarmonicBondForce"),
    (spoil(lambda s: s.addConstraint(MOLECULE[0], OTHERS[0], 0.1)), {}, "particles 7 and 0 are constrained, but only one"),
    (spoil(virtual(MOLECULE[2], MOLECULE[0], MOLECULE[1])), {}, "particle 4 is a virtual site of the molecule"),
    (spoil(virtual(OTHERS[0], MOLECULE[0], MOLECULE[1])), {}, "particle 0 is a virtual site of the molecule"),
    (spoil(lambda s: s.addForce(openmm.CustomManyParticleForce(3, "1"))), {}, "CustomManyParticleForce .*keep="),
    (spoil(lambda s: s.addForce(openmm.AmoebaMultipoleForce())), {}, "AmoebaMultipoleForce"),
    (spoil(lambda s: s.addForce(openmm.GBSAOBCForce())), {"environment": "implicit solvent"}, "trained in implicit solvent"),
    (spoil(lambda s: s.addForce(openmm.CustomGBForce())), {"environment": "who knows"}, 'give environment="vacuum"'),
])
def test_what_cannot_be_done_raises(make, arguments, message, small_model):
    with pytest.raises(ValueError, match=message):
        replaceMolecule(make(), **{"atoms": MOLECULE, "model": small_model, **arguments})


def test_a_molecule_is_replaced_once(small_model):
    with pytest.raises(ValueError, match="belongs to a molecule of a FlowForce"):
        replaceMolecule(replaceMolecule(chain_system(), MOLECULE, small_model), MOLECULE, small_model)


def test_kept_forces_stay(small_model, conformation):
    system = chain_system()
    system.addForce(openmm.CustomManyParticleForce(3, "1"))
    for _ in range(COUNT):
        system.getForce(1).addParticle([], 0)
    mixed = replaceMolecule(system, MOLECULE, small_model, keep=["CustomManyParticleForce"])
    assert energy(without_flow(mixed), conformation) == 165    # triples


def test_bonds_and_order_warn(small_model):
    with pytest.warns(UserWarning, match="order in which the model was trained"):
        replaceMolecule(chain_system(), MOLECULE[::2] + MOLECULE[1::2], small_model)
    system = chain_system()
    system.getForce(0).addBond(MOLECULE[-1], OTHERS[0], 0.1, 1.0)
    with pytest.warns(UserWarning, match="particles 9 and 0 are bonded, but only one"):
        mixed = replaceMolecule(system, MOLECULE, small_model)
    assert mixed.getForce(0).getNumBonds() == 1


# Alanine dipeptide, whose model was trained in implicit solvent

@pytest.fixture(scope="module")
def shipped_model():
    return FlowModel.load(shipped.MODEL)


def test_implicit_solvent(shipped_model):
    """Trained in it: it goes, if the molecule is alone. Trained in vacuum: it stays, with the molecule's part of it."""
    pdb = dataset.alanine_dipeptide()
    field = app.ForceField("amber99sbildn.xml", "amber99_obc.xml")
    system = field.createSystem(pdb.topology)
    positions = pdb.getPositions(asNumpy=True)
    in_solvent = replaceMolecule(system, range(22), shipped_model)
    flow = -MOLAR_GAS_CONSTANT * 300 * shipped_model.log_prob(positions)
    assert abs(energy(in_solvent, positions) - flow) <= 1e-9 * abs(flow)
    vacuum = replaceMolecule(system, range(22), shipped_model, environment="vacuum")
    solvation = next(force for force in system.getForces() if isinstance(force, openmm.GBSAOBCForce))
    solvation.setForceGroup(5)
    assert abs(energy(vacuum, positions) - flow - energy(system, positions, groups={5})) <= 1e-9 * abs(flow)


@pytest.fixture(scope="module")
def solvated():
    """Alanine dipeptide in a box of water: (topology, positions, System, System of the molecule alone in vacuum)."""
    pdb = dataset.alanine_dipeptide()
    field = app.ForceField("amber14/protein.ff14SB.xml", "amber14/tip3p.xml")
    modeller = app.Modeller(pdb.topology, pdb.positions)
    modeller.addSolvent(field, boxSize=openmm.Vec3(2.6, 2.6, 2.6) * unit.nanometer)
    system = field.createSystem(modeller.topology, nonbondedMethod=app.PME, nonbondedCutoff=1.25 * unit.nanometer, constraints=app.HBonds)
    return modeller.topology, modeller.positions, system, field.createSystem(pdb.topology)


def test_solvated_molecule(solvated, shipped_model):
    """In PME, what is taken out is the energy of the molecule in vacuum."""
    _, positions, system, alone = solvated
    with pytest.warns(UserWarning, match="implicit solvent, and here it is among other particles"):
        mixed = replaceMolecule(system, range(22), shipped_model)
    assert flow_of(mixed).usesPeriodicBoundaryConditions()
    assert mixed.getNumConstraints() == system.getNumConstraints() - 12    # bonds with hydrogen of the molecule
    x = positions.value_in_unit(unit.nanometer)
    removed = energy(system, x) - energy(without_flow(mixed), x)
    bonds = next(force for force in alone.getForces() if isinstance(force, openmm.HarmonicBondForce))
    constrained = 0.0    # constrained bonds have no energy in `system`
    kept = {frozenset(system.getConstraintParameters(i)[:2]) for i in range(system.getNumConstraints())}
    for i, j, length, stiffness in map(bonds.getBondParameters, range(bonds.getNumBonds())):
        if frozenset((i, j)) in kept:
            distance = np.linalg.norm(np.subtract(x[i], x[j]))
            constrained += 0.5 * stiffness._value * (distance - length._value) ** 2
    expected = energy(alone, x[:22]) - constrained
    print(f"\ntaken out of {system.getNumParticles()} particles: {removed:.6f} kJ/mol; in vacuum {expected:.6f}")
    assert abs(removed - expected) <= 1e-4


def test_solvated_dynamics(solvated, shipped_model):
    topology, positions, system, _ = solvated
    with pytest.warns(UserWarning, match="would count twice"):
        mixed = replaceMolecule(system, range(22), shipped_model)
    integrator = openmm.LangevinMiddleIntegrator(300, 5.0, 0.001)
    integrator.setRandomNumberSeed(3)
    simulation = app.Simulation(topology, mixed, integrator, openmm.Platform.getPlatformByName("CPU"))
    simulation.context.setPositions(positions)
    simulation.minimizeEnergy(maxIterations=50)
    simulation.context.setVelocitiesToTemperature(300, 1)
    simulation.step(300)
    state = simulation.context.getState(energy=True, positions=True)
    flow = flow_of(mixed)
    log_prob, = flow.getLogProbs(simulation.context)
    degrees = 3 * system.getNumParticles() - mixed.getNumConstraints()
    kinetic = state.getKineticEnergy().value_in_unit(unit.kilojoule_per_mole)
    temperature = 2 * kinetic / degrees / MOLAR_GAS_CONSTANT
    print(f"\n{system.getNumParticles()} particles, 300 steps: {temperature:.0f} K, ln p of the molecule {log_prob:.1f}, "
          f"{flow.getNumSupportExits(simulation.context)} support exits")
    assert 250 < temperature < 350
    assert log_prob > 100
