# SPDX-License-Identifier: MIT
"""Subsets of particles: topology, data set, and a flow of them in dynamics."""
import json

import h5py
import numpy as np
import openmm
import pytest

from openmmflow import FlowForce, FlowModel, builder, coarse_graining, dataset, model_file


@pytest.fixture(scope="module")
def pdb():
    return dataset.alanine_dipeptide()


def test_heavy_atoms(pdb):
    heavy = coarse_graining.heavy_atoms(pdb.topology)
    topology = coarse_graining.subset_topology(pdb.topology, heavy)
    names = [atom.name for atom in pdb.topology.atoms()]
    assert [atom.name for atom in topology.atoms()] == [names[i] for i in heavy] and len(heavy) == 10
    assert topology.getNumBonds() == 9 and topology.getNumResidues() == 3
    kept = {frozenset((heavy[a.index], heavy[b.index])) for a, b in topology.bonds()}
    assert kept <= {frozenset((a.index, b.index)) for a, b in pdb.topology.bonds()}


def test_subset_dataset_and_a_flow_of_it(tmp_path, pdb):
    random = np.random.default_rng(1)
    heavy = coarse_graining.heavy_atoms(pdb.topology)
    base = np.array(pdb.positions._value)
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file["positions"] = base + 0.002 * random.standard_normal((150, 22, 3))
        file["forces"] = random.standard_normal((149, 22, 3))     # one frame fewer: the file may be growing
        file["energies"] = random.standard_normal(150)
        file.attrs["description"] = json.dumps({"temperature": 300.0})
    path = coarse_graining.subset_dataset(tmp_path / "all.h5", tmp_path / "heavy.h5", heavy[::-1])
    with h5py.File(path) as file, h5py.File(tmp_path / "all.h5") as whole:
        np.testing.assert_array_equal(file["positions"][:], whole["positions"][:149][:, heavy])
        np.testing.assert_array_equal(file["forces"][:], whole["forces"][:][:, heavy])
        assert json.loads(file.attrs["description"])["particles"] == heavy
        positions = file["positions"][:]
    topology = coarse_graining.subset_topology(pdb.topology, heavy)
    contents = builder.build(topology, positions, temperature=300.0, options=builder.FlowOptions(width=8, depth=1, components=3))
    model = FlowModel.from_bytes(model_file.pack(*contents))
    system = openmm.System()
    for atom in topology.atoms():
        system.addParticle(atom.element.mass)
    system.addForce(FlowForce(model))
    integrator = openmm.LangevinMiddleIntegrator(300, 10, 0.001)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions[0])
    integrator.step(200)
    assert np.isfinite(context.getState(energy=True).getPotentialEnergy()._value)


def test_torsion_free_energy():
    phi = np.random.default_rng(1).normal(1.0, 0.4, 100_000)
    values, centres = coarse_graining.torsion_free_energy(phi)
    near = np.abs(centres - np.degrees(1.0)) < 60
    expected = 0.5 * ((np.radians(centres[near]) - 1.0) / 0.4) ** 2
    assert np.abs(values[near] - values[near].min() - expected + expected.min()).max() < 0.1
    assert np.isnan(values).any() and np.nanmin(values) == 0


def test_bad_input(tmp_path, pdb):
    with pytest.raises(ValueError, match="the bonds connect"):
        coarse_graining.subset_topology(pdb.topology, [4, 6, 14, 16])
    with pytest.raises(ValueError, match="three different particles from 0 to 21"):
        coarse_graining.subset_topology(pdb.topology, [1, 2, 40])
