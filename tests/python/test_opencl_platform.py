# SPDX-License-Identifier: MIT
"""FlowForce on the OpenCL platform in each precision against Reference: the kernel that CUDA and HIP run, too.

On a machine with a GPU, tools/gpu.sh runs these tests on the platform in OPENMMFLOW_TEST_PLATFORM; without one test_emulated_cuda.py runs them
on CUDA.
"""
import os
import subprocess
import sys

import numpy as np
import openmm
import pytest
from openmm import unit
from random_architecture import CLOSED_FORMS, HEADS, TRANSFORMERS, RandomArchitecture
from random_flow import conformations

import openmmflow
from openmmflow import FlowForce, FlowModel, model_file, shipped
from openmmflow.benchmark import accuracy, models

PLATFORM = os.environ.get("OPENMMFLOW_TEST_PLATFORM", "OpenCL")
LIMITS = {"single": 1e-4, "mixed": 2e-5, "double": 1e-9}
"""Of the force error, as a fraction of the root mean square force."""
TILE = 16
"""Molecules that a work-group evaluates together when there are many, on a processor."""
SHAPES = ["1,256", "4,256", "8,256", "16,256", "32,256"]
"""Of the kernel, which a GPU with many multiprocessors chooses for hundreds and thousands of molecules only."""

ALL_GROUPS = 0xffffffff


def _platform():
    try:
        platform = openmm.Platform.getPlatform(PLATFORM)
        system = openmm.System()
        for _ in range(2):
            system.addParticle(1)
        openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    except openmm.OpenMMException as error:
        return str(error)
    return openmmflow.why_not_supported(PLATFORM)


unavailable = _platform()
if unavailable and "OPENMMFLOW_TEST_PLATFORM" in os.environ:
    raise RuntimeError(f"{PLATFORM} is to be tested: {unavailable}")
pytestmark = pytest.mark.skipif(bool(unavailable), reason=f"no {PLATFORM}: {unavailable}")


class Sides:
    """The same System on OpenCL and on Reference."""

    def __init__(self, system, precision, groups=ALL_GROUPS):
        """groups: those of the forces that are evaluated, as bits of a number."""
        self.groups, self.contexts = groups, []
        for name, properties in ((PLATFORM, {"Precision": precision}), ("Reference", {})):
            integrator = openmm.VerletIntegrator(0.001)
            integrator.setIntegrationForceGroups(groups)
            self.contexts.append(openmm.Context(system, integrator, openmm.Platform.getPlatform(name), properties))

    def __call__(self, positions, **parameters):
        """Energies (2,), forces (2, particles, 3) and derivatives with respect to FlowScale (2,) of both, OpenCL first."""
        results = []
        for context in self.contexts:
            context.setPositions(np.asarray(positions).reshape(-1, 3))
            for name, value in parameters.items():
                context.setParameter(name, value)
            state = context.getState(energy=True, forces=True, parameterDerivatives=True, groups=self.groups)
            results.append((state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value,
                            dict(state.getEnergyParameterDerivatives()).get("FlowScale", 0.0)))
        return tuple(np.array(values) for values in zip(*results))


def molecules_system(force, particles, count=1):
    system = openmm.System()
    for _ in range(particles * count):
        system.addParticle(12)
    if count > 1:
        for first in range(0, particles * count, particles):
            force.addMolecule(range(first, first + particles))
    system.addForce(force)
    return system


def relative_error(forces):
    return np.sqrt(np.mean((forces[0] - forces[1])**2) / np.mean(forces[1]**2))


def compare(model, frames, precision):
    """Force error over frames, as a fraction of the root mean square force, and the greatest error of the energy in k_BT."""
    sides = Sides(molecules_system(FlowForce(model), model.num_particles), precision)
    # What single precision can hold: the question is how it computes.
    frames = np.asarray(frames, np.float32).astype(float)
    energies, forces, _ = (np.array(values) for values in zip(*map(sides, frames)))
    thermal_energy = (unit.MOLAR_GAS_CONSTANT_R * model.temperature * unit.kelvin).value_in_unit(unit.kilojoule_per_mole)
    return relative_error(forces.swapaxes(0, 1)), np.abs(energies[:, 0] - energies[:, 1]).max() / thermal_energy


@pytest.fixture(scope="module")
def frames():
    """Conformations (20, 22, 3) of alanine dipeptide at 300 K, nm."""
    return models.conformations(20, stride=100)


@pytest.mark.parametrize("precision", LIMITS)
def test_force_error_of_the_shipped_model(frames, precision):
    model = FlowModel.load(shipped.MODEL)
    for what, positions in (("MD frames", frames), ("frames near the edges", accuracy.near_edges(model, frames))):
        force_error, energy_error = compare(model, positions, precision)
        print(f"\n{precision}, {what}: force error {force_error:.1e} of the RMS force, energy error {energy_error:.1e} k_BT")
        assert force_error <= LIMITS[precision]


