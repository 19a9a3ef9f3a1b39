# SPDX-License-Identifier: MIT
"""Flows built from a topology: Z-matrix, coordinates, marginals, initial weights."""
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies

import openmmflow
from openmmflow import builder, dataset, model_file
from reference_flow import ReferenceFlow


def wiggled(positions, count, spread, seed=0):
    """Conformations near one: every particle moved a little at random."""
    random = np.random.default_rng(seed)
    return np.asarray(positions) + random.normal(0, spread, (count, *np.shape(positions)))


@pytest.fixture(scope="module")
def alanine_dipeptide():
    return dataset.alanine_dipeptide()


@pytest.fixture(scope="module")
def conformations(alanine_dipeptide):
    return wiggled(alanine_dipeptide.getPositions(asNumpy=True)._value, 400, 0.007)


@strategies.composite
def trees(draw):
    """Bonds of molecules without rings, of 3 to 30 particles in any order."""
    size = draw(strategies.integers(3, 30))
    order = draw(strategies.permutations(range(size)))
    return [(order[i], order[draw(strategies.integers(0, i - 1))]) for i in range(1, size)], size


@settings(max_examples=60, deadline=None)
@given(trees())
def test_z_matrix_places_every_particle_by_its_bonds(tree):
    bonds, size = tree
    rows = builder.make_z_matrix(bonds, size)
    assert sorted(row[0] for row in rows) == list(range(size))
    connected = {frozenset(bond) for bond in bonds}
    placed = set()
    for row in rows:
        references = [atom for atom in row[1:] if atom >= 0]
        assert len(references) == min(len(placed), 3)
        assert len(set(row[:1] + references)) == len(references) + 1
        assert placed.issuperset(references)
        if references:
            assert frozenset(row[:2]) in connected
        if len(references) > 1:
            assert frozenset(row[1:3]) in connected
        placed.add(row[0])


def test_z_matrix_of_a_ring():
    rows = builder.make_z_matrix([(i, (i + 1) % 6) for i in range(6)], 6)
    assert sorted(row[0] for row in rows) == list(range(6))


def test_coordinates_agree_with_mdtraj(alanine_dipeptide, conformations):
    mdtraj = pytest.importorskip("mdtraj")
    bonds = [(bond[0].index, bond[1].index) for bond in alanine_dipeptide.topology.bonds()]
    rows = builder.make_z_matrix(bonds, 22)
    coordinates = builder.internal_coordinates(conformations, rows)
    trajectory = mdtraj.Trajectory(conformations, mdtraj.Topology.from_openmm(alanine_dipeptide.topology))
    full = [row for row in rows if -1 not in row]
    assert np.allclose(coordinates[:, 2:21], mdtraj.compute_distances(trajectory, [row[:2] for row in full]), atol=1e-6)
    assert np.allclose(coordinates[:, 22:41] * np.pi, mdtraj.compute_angles(trajectory, [row[:3] for row in full]), atol=1e-5)
    torsions = mdtraj.compute_dihedrals(trajectory, full)
    assert np.allclose(np.cos(coordinates[:, 41:] * 2 * np.pi - np.pi - torsions), 1, atol=1e-8)


def test_built_flow_is_a_model_near_the_marginals(alanine_dipeptide, conformations):
    architecture, tensors = builder.build(alanine_dipeptide.topology, conformations, temperature=300.0)
    model = openmmflow.FlowModel.from_bytes(model_file.pack(architecture, tensors))
    assert model.num_particles == 22
    assert builder.num_weights(tensors) < 1_000_000
    assert np.isfinite(model.log_prob(conformations)).all()
    latent = ReferenceFlow(architecture, tensors).to_latent(torch.from_numpy(conformations))[0].numpy()
    # The latents of a flow with the right marginals are uniform: mean 1/2 and variance 1/12 on intervals, no direction on circles.
    bonds_and_angles, torsions = latent[:, :41], latent[:, 41:]
    assert np.abs(bonds_and_angles.mean(axis=0) - 0.5).max() < 0.05
    assert np.abs(bonds_and_angles.var(axis=0) * 12 - 1).max() < 0.4

    def concentration(circle):
        return np.abs(np.exp(2j * np.pi * circle).mean(axis=0))
    before = concentration(builder.internal_coordinates(conformations, architecture["layers"][0]["zMatrix"])[:, 41:])
    assert before.min() > 0.9
    assert concentration(torsions).max() < 0.2


