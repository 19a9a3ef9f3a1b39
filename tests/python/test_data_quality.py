# SPDX-License-Identifier: MIT
"""Data sets of any molecule, and the figures that say how good they are."""
import json
from pathlib import Path

import h5py
import numpy as np
import openmm
import openmmflow
import pytest

from openmmflow import analysis, data_quality, dataset, shipped
from openmmflow.command_line import main

MOLECULES = Path(__file__).parents[2] / "examples" / "molecules"


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_statistical_inefficiency_of_a_known_process(correlation):
    """x' = a x + noise has inefficiency (1+a)/(1-a)."""
    random = np.random.default_rng(0)
    noise = random.normal(size=(60_000, 3))
    values = np.empty_like(noise)
    values[0] = noise[0] / np.sqrt(1 - correlation**2)
    for i in range(1, len(noise)):
        values[i] = correlation * values[i - 1] + noise[i]
    found = data_quality.statistical_inefficiency(np.column_stack([values, np.full(len(values), 3.7)]))
    assert found[:3] == pytest.approx((1 + correlation) / (1 - correlation), rel=0.15)
    assert found[3] == 1.0


def test_populations_of_a_known_process():
    """Molecules that jump between the basins: population, error and transitions are those of the process."""
    pdb = dataset.alanine_dipeptide()
    random = np.random.default_rng(1)
    stay, frames = 0.98, 20_000    # leaves either basin with probability 0.02: p = 1/2, inefficiency (1+0.96)/(1-0.96) = 49
    inside = np.cumsum(random.random(frames) > stay) % 2 == 1
    base = pdb.getPositions(asNumpy=True)._value
    from openmmflow import analysis, builder

    phi_atoms = analysis.backbone_torsions(pdb.topology)[0][0]
    phi = analysis.torsion_angles(base, phi_atoms)
    turned = rotated(base, phi_atoms, builder.bond_list(pdb.topology, 22), np.radians(60) - phi)
    assert analysis.in_alpha_l(analysis.torsion_angles(turned, phi_atoms)) and not analysis.in_alpha_l(phi)
    positions = np.where(inside[:, None, None], turned, base) + random.normal(0, 0.001, (frames, 22, 3))
    quality = data_quality.run_quality("run", positions, pdb.topology)
    assert quality.inefficiency < 1.05 and quality.frames == frames
    assert quality.population == pytest.approx(inside.mean(), abs=1e-3)
    assert quality.error == pytest.approx(0.5 / np.sqrt(frames / 49), rel=0.3)
    assert quality.transitions == pytest.approx(2 * 0.25 * frames / 49 / 10, rel=0.4)
    other = data_quality.RunQuality("other", 10, 1.5, 2.0, population=quality.population + 3 * quality.error * 2**0.5, error=quality.error,
                                   transitions=1.0)
    assert data_quality.disagreement([quality, other]) == pytest.approx(3.0)
    printed = data_quality.text([quality, other])
    assert "differ by at most 3.0 standard errors" in printed
    assert "mean 1.50, largest 2.00 (more than 1.2: frames are too close to each other)" in printed
    assert data_quality.disagreement([quality]) is None


def rotated(positions, torsion, bonds, angle):
    """One conformation with what lies behind the middle bond of a torsion turned about it."""
    _, j, k, _ = torsion
    behind, queue = {k}, [k]
    for atom in queue:
        for bond in bonds:
            if atom in bond and not {j, k} == set(bond):
                other, = set(bond) - {atom}
                if other not in behind:
                    behind.add(other)
                    queue.append(other)
    axis = positions[k] - positions[j]
    axis = axis / np.linalg.norm(axis)
    result = positions.copy()
    for atom in behind:
        v = positions[atom] - positions[k]
        result[atom] = positions[k] + v * np.cos(angle) + np.cross(axis, v) * np.sin(angle) + axis * (axis @ v) * (1 - np.cos(angle))
    return result


def test_too_few_frames_to_judge():
    pdb = dataset.alanine_dipeptide()
    with pytest.raises(ValueError, match="less than 100 cannot be judged"):
        data_quality.run_quality("run", np.zeros((50, 22, 3)), pdb.topology)