@pytest.mark.parametrize("precision", LIMITS)
def test_force_error_of_the_published_flow(published_model, frames, precision):
    force_error, energy_error = compare(published_model, frames, precision)
    print(f"\n{precision}, published flow: force error {force_error:.1e} of the RMS force, energy error {energy_error:.1e} k_BT")
    assert force_error <= LIMITS[precision]


@pytest.mark.parametrize("closed_form", CLOSED_FORMS)
@pytest.mark.parametrize("head", HEADS)
def test_random_architectures(head, closed_form):
    """Roots are found on the device where the closed form is that of the sampling direction."""
    for seed in range(5):
        draw = RandomArchitecture(seed)
        draw.add_marginals()
        for _ in range(3):
            draw.add_coupling(head=head, closed_form=closed_form)
        model = FlowModel.from_bytes(model_file.pack(*draw.model()))
        sides = Sides(molecules_system(FlowForce(model), model.num_particles), "double")
        for positions in draw.positions[:3]:
            energies, forces, _ = sides(positions)
            assert energies[0] == pytest.approx(energies[1], rel=1e-10, abs=1e-7)
            assert relative_error(forces) < 1e-8


@pytest.mark.parametrize("closed_form", CLOSED_FORMS)
@pytest.mark.parametrize("transformer", TRANSFORMERS)
def test_transformers(transformer, closed_form):
    for seed in range(3):
        draw = RandomArchitecture(seed)
        if transformer != "affine":    # which is of what no marginal maps to an interval
            draw.add_marginals()
        for _ in range(2):
            draw.add_coupling(transformer, closed_form=closed_form)
        model = FlowModel.from_bytes(model_file.pack(*draw.model()))
        sides = Sides(molecules_system(FlowForce(model), model.num_particles), "double")
        for positions in draw.positions[:3]:
            energies, forces, _ = sides(positions)
            assert energies[0] == pytest.approx(energies[1], rel=1e-10, abs=1e-7)
            assert relative_error(forces) < 1e-8


@pytest.mark.parametrize("kind", ("permutation", "affineNormalization", "circularShift", "logit", "logistic"))
def test_elementwise_layers(kind):
    """Each kind between couplings of what it leaves behind."""
    for seed in range(3):
        draw = RandomArchitecture(seed)
        if kind in ("permutation", "circularShift", "logit"):
            draw.add_marginals()
        draw.add_coupling()
        draw.add_elementwise(kind)
        draw.add_coupling()
        model = FlowModel.from_bytes(model_file.pack(*draw.model()))
        assert kind in [layer["type"] for layer in model.architecture["layers"]]
        sides = Sides(molecules_system(FlowForce(model), model.num_particles), "double")
        for positions in draw.positions[:3]:
            energies, forces, _ = sides(positions)
            assert energies[0] == pytest.approx(energies[1], rel=1e-10, abs=1e-7)
            assert relative_error(forces) < 1e-8


def mixed_model(seed, particles, block, measure="cartesian"):
    """A model with a block in Cartesians, and conformations (6, particles, 3) in its support."""
    draw = RandomArchitecture(seed, particles, measure=measure, block=block)
    draw.add_marginals()
    for _ in range(2):
        draw.add_coupling()
    return FlowModel.from_bytes(model_file.pack(*draw.model())), draw.positions


@pytest.mark.parametrize("precision", LIMITS)
@pytest.mark.parametrize("measure", ["cartesian", "frame"])
@pytest.mark.parametrize("particles, block", [(3, 3), (7, 3), (10, 5), (6, 6)])
def test_mixed_coordinates(particles, block, measure, precision):
    """Aligned in measure "cartesian"; in the other one it matters where the molecule is."""
    errors = []
    for seed in range(2):
        model, positions = mixed_model(seed, particles, block, measure)
        errors.append(compare(model, positions[:3], precision)[0])
    print(f"\n{precision}, measure {measure!r}, block of {block} of {particles}: force error {max(errors):.1e} of the RMS force")
    assert max(errors) <= LIMITS[precision]


