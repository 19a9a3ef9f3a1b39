# SPDX-License-Identifier: MIT
"""Models with mixed coordinates in everything that works on models: margins, reports, samples, checks, stationarity, replaceMolecule."""
import numpy as np
import openmm
import pytest
from openmm import unit

import mixed_flow
from openmmflow import (FlowForce, FlowModel, analysis, check, check_report, inner_support, model_file, replaceMolecule, run_report,
                        sample_report, sampling, simulate, stationarity)
from openmmflow.command_line import main
from openmmflow.stored_run import Settings
from random_flow import MASS


@pytest.fixture(scope="module")
def model():
    return FlowModel.from_bytes(model_file.pack(*mixed_flow.mixed_flow()))


@pytest.fixture(scope="module")
def frame_model():
    """The same in measure "frame", in which it depends on place and orientation."""
    architecture, tensors = mixed_flow.mixed_flow()
    return FlowModel.from_bytes(model_file.pack({**architecture, "measure": "frame"}, tensors))


@pytest.fixture
def molecule(tmp_path, model):
    """Paths of the model and of its structure."""
    paths = tmp_path / "model.safetensors", tmp_path / "molecule.pdb"
    model.save(paths[0])
    with open(paths[1], "w") as file:
        openmm.app.PDBFile.writeFile(mixed_flow.topology(), model.sample(1)[0][0] * unit.nanometer, file)
    return paths


def test_margins_of_single_numbers(model):
    force = FlowForce(model)
    force.setMargins(force.getMargins()._replace(bonds=0.001, torsionAngles=0.2 * unit.radian))
    bonds, angles, torsion_angles = (margins._value for margins in force.getMargins())
    assert bonds.tolist() == [0.001] * 2 and torsion_angles.tolist() == [0.2] * 2 and len(angles) == 2
    with pytest.raises(openmm.OpenMMException, match="3 margins of bonds, the model has 2 bonds"):
        force.setMargins(force.getMargins()._replace(bonds=[0.001] * 3))


def _system_and_integrator(force):
    system = openmm.System()
    for _ in range(mixed_flow.PARTICLES):
        system.addParticle(MASS)
    system.addForce(force)
    return system, openmm.VerletIntegrator(0.001)


def test_info(molecule, capsys):
    assert main(["info", str(molecule[0])]) == 0
    text = capsys.readouterr().out
    assert "mixedCoordinates" in text and "6 block" in text and "LESS" not in text


def test_check(model, tmp_path):
    certificate = check.check(model, starts=2, length=0.5, frames=10)
    print("\n" + certificate.table())
    assert certificate.passed
    assert "block" in certificate.series
    # Four particles of the block, two placed ones with a bond and an angle each, which leave and come back.
    edges = next(figure.meaning for figure in certificate.figures if "edges" in figure.meaning)
    assert int(edges.split(" at ")[1].split()[0]) >= 4 * 4 + 2 * 2 * 4
    assert check_report.figure(certificate) is not None


def test_samples_and_their_page(molecule, model, tmp_path):
    assert main(["sample", str(molecule[0]), "-n", "200", "-o", str(tmp_path / "samples.h5"), "--pdb", str(molecule[1]), "-q"]) == 0
    stored = sampling.read(tmp_path / "samples.h5")
    assert len(stored.log_prob) == 200
    text = sample_report.write(tmp_path / "samples.h5", model).read_text()
    # Of all particles, those of the block, too.
    assert all(f"{kind} /" in text for kind in ("Bonds", "Angles", "Torsions"))


def test_run_and_its_page(molecule, tmp_path):
    pages = []
    assert simulate.simulate(tmp_path / "run", simulate.flow_molecule(*molecule), Settings(ensemble="nve", report_interval=5, trajectory_interval=5),
                             100, equilibration_steps=100, progress=False, at_end=lambda run: pages.append(run_report.write(run)))
    text = pages[0].read_text()
    assert all(word in text for word in ("What the flow thinks of the frames", "Bonds /", "Angles /", "Torsions /"))


def test_dynamics_keeps_the_distribution(model, tmp_path):
    """Which it would not with another volume element."""
    settings = stationarity.Settings(copies=500, length=0.6, step_size=0.002, friction=40.0, relaxation=0.1, interval=0.02, reference=50_000, seed=5)
    copies = stationarity.Copies(tmp_path, model, [MASS] * mixed_flow.PARTICLES, settings)
    assert copies.advance(progress=False)
    result = stationarity.figures(copies, model)
    print("\n" + stationarity.describe(result))
    assert result["end"]["stationary"] and result["timeMeans"]["correctedP"] > stationarity.SIGNIFICANCE


def test_dynamics_in_measure_frame_is_refused(molecule, frame_model, tmp_path, capsys):
    with pytest.raises(SystemExit):
        stationarity.main([str(molecule[0]), "--pdb", str(molecule[1]), "-o", str(tmp_path), "--measure", "frame"])
    assert "no potential of conformations" in capsys.readouterr().err
    positions, log_prob = frame_model.sample(3)
    with pytest.raises(ValueError, match="measure 'frame'.*Import it with measure 'cartesian'"):
        analysis.cartesian_log_prob(frame_model, positions, log_prob)


def test_replace_molecule(model):
    system, _ = _system_and_integrator(openmm.CMMotionRemover())
    bonds = openmm.HarmonicBondForce()
    for i in range(mixed_flow.PARTICLES - 1):
        bonds.addBond(i, i + 1, 0.15, 1e5)
    system.addForce(bonds)
    mixed = replaceMolecule(system, range(mixed_flow.PARTICLES), model)
    force, = inner_support.flow_forces(mixed)
    context = openmm.Context(mixed, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))
    x = model.sample(1)[0][0]
    context.setPositions(x)
    energy = context.getState(energy=True).getPotentialEnergy() / (unit.MOLAR_GAS_CONSTANT_R * model.temperature * unit.kelvin)
    assert energy == pytest.approx(-model.log_prob(x), abs=1e-9)
