# SPDX-License-Identifier: MIT
"""Support exits: the reporter's lines, the count of a Context, and the fraction of a flow's own samples inside."""
import io
import re

import numpy as np
import openmm
import pytest
from openmm import app, unit

import openmmflow
from openmmflow import command_line, inner_support, shipped


def simulation_of(model, positions, force=None):
    """Two molecules of a model as one Simulation on Reference, at conformations (2, particles, 3)."""
    particles = model.num_particles
    topology, system = app.Topology(), openmm.System()
    chain = topology.addChain()
    force = force or openmmflow.FlowForce(model)
    for molecule in range(2):
        residue = topology.addResidue("MOL", chain)
        for _ in range(particles):
            topology.addAtom("C", app.element.carbon, residue)
            system.addParticle(12.0)
        force.addMolecule(range(molecule * particles, (molecule + 1) * particles))
    system.addForce(force)
    simulation = app.Simulation(topology, system, openmm.VerletIntegrator(0.0001), openmm.Platform.getPlatformByName("Reference"))
    simulation.context.setPositions(positions.reshape(-1, 3))
    return simulation, force


def test_lines_hold_what_they_promise(tmp_path, small_model, small_positions):
    simulation, force = simulation_of(small_model, small_positions[:2])
    path = tmp_path / "flow.csv"
    simulation.reporters.append(openmmflow.FlowReporter(str(path), 5))
    potentials = []
    for _ in range(3):
        simulation.step(5)
        potentials.append(simulation.context.getState(energy=True).getPotentialEnergy()._value)
        log_prob = force.getLogProbs(simulation.context).sum()
    table = np.loadtxt(path, delimiter=",")
    assert path.read_text().splitlines()[0] == openmmflow.flow_reporter.HEADER
    assert table[:, 0].tolist() == [5, 10, 15]
    assert np.allclose(table[:, 1], table[:, 0] * 1e-4)
    assert table[-1, 2] == log_prob
    assert table[:, 3].tolist() == potentials
    assert np.all(table[:, 4:] == 0)
    # The potential is -k_BT ln p, as nothing left the support.
    kT = unit.MOLAR_GAS_CONSTANT_R.value_in_unit(unit.kilojoule_per_mole / unit.kelvin) * small_model.temperature
    assert np.allclose(table[:, 3], -kT * table[:, 2], rtol=1e-12)


def test_exits_are_counted_and_reported(small_model, small_positions):
    positions = small_positions[:2].copy()
    positions[1] *= 5
    simulation, force = simulation_of(small_model, positions)
    text = io.StringIO()
    simulation.reporters.append(openmmflow.FlowReporter(text, 1))
    simulation.step(1)
    _, _, log_prob, potential, outside, exits = map(float, text.getvalue().splitlines()[1].split(","))
    assert log_prob == -np.inf and np.isfinite(potential) and outside == 1
    # One step and the evaluation of the report.
    assert exits >= 1 and exits == force.getNumSupportExits(simulation.context) == inner_support.support_exits(simulation.context)


def test_append_goes_on_without_a_second_header(tmp_path, small_model, small_positions):
    path = tmp_path / "flow.csv"
    for append in (False, True):
        simulation, _ = simulation_of(small_model, small_positions[:2])
        simulation.reporters.append(openmmflow.FlowReporter(path, 1, append=append))
        simulation.step(2)
    assert [line.startswith("#") for line in path.read_text().splitlines()] == [True] + [False] * 4


def test_wrong_use_is_refused(tmp_path, small_model, small_positions):
    with pytest.raises(ValueError, match="at least 1 step"):
        openmmflow.FlowReporter(tmp_path / "flow.csv", 0)
    with pytest.raises(FileNotFoundError):
        openmmflow.FlowReporter(tmp_path / "no" / "flow.csv", 1)
    simulation, force = simulation_of(small_model, small_positions[:2], openmmflow.FlowForce(small_model))
    simulation.system.removeForce(0)
    simulation.reporters.append(openmmflow.FlowReporter(io.StringIO(), 1))
    with pytest.raises(ValueError, match="has none"):
        simulation.step(1)


def test_fraction_inside_agrees_with_energies(small_model):
    """Where a sample is inside, FlowForce is -ln p; the count is that of the samples where it is."""
    samples = 200
    fraction = inner_support.fraction_inside(small_model, samples=samples, seed=3)
    positions, log_prob = small_model.sample(samples, 3)
    system = openmm.System()
    for _ in range(small_model.num_particles):
        system.addParticle(1.0)
    system.addForce(openmmflow.FlowForce(small_model))
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    kT = unit.MOLAR_GAS_CONSTANT_R.value_in_unit(unit.kilojoule_per_mole / unit.kelvin) * small_model.temperature
    inside = 0
    for x, value in zip(positions, log_prob):
        context.setPositions(x)
        energy = context.getState(energy=True).getPotentialEnergy()._value / kT
        inside += abs(energy + value) < 1e-9 * (1 + abs(energy))
    print(f"fraction of samples inside: {fraction:.3f}")
    assert 0 < fraction <= 1
    assert inside == pytest.approx(fraction * samples, abs=1e-9)


def test_the_shipped_model_keeps_its_samples_inside(capsys):
    assert command_line.main(["info", str(shipped.MODEL)]) == 0
    output = capsys.readouterr().out
    line, = (line for line in output.splitlines() if line.startswith("inner support"))
    print(line)
    fraction, = re.findall(r"([0-9.]+)% of 10,000 samples", line)
    assert float(fraction) / 100 >= inner_support.DEMANDED_FRACTION and "LESS" not in line