@pytest.mark.parametrize("count", [3, TILE + 5])
def test_mixed_coordinates_far_outside_of_the_support(count):
    """Many molecules whose blocks are anything, up to where their alignment means nothing; lambda and its derivative."""
    model, positions = mixed_model(1, 8, 4)
    force = FlowForce(model)
    force.addEnergyParameterDerivative("FlowScale")
    sides = Sides(molecules_system(force, model.num_particles, count), "double")
    random = np.random.default_rng(0)
    for deviation in (0.005, 0.05, 0.2):
        moved = positions[random.integers(len(positions), size=count)] + deviation * random.normal(size=(count, model.num_particles, 3))
        moved[0, :] = random.normal(size=(model.num_particles, 3))
        # The block nearly on a line.
        moved[1] *= (1, 1e-3, 1e-3)
        for scale in (1.0, 0.3, 0.0):
            energies, forces, derivatives = sides(moved, FlowScale=scale)
            assert energies[0] == pytest.approx(energies[1], rel=1e-10, abs=1e-7)
            assert derivatives[0] == pytest.approx(derivatives[1], rel=1e-10, abs=1e-7)
            assert np.abs(forces[0] - forces[1]).max() <= 1e-9 * np.abs(forces[1]).max() + 1e-7


def test_far_outside_of_the_support(small_model, small_positions):
    """The continuation, up to where the flow plays no part; the walls alone at lambda = 0."""
    force = FlowForce(small_model)
    force.addEnergyParameterDerivative("FlowScale")
    sides = Sides(molecules_system(force, small_model.num_particles), "double")
    random = np.random.default_rng(0)
    for deviation in (0.005, 0.02, 0.05, 0.2):
        for positions in small_positions[:3]:
            moved = positions + deviation * random.normal(size=positions.shape)
            for scale in (1.0, 0.3, 0.0):
                energies, forces, derivatives = sides(moved, FlowScale=scale)
                assert energies[0] == pytest.approx(energies[1], rel=1e-10, abs=1e-7)
                assert derivatives[0] == pytest.approx(derivatives[1], rel=1e-10, abs=1e-7)
                assert np.abs(forces[0] - forces[1]).max() <= 1e-9 * np.abs(forces[1]).max() + 1e-7


@pytest.mark.parametrize("precision", LIMITS)
@pytest.mark.parametrize("count", [3, TILE, 2 * TILE + 5])
def test_many_molecules(small_model, count, precision):
    """One molecule at a time, and tiles of which the last is not full; shuffled particles."""
    particles = small_model.num_particles
    random = np.random.default_rng(1)
    force = FlowForce(small_model)
    order = random.permutation(particles * count + 2)
    system = openmm.System()
    for _ in order:
        system.addParticle(12)
    for m in range(count):
        force.addMolecule(order[m * particles:(m + 1) * particles])
    system.addForce(force)
    positions = np.zeros((len(order), 3))
    positions[order[:particles * count]] = conformations(2, count).reshape(-1, 3).astype(np.float32)
    sides = Sides(system, precision)
    energies, forces, _ = sides(positions)
    tolerance = {"single": 1e-4, "mixed": 2e-5, "double": 1e-9}[precision]
    assert relative_error(forces) <= tolerance
    assert abs(energies[0] - energies[1]) <= tolerance * count * 10
    again = sides(positions)
    assert np.array_equal(again[1][0], forces[0]) and again[0][0] == energies[0]


@pytest.mark.parametrize("precision", LIMITS)
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(small_flow, shape, precision, monkeypatch):
    """Tiles of every size, of which the last is not full, and more tiles than groups on a processor."""
    model, count = FlowModel.from_bytes(model_file.pack(*small_flow)), 77
    positions = conformations(2, count).astype(np.float32).astype(float)
    positions[0] *= 1.2
    monkeypatch.setenv("OPENMMFLOW_KERNEL_SHAPE", shape)
    energies, forces, _ = Sides(molecules_system(FlowForce(model), model.num_particles, count), precision)(positions)
    assert relative_error(forces) <= LIMITS[precision]
    assert abs(energies[0] - energies[1]) <= LIMITS[precision] * count * 10


def test_shapes_are_checked(small_model, monkeypatch):
    system = molecules_system(FlowForce(small_model), small_model.num_particles)
    # The last two: 48 work-items are not whole warps, which clusters need; 64 bytes hold nothing.
    for shape in ("3,64", "1", "1,0", "1,64,", "1;64", "1,1000000", "1,64,48000,", "1,64,48000,3", "4,64,48000,2", "1,48,48000,2", "1,64,64,2"):
        monkeypatch.setenv("OPENMMFLOW_KERNEL_SHAPE", shape)
        with pytest.raises(openmm.OpenMMException, match="OPENMMFLOW_KERNEL_SHAPE"):
            openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform(PLATFORM))


