# SPDX-License-Identifier: MIT
"""Files of samples: what they hold, that MDTraj reads them, that they are made in pieces or at once, and what is refused."""
import json
import tracemalloc

import h5py
import mdtraj
import numpy as np
import openmm
import pytest

from conftest import MOLAR_GAS_CONSTANT
from openmmflow import FlowModel, command_line, dataset, model_file, reweighting, sampling, shipped
from random_flow import MASS, random_flow


@pytest.fixture(scope="module")
def system():
    """Six particles of a chain with bonds and angles."""
    system = openmm.System()
    bonds, angles = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()
    for _ in range(6):
        system.addParticle(MASS)
    for i in range(5):
        bonds.addBond(i, i + 1, 0.15, 90_000.0)
    for i in range(4):
        angles.addAngle(i, i + 1, i + 2, 1.95, 600.0)
    system.addForce(bonds)
    system.addForce(angles)
    return system


def energies_of(system, positions):
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    energies = []
    for x in positions:
        context.setPositions(x)
        energies.append(context.getState(energy=True).getPotentialEnergy()._value)
    return np.array(energies)


def contents(path):
    with h5py.File(path, "r") as file:
        return {name: file[name][:] for name in file}


def test_hdf5_is_what_mdtraj_reads(tmp_path, small_model, system):
    pytest.importorskip("tables", reason="MDTraj reads HDF5 with it")
    path = tmp_path / "samples.h5"
    assert sampling.sample(path, small_model, 250, system=system, temperature=330.0, gradients=True, seed=4, batch=100, progress=False)
    positions, log_prob, gradient = small_model.sample(250, seed=4, gradient=True)
    trajectory = mdtraj.load(str(path))
    assert trajectory.n_frames == 250 and [a.element.symbol for a in trajectory.topology.atoms] == ["C"] * 6
    assert sorted((a.index, b.index) for a, b in trajectory.topology.bonds) == small_model.bonds
    np.testing.assert_allclose(trajectory.xyz, positions, atol=1e-6)
    samples = sampling.read(path)
    np.testing.assert_allclose(samples.log_prob, log_prob, atol=1e-10)
    np.testing.assert_allclose(samples.energies, energies_of(system, positions), atol=1e-9)
    np.testing.assert_allclose(samples.log_weights, -samples.energies / (MOLAR_GAS_CONSTANT * 330) - log_prob, atol=1e-10)
    assert samples.temperature == 330
    np.testing.assert_allclose(contents(path)["log_prob_gradient"], gradient, rtol=1e-6)
    np.testing.assert_allclose(gradient, small_model.log_prob_and_gradient(positions)[1], rtol=1e-9)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["samples.h5"]


def test_dcd_and_npz(tmp_path, small_model, system):
    path = tmp_path / "samples.dcd"
    assert sampling.sample(path, small_model, 120, system=system, seed=4, batch=50, progress=False)
    topology = mdtraj.Topology.from_openmm(sampling._guessed_topology(small_model, system))
    np.testing.assert_allclose(mdtraj.load(str(path), top=topology).xyz, small_model.sample(120, seed=4)[0], atol=1e-6)
    samples = sampling.read(path)
    np.testing.assert_allclose(samples.log_prob, small_model.sample(120, seed=4)[1], atol=1e-10)
    assert samples.log_weights.shape == (120,)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["samples.dcd", "samples.npz"]
    assert sampling.sample(path, small_model, 120, system=system, seed=4, progress=False)
    with pytest.raises(ValueError, match="a DCD file is not prolonged"):
        sampling.sample(path, small_model, 121, system=system, seed=4, progress=False)


def test_pieces_equal_the_whole(tmp_path, small_model, system):
    whole, pieces = tmp_path / "whole.h5", tmp_path / "pieces.h5"
    assert sampling.sample(whole, small_model, 500, system=system, seed=9, batch=64, progress=False)
    calls = []

    def stop_after_two():
        calls.append(0)
        return len(calls) > 2

    assert not sampling.sample(pieces, small_model, 300, system=system, seed=9, batch=64, progress=False, stop=stop_after_two)
    assert not pieces.exists()
    with pytest.raises(ValueError, match="begun with other settings .seed 9 there and 8 now"):
        sampling.sample(pieces, small_model, 300, system=system, seed=8, progress=False)
    assert sampling.sample(pieces, small_model, 300, system=system, seed=9, batch=100, progress=False)
    assert len(sampling.read(pieces).log_prob) == 300
    assert sampling.sample(pieces, small_model, 500, system=system, seed=9, progress=False)
    assert sampling.sample(pieces, small_model, 400, system=system, seed=9, progress=False)    # nothing to do
    one, other = contents(whole), contents(pieces)
    assert one.keys() == other.keys()
    for name in one.keys() - {"topology"}:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-6, atol=1e-9)
    with pytest.raises(ValueError, match="holds samples with other settings .temperature 300.0 there and 310.0 now"):
        sampling.sample(pieces, small_model, 600, system=system, temperature=310, seed=9, progress=False)


