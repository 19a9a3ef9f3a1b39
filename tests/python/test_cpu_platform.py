# SPDX-License-Identifier: MIT
"""FlowForce on the CPU platform: single precision against double, and the same numbers whatever runs beside it."""
import numpy as np
import openmm
import pytest

import openmmflow
from openmmflow import shipped
from openmmflow.benchmark import accuracy, conservation, models, systems

THREADS = (1, 2, 4)


@pytest.fixture(scope="module")
def frames():
    """Conformations (300, 22, 3) of alanine dipeptide at 300 K, nm."""
    return models.conformations(300, stride=100)


@pytest.fixture(scope="module")
def model():
    return openmmflow.FlowModel.load(shipped.MODEL)


def show(what: str, figures: accuracy.Accuracy):
    print(f"\n{what}: {figures.frames} frames, force error {figures.force_error:.1e} of {figures.force_rms:.0f} k_BT/nm, "
          f"|ΔU| RMS {figures.energy_rms:.1e}, max {figures.energy_max:.1e} k_BT")


def test_single_precision_of_md_frames(model, frames):
    figures = accuracy.compare(model, frames, threads=1)
    show("MD frames", figures)
    assert figures.within_limits()


def test_single_precision_near_the_edges_of_the_support(model, frames):
    figures = accuracy.compare(model, accuracy.near_edges(model, frames), threads=1)
    show("near edges", figures)
    assert figures.within_limits()


def test_single_precision_of_the_published_flow(published_model, frames):
    figures = accuracy.compare(published_model, frames[:100], threads=1)
    show("published flow", figures)
    assert figures.within_limits()


def test_frames_near_edges_are_near_edges(model, frames):
    """Frames lie on both sides of the edges, and only one coordinate of each has moved."""
    moved = accuracy.near_edges(model, frames)
    inside = np.isfinite(model.log_prob(moved))
    assert 0.2 < inside.mean() < 0.8
    z_matrix = model.architecture["layers"][0]["zMatrix"]
    change = np.abs(openmmflow.builder.internal_coordinates(moved, z_matrix)
                    - openmmflow.builder.internal_coordinates(frames, z_matrix))
    change = np.minimum(change, 1 - change)    # torsions are modulo 1
    assert np.sum(change > 1e-9, axis=1).max() == 1


@pytest.mark.parametrize("threads", THREADS)
def test_repeats_are_bitwise_equal(model, frames, threads):
    """Energies, forces and a trajectory of many molecules, in two Contexts of the same number of threads."""
    count = 100    # blocks and a rest
    positions = np.resize(frames, (count, *frames.shape[1:]))
    runs = []
    for _ in range(2):
        context = systems.context(systems.flow_system(model, count), "CPU", positions, threads=threads, seed=3)
        first = systems.energy_and_forces(context)
        context.setVelocitiesToTemperature(300, 5)
        context.getIntegrator().step(20)
        runs.append((*first, *systems.energy_and_forces(context)))
    for one, other in zip(*runs):
        assert np.array_equal(one, other)


def test_number_of_threads_changes_nothing(model, frames):
    """Molecules are independent and are summed in their order, so that not even rounding depends on the threads."""
    positions = np.resize(frames, (100, *frames.shape[1:]))
    results = [systems.energy_and_forces(systems.context(systems.flow_system(model, 100), "CPU", positions, threads=threads))
               for threads in THREADS]
    for energy, forces in results[1:]:
        assert energy == results[0][0]
        assert np.array_equal(forces, results[0][1])


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("count", [1, 5, 31, 32, 33, 70])
def test_many_molecules_are_the_sum_of_each(model, frames, count, threads):
    """Whole blocks, parts of blocks and single molecules agree with Reference."""
    positions = frames[:count]
    system = systems.flow_system(model, count)
    energy, forces = systems.energy_and_forces(systems.context(system, "CPU", positions, threads=threads))
    expected_energy, expected_forces = systems.energy_and_forces(systems.context(system, "Reference", positions))
    thermal_energy = openmmflow.dataset.MOLAR_GAS_CONSTANT * model.temperature
    assert abs(energy - expected_energy) / thermal_energy < 1e-3 * np.sqrt(count)
    error = np.sqrt(np.mean((forces - expected_forces)**2) / np.mean(expected_forces**2))
    assert error < accuracy.LIMITS["force_error"]


def test_threads_property_is_obeyed(model, frames):
    context = systems.context(systems.flow_system(model), "CPU", frames[0], threads=4)
    assert context.getPlatform().getPropertyValue(context, "Threads") == "4"
    assert np.isfinite(systems.energy_and_forces(context)[0])


def test_energy_alone_is_the_energy_with_forces(model, frames):
    context = systems.context(systems.flow_system(model), "CPU", frames[0], integrator=openmm.VerletIntegrator(0.001))
    alone = context.getState(energy=True).getPotentialEnergy()._value
    assert alone == pytest.approx(systems.energy_and_forces(context)[0], abs=1e-3)


def test_energy_is_conserved_as_on_reference(model, frames):
    """A short run; ``openmmflow benchmark --mode nve`` makes the full one."""
    figures, comparison = conservation.measure(model, starts=3, picoseconds=2.0, progress=False)
    cpu, reference = figures["CPU"], figures["Reference"]
    print(f"\nfluctuation per degree of freedom: CPU {cpu.fluctuation:.5f}, Reference {reference.fluctuation:.5f} kJ/mol; {comparison.verdict}")
    assert comparison.ratio == pytest.approx(1, abs=conservation.LARGEST_DIFFERENCE)
