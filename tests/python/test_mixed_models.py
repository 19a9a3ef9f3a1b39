# SPDX-License-Identifier: MIT
"""Models with mixed coordinates in everything that works on models: margins, reports, samples, checks, stationarity, replaceMolecule."""
import numpy as np
import openmm
import pytest
from openmm import unit

import mixed_flow
from openmmflow import (FlowForce, FlowModel, analysis, check, check_report, inner_support, model_file, replaceMolecule, run_report,
                        sample_report, sampling, simulate, stationarity)
from openmmflow.benchmark import accuracy
from openmmflow.command_line import main
from openmmflow.stored_run import Settings
from random_flow import MASS


@pytest.fixture(scope="module")
def model():
    return FlowModel.from_bytes(model_file.pack(*mixed_flow.mixed_flow()))


@pytest.fixture(scope="module")
def frame_model():
    """One in measure "frame", in which it depends on place and orientation."""
    return FlowModel.from_bytes(model_file.pack(*mixed_flow.mixed_flow(measure="frame", dimensions=10)))


@pytest.fixture
def molecule(tmp_path, model):
    """Paths of the model and of its structure."""
    paths = tmp_path / "model.safetensors", tmp_path / "molecule.pdb"
    model.save(paths[0])
    with open(paths[1], "w") as file:
        openmm.app.PDBFile.writeFile(mixed_flow.topology(), model.sample(1)[0][0] * unit.nanometer, file)
    return paths


def chain(bonds, angles, torsions):
    """Positions (n, particles, 3) of chains: bonds (n, particles - 1), angles (n, particles - 2), torsions (n, particles - 3)."""
    zero = np.zeros_like(bonds[:, 0])
    x = [np.stack([zero] * 3, -1), np.stack([bonds[:, 0], zero, zero], -1)]
    x.append(x[1] + bonds[:, 1:2] * np.stack([-np.cos(angles[:, 0]), np.sin(angles[:, 0]), zero], -1))
    for k in range(torsions.shape[1]):
        x.append(next_particle(x, bonds[:, k + 2:k + 3], angles[:, k + 1:k + 2], torsions[:, k:k + 1]))
    return np.stack(x, axis=1)


def next_particle(before, bond, angle, torsion):
    """Where a particle of a chain lies, (n, 3), from the three (n, 3) before it; the others (n, 1)."""
    along = before[-1] - before[-2]
    along = along / np.linalg.norm(along, axis=-1, keepdims=True)
    normal = np.cross(before[-2] - before[-3], along)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    return before[-1] + bond * (-np.cos(angle) * along + np.sin(angle) * (np.cos(torsion) * np.cross(normal, along) + np.sin(torsion) * normal))


@pytest.mark.parametrize("placed", [0, 1])
def test_density_is_normalized(placed):
    """Over bonds, angles and torsions of a chain, whose volume element knows nothing of alignments; measure "cartesian"."""
    block, rows = [0, 1, 2], [[3, 2, 1, 0]][:placed]
    model = FlowModel.from_bytes(model_file.pack(*mixed_flow.mixed_flow(2, block=block, rows=rows)))
    random = np.random.default_rng(0)
    count = 400_000
    widths = 1.6 * np.array([mixed_flow.BLOCK_STD * 1.5, mixed_flow.BLOCK_STD * 1.5, 0.05] + [mixed_flow.BOND_STD, mixed_flow.ANGLE_STD] * placed)
    centre = np.array([mixed_flow.BOND, mixed_flow.BOND, mixed_flow.ANGLE] + [mixed_flow.BOND, mixed_flow.ANGLE] * placed)
    z = random.normal(size=(count, len(widths)))
    log_proposal = (-0.5 * z**2 - np.log(widths) - 0.5 * np.log(2 * np.pi)).sum(axis=1)
    values = centre + widths * z
    bonds, angles = values[:, [0, 1, *[3] * placed]], values[:, [2, *[4] * placed]]
    torsions = random.uniform(-np.pi, np.pi, (count, placed))
    log_proposal -= placed * np.log(2 * np.pi)
    # Of the first three particles with all orientations, and of one that is placed from them.
    log_volume = np.log(8 * np.pi**2) + 2 * np.log(bonds).sum(axis=1) + np.log(np.sin(angles)).sum(axis=1)
    weights = np.exp(model.log_prob(chain(bonds, angles, torsions)) + log_volume - log_proposal)
    error = weights.std() / np.sqrt(count)
    print(f"\n{placed} particles placed from a block of 3: integral of p {weights.mean():.4f} ± {error:.4f}")
    assert error < 0.01 and abs(weights.mean() - 1) < 4 * error