def test_measure_frame_gives_the_same_weights(tmp_path, system):
    for measure in ("cartesian", "frame"):
        model = FlowModel.from_bytes(model_file.pack(*random_flow(measure=measure)))
        sampling.sample(tmp_path / f"{measure}.h5", model, 100, system=system, progress=False)
    one, other = (sampling.read(tmp_path / f"{measure}.h5") for measure in ("cartesian", "frame"))
    np.testing.assert_allclose(one.log_prob, other.log_prob, atol=1e-10)
    np.testing.assert_allclose(one.log_weights, other.log_weights, atol=1e-9)


def test_memory_does_not_grow_with_the_number_of_samples(tmp_path, small_model):
    peaks = []
    for count in (20_000, 160_000):
        tracemalloc.start()
        sampling.sample(tmp_path / f"{count}.h5", small_model, count, batch=5000, progress=False)
        peaks.append(tracemalloc.get_traced_memory()[1] / 1e6)
        tracemalloc.stop()
    print(f"peak memory {peaks[0]:.1f} MB for 20,000 samples, {peaks[1]:.1f} MB for 160,000 (positions alone: {160_000 * 18 * 8 / 1e6:.0f} MB)")
    assert peaks[1] < 1.3 * peaks[0] + 1


def test_bad_input(tmp_path, small_model, system):
    for arguments, message in (
            (("samples.xtc", small_model, 10), "suffix .h5 or .dcd"), (("s.h5", small_model, 0), "at least one sample")):
        with pytest.raises(ValueError, match=message):
            sampling.sample(tmp_path / arguments[0], *arguments[1:], progress=False)
    with pytest.raises(ValueError, match="they need a System"):
        sampling.sample(tmp_path / "s.h5", small_model, 5, temperature=300, progress=False)
    bigger = openmm.System()
    with pytest.raises(ValueError, match="the System has 0 particles, the model 6"):
        sampling.sample(tmp_path / "s.h5", small_model, 5, system=bigger, progress=False)
    constrained = openmm.XmlSerializer.clone(system)
    constrained.addConstraint(0, 1, 0.15)
    with pytest.raises(ValueError, match="1 constraints, which samples do not obey"):
        sampling.sample(tmp_path / "s.h5", small_model, 5, system=constrained, progress=False)
    (tmp_path / "other.h5").write_bytes(b"not HDF5")
    with pytest.raises(ValueError, match="no file of samples of this program"):
        sampling.sample(tmp_path / "other.h5", small_model, 5, progress=False)
    assert (tmp_path / "other.h5").read_bytes() == b"not HDF5"


def test_command(tmp_path, capsys):
    system = dataset.implicit_solvent_system(dataset.alanine_dipeptide().topology)
    (tmp_path / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    arguments = ["sample", str(shipped.MODEL), "--system", str(tmp_path / "system.xml"), "--pdb", str(shipped.STRUCTURE),
                 "-o", str(tmp_path / "samples.h5"), "-q", "-n", "400"]
    assert command_line.main(arguments) == 0
    output = capsys.readouterr().out
    print(output)
    assert "400 samples, mean -ln p = " in output and "reweighted to 300 K: effective samples" in output and "free energy -ln Z" in output
    samples = sampling.read(tmp_path / "samples.h5")
    found = reweighting.quality(samples.log_weights)
    assert f"{found.free_energy:.3f}" in output
    (tmp_path / "integrator.xml").write_text(openmm.XmlSerializer.serialize(openmm.VerletIntegrator(0.001)))
    arguments[3] = str(tmp_path / "integrator.xml")
    assert command_line.main(arguments) == 1
    assert "holds a VerletIntegrator, not a System" in capsys.readouterr().err
    with h5py.File(tmp_path / "samples.h5") as file:
        assert json.loads(file["topology"][0])["chains"][0]["residues"][1]["name"] == "ALA"