def test_built_flow_is_the_same_for_the_same_seed(alanine_dipeptide, conformations):
    first, second = (model_file.pack(*builder.build(alanine_dipeptide.topology, conformations, temperature=300.0, seed=3))
                     for _ in range(2))
    assert first == second
    assert first != model_file.pack(*builder.build(alanine_dipeptide.topology, conformations, temperature=300.0, seed=4))


@pytest.mark.parametrize("particles", [3, 4, 5])
def test_smallest_molecules(particles):
    chain = np.array([[0.1 * i, 0.05 * (i % 2), 0.03 * (i % 3)] for i in range(particles)])
    positions = wiggled(chain, 300, 0.002)
    architecture, tensors = builder.build([(i, i + 1) for i in range(particles - 1)], positions, temperature=350.0)
    expected = ReferenceFlow(architecture, tensors).log_prob_and_gradient(positions)
    model = openmmflow.FlowModel.from_bytes(model_file.pack(architecture, tensors))
    log_prob, gradient = model.log_prob_and_gradient(positions)
    assert np.abs(log_prob - expected[0]).max() < 1e-9
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("exponent", [1, 2])
@pytest.mark.parametrize("components", [1, 3, 8, 20])
def test_every_head_has_finite_initial_weights(alanine_dipeptide, conformations, exponent, components):
    options = builder.FlowOptions(width=4, exponent=exponent, components=components)
    _, tensors = builder.build(alanine_dipeptide.topology, conformations, temperature=300.0, options=options)
    assert all(np.isfinite(tensor).all() for tensor in tensors.values())


@pytest.mark.parametrize("options, message", [
    ({"width": 0}, "at least 1"), ({"exponent": 3}, "1 or 2"), ({"alpha_range": 0.0}, "positive"), ({"minimum_floor": 1.0}, "between 0 and 1")])
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        builder.FlowOptions(**options)


@pytest.mark.parametrize("bonds, message", [
    ([(0, 1), (1, 2)], "do not connect all 4 particles"),
    ([(0, 1), (1, 2), (2, 7)], r"bond \(2, 7\)"),
    ([(0, 0), (1, 2), (2, 3)], r"bond \(0, 0\)"),
])
def test_bad_bonds(bonds, message):
    with pytest.raises(ValueError, match=message):
        builder.build(bonds, np.random.default_rng(0).normal(size=(200, 4, 3)), temperature=300.0)


def test_bad_positions(alanine_dipeptide, conformations):
    with pytest.raises(ValueError, match="the topology has 22 atoms, the positions have 21"):
        builder.build(alanine_dipeptide.topology, conformations[:, :21], temperature=300.0)
    with pytest.raises(ValueError, match=r"shape \(frames, particles, 3\)"):
        builder.build(alanine_dipeptide.topology, conformations[0], temperature=300.0)
    with pytest.raises(ValueError, match="at least 100"):
        builder.build(alanine_dipeptide.topology, conformations[:50], temperature=300.0)
    with pytest.raises(ValueError, match="finite"):
        builder.build(alanine_dipeptide.topology, np.where(conformations > 0.2, np.nan, conformations), temperature=300.0)


def test_linear_molecules_are_refused():
    positions = wiggled([[0, 0, 0], [0.1, 0, 0], [0.2, 0, 0], [0.2, 0.1, 0]], 300, 0.001)
    with pytest.raises(ValueError, match="linear angles"):
        builder.build([(0, 1), (1, 2), (2, 3)], positions, temperature=300.0)