@pytest.mark.parametrize("groups", [pytest.param(ALL_GROUPS, id="all-forces"), pytest.param(1, id="FlowForce-alone")])
def test_periodic_images_and_reordered_atoms(small_model, groups):
    """Molecules cut by the walls of a box, in a System whose atoms OpenMM sorts because a cutoff force is present, evaluated or not."""
    count, particles = 40, small_model.num_particles
    force = FlowForce(small_model)
    force.setUsesPeriodicBoundaryConditions(True)
    system = molecules_system(force, particles, count)
    box = np.array([[3.0, 0, 0], [0.6, 2.9, 0], [-0.7, 0.5, 3.1]])
    system.setDefaultPeriodicBoxVectors(*box)
    lennard_jones = openmm.CustomNonbondedForce("0.001*(0.2/r)^6")
    for _ in range(system.getNumParticles()):
        lennard_jones.addParticle()
    lennard_jones.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffPeriodic)
    lennard_jones.setCutoffDistance(0.9)
    lennard_jones.setForceGroup(1)
    system.addForce(lennard_jones)
    random = np.random.default_rng(3)
    positions = conformations(4, count) + random.uniform(0, 3, (count, 1, 3))
    positions += random.integers(-1, 2, positions.shape) @ box
    sides = Sides(system, "double", groups)
    energies, forces, _ = sides(positions)
    assert relative_error(forces) < 1e-8
    # Dynamics until atoms have been sorted; from then on both are compared where OpenCL is.
    context = sides.contexts[0]
    # (By hand: setVelocitiesToTemperature evaluates all forces.)
    context.setVelocities(random.normal(scale=0.4, size=(count * particles, 3)))
    context.getIntegrator().step(300)
    state = context.getState(positions=True)
    energies, forces, _ = sides(state.getPositions(asNumpy=True)._value)
    assert energies[0] == pytest.approx(energies[1], rel=1e-9)
    assert relative_error(forces) < 1e-8


def test_update_parameters_and_support_exits(small_flow, small_positions):
    architecture, tensors = small_flow
    model = FlowModel.from_bytes(model_file.pack(architecture, tensors))
    scaled = {name: 0.5 * values if ".networks." in name else values for name, values in tensors.items()}
    force = FlowForce(model)
    system = molecules_system(force, model.num_particles)
    force = FlowForce.cast(system.getForce(0)) if hasattr(FlowForce, "cast") else system.getForce(0)
    sides = Sides(system, "double")
    before = sides(small_positions[0])
    force.setModel(FlowModel.from_bytes(model_file.pack(architecture, scaled)))
    for context in sides.contexts:
        force.updateParametersInContext(context)
    after = sides(small_positions[0])
    assert after[0][0] != before[0][0]
    assert after[0][0] == pytest.approx(after[0][1], rel=1e-11)
    assert relative_error(after[1]) < 1e-9
    exits = [force.getNumSupportExits(context) for context in sides.contexts]
    assert exits == [0, 0]
    sides(small_positions[0] * 1.5)
    assert [force.getNumSupportExits(context) for context in sides.contexts] == [1, 1]


MINIMIZE = """
import sys
import numpy as np
import openmm

folder, name, precision = sys.argv[1:]
with open(f"{folder}/system.xml") as file:
    system = openmm.XmlSerializer.deserialize(file.read())
properties = {} if name == "Reference" else {"Precision": precision}
context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform(name), properties)
context.setPositions(np.load(f"{folder}/positions.npy"))
energies = [context.getState(energy=True).getPotentialEnergy()._value]
openmm.LocalEnergyMinimizer.minimize(context, 1.0, 1000)
energies.append(context.getState(energy=True).getPotentialEnergy()._value)
np.save(f"{folder}/{name}.npy", energies)
"""


def minimize(folder, system, positions, name, precision):
    """Energies before and after, in a process of its own; None if it crashed."""
    (folder / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    np.save(folder / "positions.npy", positions.reshape(-1, 3))
    done = subprocess.run([sys.executable, "-c", MINIMIZE, folder, name, precision], capture_output=True, text=True)
    assert done.returncode <= 0, done.stderr
    return np.load(folder / f"{name}.npy") if done.returncode == 0 else None


@pytest.mark.parametrize("precision", LIMITS)
def test_minimizer(small_model, small_positions, tmp_path, precision):
    positions = small_positions[0] + 0.005 * np.random.default_rng(0).normal(size=small_positions[0].shape)
    system = molecules_system(FlowForce(small_model), small_model.num_particles)
    found = minimize(tmp_path, system, positions, PLATFORM, precision)
    if found is None:
        bond = openmm.HarmonicBondForce()
        bond.addBond(0, 1, 0.1, 1000)
        system = molecules_system(bond, small_model.num_particles)
        assert minimize(tmp_path, system, positions, PLATFORM, precision) is None, "only FlowForce makes the minimizer crash"
        pytest.skip("OpenMM's minimizer crashes on this device, whatever the force")
    expected = minimize(tmp_path, system, positions, "Reference", precision)
    assert found[0] == pytest.approx(expected[0], rel=LIMITS[precision])
    assert found[1] < found[0]
    # Minima are flat: they are found to a force of 1 kJ/mol/nm.
    assert found[1] == pytest.approx(expected[1], abs=0.2)