def test_command_for_any_molecule(tmp_path, capsys):
    """ACE-PRO-NME in vacuum with constraints: data, its description, its System, and its quality."""
    path = tmp_path / "pro.h5"
    arguments = ["dataset", str(MOLECULES / "ace-pro-nme.pdb"), "-o", str(path), "--frames", "100", "--force-field", "amber99sbildn.xml",
                 "--constraints", "HBonds", "--replicas", "2", "--frame-steps", "5", "--temperature", "310", "--step-size", "2", "-q"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "pro.h5: 100 frames; statistical inefficiency of bonds and angles" in printed and "effective transitions" in printed
    with h5py.File(path) as file:
        description = json.loads(file.attrs["description"])
        assert description["molecule"] == "ACE-PRO-NME" and description["environment"] == "vacuum" and description["constraints"] == "HBonds"
        assert description["temperatures"] == [310.0, 600.0] and "displaced_forces" not in file
        system = openmm.XmlSerializer.deserialize(file["system"][()].decode())
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
        context.setPositions(file["positions"][50])
        state = context.getState(forces=True, energy=True)
        assert np.allclose(state.getForces(asNumpy=True)._value, file["forces"][50], atol=1e-6)
    assert main(["dataset", str(MOLECULES / "ace-pro-nme.pdb"), "--quality", str(path), str(path)]) == 0
    assert "populations of 2 runs differ by at most 0.0 standard errors" in capsys.readouterr().out


def test_proposals_of_a_flow(tmp_path, capsys):
    """Frames of the force field whose populations converge at once: the flow's basins, in the force field's proportion."""
    path = tmp_path / "data.h5"
    arguments = ["dataset", "-o", str(path), "--frames", "300", "--replicas", "1", "--proposals", str(shipped.MODEL), "--moves", "5",
                 "--frame-steps", "10", "-q"]
    assert main(arguments) == 0
    run, = data_quality.read_runs([path], dataset.alanine_dipeptide().topology)
    print(f"basin {run.population:.3f} ± {run.error:.3f}, {run.transitions:.1f} effective transitions per tenth of the run")
    with h5py.File(path) as file:
        description = json.loads(file.attrs["description"])
        assert description["method"] == "molecular dynamics and Monte Carlo moves proposed by a flow"
        assert description["moves"] == 5 and description["proposals"] == openmmflow.FlowModel.load(shipped.MODEL).checksum
        positions, energies, forces = (file[name][:] for name in ("positions", "energies", "forces"))
    # Energies and forces are the force field's, also where the last move was accepted.
    context = openmm.Context(dataset.implicit_solvent_system(dataset.alanine_dipeptide().topology), openmm.VerletIntegrator(0.001),
                             openmm.Platform.getPlatformByName("Reference"))
    for frame in range(0, 300, 30):
        context.setPositions(positions[frame])
        state = context.getState(energy=True, forces=True)
        assert state.getPotentialEnergy()._value == pytest.approx(energies[frame], abs=1e-9)
        assert np.allclose(state.getForces(asNumpy=True)._value, forces[frame], atol=1e-9)
    # The dynamics alone would take nanoseconds from β to α: here most frames are of another conformation than the one before.
    (_, psi), = analysis.backbone_torsions(dataset.alanine_dipeptide().topology)
    steps = np.diff(analysis.torsion_angles(positions, psi))
    jumps = np.abs(np.arctan2(np.sin(steps), np.cos(steps))) > 0.5
    assert jumps.mean() > 0.2


@pytest.mark.parametrize("arguments, message", [
    ([], "say where the data goes"),
    (["none.pdb", "-o", "x.h5"], "there is no file none.pdb"),
    ([str(MOLECULES / "ace-pro-nme.pdb"), "-o", "{tmp}/x.h5", "--highest-temperature", "200"], "make no ladder"),
    ([str(MOLECULES / "ace-pro-nme.pdb"), "-o", "{tmp}/x.h5", "--force-field", "tip3p.xml"], "No template found"),
])
def test_bad_arguments(arguments, message, tmp_path, capsys):
    assert main(["dataset", *(a.replace("{tmp}", str(tmp_path)) for a in arguments)]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