@pytest.mark.parametrize("dimensions", [9, 7])
def test_density_is_normalized_in_measure_frame(dimensions):
    """Over place and orientation, too; with fewer dimensions on the plane that is spanned by the rows of the whitening."""
    block, rows = [0, 1, 2], [[3, 2, 1, 0]]
    architecture, tensors = mixed_flow.mixed_flow(3, block=block, rows=rows, measure="frame", dimensions=dimensions)
    model = FlowModel.from_bytes(model_file.pack(architecture, tensors))
    random = np.random.default_rng(0)
    count = 400_000
    # The rows are orthogonal.
    w = 1.3 * random.normal(size=(count, dimensions))
    blocks = tensors["layers.0.reference"] + (mixed_flow.BLOCK_STD**2 * w @ tensors["layers.0.whitening"]).reshape(count, 3, 3)
    log_proposal = (-0.5 * (w / 1.3)**2 - np.log(1.3 * mixed_flow.BLOCK_STD) - 0.5 * np.log(2 * np.pi)).sum(axis=1)
    z = random.normal(size=(count, 2))
    bond, angle = mixed_flow.BOND + 1.4 * mixed_flow.BOND_STD * z[:, :1], mixed_flow.ANGLE + 1.4 * mixed_flow.ANGLE_STD * z[:, 1:]
    log_proposal += (-0.5 * z**2 - 0.5 * np.log(2 * np.pi)).sum(axis=1) - np.log(1.4**2 * mixed_flow.BOND_STD * mixed_flow.ANGLE_STD)
    torsion = random.uniform(-np.pi, np.pi, (count, 1))
    log_proposal -= np.log(2 * np.pi)
    last = next_particle(list(blocks.transpose(1, 0, 2)), bond, angle, torsion)
    log_volume = 2 * np.log(bond[:, 0]) + np.log(np.sin(angle[:, 0]))
    weights = np.exp(model.log_prob(np.concatenate([blocks, last[:, None]], axis=1)) + log_volume - log_proposal)
    error = weights.std() / np.sqrt(count)
    print(f"\n{dimensions} dimensions of a block of 3: integral of p {weights.mean():.4f} ± {error:.4f}")
    assert error < 0.01 and abs(weights.mean() - 1) < 4 * error


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
    assert len(inner_support.flow_forces(mixed)) == 1
    context = openmm.Context(mixed, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))
    x = model.sample(1)[0][0]
    context.setPositions(x)
    energy = context.getState(energy=True).getPotentialEnergy() / (unit.MOLAR_GAS_CONSTANT_R * model.temperature * unit.kelvin)
    assert energy == pytest.approx(-model.log_prob(x), abs=1e-9)


def test_benchmarks_say_that_they_are_of_internal_coordinates(model):
    torch_flow = pytest.importorskip("openmmflow.benchmark.torch_flow", reason="PyTorch is not installed")
    with pytest.raises(ValueError, match="has no mixedCoordinates"):
        torch_flow.TorchFlow(*mixed_flow.mixed_flow())
    with pytest.raises(ValueError, match="openmmflow check"):
        accuracy.near_edges(model, model.sample(2)[0])
