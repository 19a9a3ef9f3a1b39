# SPDX-License-Identifier: MIT
"""What the trainer reads: trajectories, forces, topologies, several molecules, constraints; and what it says about bad data."""
import json
import shutil
import warnings

import harmonic_molecule as harmonic
import numpy as np
import openmm
import pytest
from harmonic_molecule import SMALL, write_dataset
from openmm import XmlSerializer, app, unit

import openmmflow
from openmmflow import builder, dataset, model_file, molecules

torch = pytest.importorskip("torch", reason="training needs PyTorch")
pytest.importorskip("openmmflow_training", exc_type=ImportError, reason="the training component is not installed")

from openmmflow_training import FlowModule, TrainingConfig, train  # noqa: E402
from openmmflow_training.__main__ import main  # noqa: E402
from openmmflow_training.data import MOLAR_GAS_CONSTANT, DataWarning, Frames, cyclic_symmetries, read_data  # noqa: E402
from openmmflow_training.losses import evaluate, free_part  # noqa: E402

QUICK = {"batch": 32, "flow": SMALL, "validate_seconds": 1e9, "threads": 1, "report": False}


@pytest.fixture(scope="module")
def frames(harmonic_molecule):
    """Positions (nm) and forces (kJ/mol/nm) of the data."""
    import h5py

    with h5py.File(harmonic_molecule[1][0]) as file:
        return file["positions"][:], file["forces"][:]


@pytest.fixture(scope="module")
def trajectory(harmonic_molecule, frames):
    mdtraj = pytest.importorskip("mdtraj")
    return mdtraj.Trajectory(frames[0], mdtraj.Topology.from_openmm(harmonic_molecule[0]))


# --- trajectories and forces ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("suffix", [".dcd", ".h5", ".nc", ".xtc", ".pdb"])
def test_trajectories(suffix, trajectory, frames, harmonic_molecule, tmp_path):
    """Forces are recomputed from the System at the positions that the file has; formats that round are warned of."""
    topology, _, system = harmonic_molecule
    if suffix == ".h5":
        pytest.importorskip("tables", reason="MDTraj reads its HDF5 files with PyTables")
    trajectory[:200].save(str(tmp_path / f"run{suffix}"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (read,), description, _ = read_data([tmp_path / f"run{suffix}"], topology, system=system, temperature=300.0)
    rounded = suffix in (".xtc", ".pdb")
    assert any(issubclass(w.category, DataWarning) and "rounds positions" in str(w.message) for w in caught) == rounded
    assert description["temperature"] == 300.0
    assert np.abs(read.positions.numpy() - frames[0][:200]).max() < (6e-4 if rounded else 1e-6)
    forces = read.forces.numpy() * MOLAR_GAS_CONSTANT * 300.0
    assert np.abs(forces - frames[1][:200]).max() < (120.0 if rounded else 0.2)


def test_forces_from_npz(trajectory, frames, harmonic_molecule, tmp_path):
    topology, _, _ = harmonic_molecule
    trajectory.save(str(tmp_path / "run.dcd"))

    def read(**arrays):
        np.savez(tmp_path / "forces.npz", **arrays)
        return read_data([tmp_path / "run.dcd"], topology, forces=[tmp_path / "forces.npz"], temperature=300.0)[0][0].forces.numpy()

    expected = frames[1] / (MOLAR_GAS_CONSTANT * 300.0)
    assert np.allclose(read(forces=frames[1], units="kJ/mol/nm"), expected)
    assert np.allclose(read(forces=frames[1] / 41.84, units="kcal/mol/A"), expected)
    with pytest.raises(ValueError, match="does not say in which units its forces are"):
        read(forces=frames[1])
    with pytest.raises(ValueError, match="known units are kJ/mol/nm"):
        read(forces=frames[1], units="N")
    with pytest.raises(ValueError, match="no array `forces`"):
        read(f=frames[1], units="kJ/mol/nm")
    with pytest.raises(ValueError, match=r"forces of shape \(10, 4, 3\)"):
        read(forces=frames[1][:10], units="kJ/mol/nm")
    with pytest.raises(ValueError, match="give one for each"):
        read_data([tmp_path / "run.dcd"], topology, forces=[1, 2], temperature=300.0)
    with pytest.raises(ValueError, match="has no forces"):
        read_data([tmp_path / "run.dcd"], topology, temperature=300.0)
    with pytest.raises(ValueError, match="at which temperature"):
        read_data([tmp_path / "run.dcd"], topology)
    (tmp_path / "README.md").write_text("No trajectory.")
    with pytest.raises(ValueError, match="README.md is neither a data set of openmmflow nor a trajectory: MDTraj reads .*.dcd"):
        read_data([tmp_path / "README.md"], topology)
    with pytest.raises(ValueError, match="there is no file .*missing.dcd"):
        read_data([tmp_path / "missing.dcd"], topology)


# --- bad frames ----------------------------------------------------------------------------------------------------------------

def test_frames_that_are_not_finite(frames, harmonic_molecule, tmp_path):
    positions, forces = (values.copy() for values in frames)
    positions[3, 1, 2], forces[70, 0, 0] = np.nan, np.inf
    path = write_dataset(tmp_path / "data.h5", positions, forces)
    with pytest.warns(DataWarning, match="data.h5: 2 of 2000 frames have positions or forces that are not finite and are left out"):
        (read,), _, _ = read_data([path], harmonic_molecule[0])
    assert len(read) == 1998 and np.array_equal(read.positions[3].numpy(), frames[0][4])
    positions[:100] = np.nan
    path = write_dataset(tmp_path / "worse.h5", positions, forces)
    with pytest.raises(ValueError, match="100 of 2000 frames have positions or forces that are not finite: the simulation has exploded"):
        read_data([path], harmonic_molecule[0])


def test_overlapping_and_linear_frames(frames, harmonic_molecule, tmp_path):
    positions, forces = frames[0].copy(), frames[1]
    positions[5, 2] = positions[5, 1] + 0.001                              # overlap
    positions[6, 2] = 2 * positions[6, 1] - positions[6, 0]                # a linear angle
    path = write_dataset(tmp_path / "data.h5", positions, forces)
    with pytest.warns(DataWarning, match="2 of 2000 frames have overlapping or collinear atoms and are left out"):
        (read,), _, _ = read_data([path], harmonic_molecule[0])
    assert len(read) == 1998
    positions[:, 2] = 2 * positions[:, 1] - positions[:, 0]
    path = write_dataset(tmp_path / "worse.h5", positions, forces)
    with pytest.raises(ValueError, match="give another Z-matrix, without angles that become linear"):
        read_data([path], harmonic_molecule[0])


def test_atoms_in_another_order(trajectory, tmp_path):
    pdb = dataset.alanine_dipeptide()
    positions = pdb.getPositions(asNumpy=True)._value + np.random.default_rng(0).normal(0, 0.002, (120, 22, 3))
    path = write_dataset(tmp_path / "data.h5", positions[:, ::-1], positions)
    with pytest.raises(ValueError, match="median length of .* Are the atoms in the order of the topology"):
        read_data([path], pdb.topology)
    mdtraj = pytest.importorskip("mdtraj")
    other = mdtraj.Trajectory(positions, mdtraj.Topology.from_openmm(pdb.topology))
    other.topology.atom(0).element = mdtraj.element.nitrogen
    other.save(str(tmp_path / "other.pdb"))
    with pytest.warns(DataWarning, match="rounds"), pytest.raises(ValueError, match="atom 0 is N there and H in the topology: the atoms are in another"):
        read_data([tmp_path / "other.pdb"], pdb.topology, system=dataset.implicit_solvent_system(pdb.topology), temperature=300.0)
    with pytest.raises(ValueError, match="frames of 22 atoms, the topology has 4"):
        read_data([path], harmonic.topology())


def test_too_few_frames(frames, harmonic_molecule, tmp_path):
    path = write_dataset(tmp_path / "data.h5", frames[0][:100], frames[1][:100])
    with pytest.raises(ValueError, match="85 training and 5 validation frames do not suffice .* at least 100 are needed"):
        train(harmonic_molecule[0], [path], tmp_path / "m.safetensors", TrainingConfig(steps=1, **QUICK), progress=False)


# --- several molecules -----------------------------------------------------------------------------------------------------------

def test_all_copies_of_a_molecule_are_trained_on(tmp_path):
    topology, system = harmonic.topology(copies=3), harmonic.system(copies=3)
    path = write_dataset(tmp_path / "three.h5", *harmonic.simulate(system, frames=80))
    (read,), _, molecule = read_data([path], topology)
    assert len(read) == 240 and molecule.getNumAtoms() == 4 and molecule.getNumBonds() == 3
    import h5py

    with h5py.File(path) as file:
        assert np.array_equal(read.positions[4].numpy(), file["positions"][1, 4:8])
        assert np.allclose(read.forces[5].numpy() * MOLAR_GAS_CONSTANT * 300, file["forces"][1, 8:])
    output = train(topology, [path], tmp_path / "m.safetensors", TrainingConfig(steps=2, **QUICK), progress=False)
    force = openmmflow.FlowForce(str(output))
    for copy in range(3):
        force.addMolecule(range(4 * copy, 4 * copy + 4))
    assert openmmflow.FlowModel.load(str(output)).num_particles == 4


def test_molecules_of_different_kinds():
    topology = harmonic.topology(copies=2)
    residue = topology.addResidue("ION", topology.addChain())
    topology.addAtom("NA", app.element.sodium, residue)
    with pytest.raises(ValueError, match="molecules of 2 kinds: 2 of 4 atoms with atom 0 .MOL., 1 of 1 atoms with atom 8 .ION."):
        molecules.copies(topology)
    assert molecules.copies(topology, 5) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(ValueError, match="there is no atom 9"):
        molecules.copies(topology, 9)


def test_molecules_are_made_whole():
    box = np.tile(np.array([[1.0, 0, 0], [0.3, 1.1, 0], [-0.2, 0.4, 1.2]]), (5, 1, 1))
    random = np.random.default_rng(0)
    positions = harmonic.START + random.normal(0, 0.01, (5, 4, 3))
    torn = positions + np.einsum("fai,fij->faj", random.integers(-2, 3, (5, 4, 3)), box)
    whole = molecules.whole(torn, [(0, 1), (1, 2), (2, 3)], box)
    assert np.allclose(whole - whole[:, :1], positions - positions[:, :1], atol=1e-12)


# --- constraints -----------------------------------------------------------------------------------------------------------------

def test_constrained_bonds_are_left_out_and_recorded(tmp_path):
    """Bond 1-2 is constrained: found in the data, constant in the density, part of the model, and kept in dynamics."""
    system = harmonic.system(constraints=[(1, 2)])
    path = write_dataset(tmp_path / "data.h5", *harmonic.simulate(system))
    topology = harmonic.topology()
    config = TrainingConfig(steps=150, **{**QUICK, "batch": 64}, learning_rate=1e-2, ema=0.95)
    output = train(topology, [path], tmp_path / "m.safetensors", config, progress=False)
    model = openmmflow.FlowModel.load(str(output))
    (i, j, distance), = model.constraints
    expected = np.linalg.norm(harmonic.START[1] - harmonic.START[2])
    assert (i, j) == (1, 2) and distance == pytest.approx(expected, abs=1e-5)

    constant, = builder.constrained_coordinates(model.constraints, model.architecture["layers"][0]["zMatrix"])
    couplings = [layer for layer in model.architecture["layers"] if layer["type"] == "coupling"]
    assert couplings and not any(constant in layer["transformed"] + layer["conditionedOn"] for layer in couplings)
    (data,), _, _ = read_data([path], topology)
    held_out = data[-200:]
    assert np.isfinite(model.log_prob(held_out.positions.numpy())).all()
    untrained = FlowModule(builder.build(topology, data.positions.numpy(), temperature=300.0, options=SMALL))
    before, after = evaluate(untrained, held_out), evaluate(FlowModule(output), held_out)
    print(f"before {before}, after {after}")
    assert after["nll"] < before["nll"] - 0.3 and after["force_rmse"] < 0.9 * before["force_rmse"]

    flow_system = openmm.System()
    for _ in range(4):
        flow_system.addParticle(12.0)
    flow_system.addForce(openmmflow.FlowForce(model))
    with pytest.raises(openmm.OpenMMException, match="constrain"):
        openmm.Context(flow_system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    flow_system.addConstraint(1, 2, distance)
    integrator = openmm.LangevinMiddleIntegrator(300, 5.0, 0.001)
    integrator.setRandomNumberSeed(1)
    context = openmm.Context(flow_system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(held_out.positions[0].numpy())
    lengths, energies = [], []
    for _ in range(50):
        integrator.step(20)
        state = context.getState(positions=True, energy=True)
        x = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        lengths.append(np.linalg.norm(x[1] - x[2]))
        energies.append(-state.getPotentialEnergy()._value / (MOLAR_GAS_CONSTANT * 300) - model.log_prob(x))
    assert np.ptp(lengths) < 1e-5 and np.abs(energies).max() < 1e-6    # all of it inside of the support


def test_forces_along_constraints_do_not_count():
    random = np.random.default_rng(0)
    x, v = (torch.from_numpy(random.normal(size=(7, 4, 3))) for _ in range(2))
    free = free_part(v, x, [[0, 1, 0.1], [1, 2, 0.1]])
    for i, j in ((0, 1), (1, 2)):
        assert ((free[:, i] - free[:, j]) * (x[:, i] - x[:, j])).sum(-1).abs().max() < 1e-12
    along = torch.zeros_like(v)
    along[:, 0], along[:, 1] = 3 * (x[:, 0] - x[:, 1]), -3 * (x[:, 0] - x[:, 1])
    assert (free_part(v + along, x, [[0, 1, 0.1], [1, 2, 0.1]]) - free).abs().max() < 1e-12
    assert free_part(v, x, []) is v


def test_rigid_water_has_constant_angle():
    positions = np.array([[0, 0, 0], [0.09572, 0, 0], [-0.023999, 0.092663, 0]]) + np.random.default_rng(0).normal(0, 1, (150, 1, 3))
    rows = [[1, -1, -1, -1], [0, 1, -1, -1], [2, 0, 1, -1]]
    found = builder.find_constraints(positions, [(0, 1), (0, 2)], rows)
    assert [c[:2] for c in found] == [(0, 1), (0, 2), (1, 2)]
    assert builder.constrained_coordinates(found, rows) == {0, 1, 2}


def test_constraints_that_are_no_coordinates_are_refused():
    random = np.random.default_rng(0)
    square = np.array([[0, 0, 0], [0.15, 0, 0], [0.15, 0.15, 0], [0, 0.15, 0]])
    ring = [(0, 1), (1, 2), (2, 3), (0, 3)]
    positions = square + random.normal(0, 1e-5, (200, 4, 3))
    with pytest.raises(ValueError, match="constrained, but it is no coordinate of the Z-matrix"):
        builder.build(ring, positions, temperature=300.0)


# --- Z-matrix, command line ------------------------------------------------------------------------------------------------------

def test_z_matrix_of_the_user(frames, harmonic_molecule, tmp_path):
    topology, paths, _ = harmonic_molecule
    rows = [[3, -1, -1, -1], [2, 3, -1, -1], [1, 2, 3, -1], [0, 1, 2, 3]]
    output = train(topology, paths, tmp_path / "m.safetensors", TrainingConfig(steps=2, **QUICK), z_matrix=rows, progress=False)
    assert model_file.read(output)[0]["layers"][0]["zMatrix"] == rows
    for wrong, message in (([[0, 1, 2, 3]], "one row .* for each of the 4 particles"), (rows[:3] + [[0, 1, 2, 0]], "cannot be placed"),
                           (rows[:2] + [[1, 2, 3, 0], [0, 1, 2, 3]], "one row each with three"), ("abcd", "is a list of rows")):
        with pytest.raises(ValueError, match=message):
            builder.build(topology, frames[0], temperature=300.0, z_matrix=wrong)


def test_toml_file_and_flags(harmonic_molecule, frames, tmp_path, capsys):
    topology, paths, system = harmonic_molecule
    with open(tmp_path / "molecule.pdb", "w") as file:
        app.PDBFile.writeFile(topology, frames[0][0] * unit.nanometer, file)
    shutil.copy(paths[0], tmp_path / "data.h5")
    (tmp_path / "system.xml").write_text(XmlSerializer.serialize(system))
    (tmp_path / "run.toml").write_text("""
topology = "molecule.pdb"
data = "data.h5"
output = "m.safetensors"
system = "system.xml"
steps = 4
batch = 32
optimizer = "adamw"
weight_decay = 1e-4
decay = "step"
precision = "float64"
force_weight = [[0.0, 0.0], [0.5, 2e-3]]
reverse_weight = 0.1
reverse_batch = 8
environment = "vacuum"
[flow]
width = 8
depth = 1
""")
    main(["-c", str(tmp_path / "run.toml"), "--steps", "3", "--reverse-start", "0.5"])
    architecture, tensors = model_file.read(tmp_path / "m.safetensors")
    data = architecture["data"]
    settings = data["training"]
    assert (settings["steps"], settings["optimizer"], settings["decay"], settings["flow"]["width"]) == (3, "adamw", "step", 8)
    assert settings["force_weight"] == [[0.0, 0.0], [0.5, 2e-3]] and settings["reverse_start"] == 0.5
    assert data["environment"] == "vacuum" and data["command"].startswith("openmmflow train -c run.toml")
    assert all(t.dtype == np.float64 for t in tensors.values())
    report = (tmp_path / "m.html").read_text()
    assert report.count("data:image/png;base64,") == 5 and "reverse_kl" not in report.split("<h2>")[0]
    records = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert {"reverse_kl", "effective_samples"} == set(records[0]["samples"])

    # The checkpoint is of a run with these settings.
    with pytest.raises(SystemExit):
        main(["-c", str(tmp_path / "run.toml"), "--steps", "5", "--reverse-start", "0.5", "--learning-rate", "0.1"])
    assert "learning_rate is 0.003 there and 0.1 now" in capsys.readouterr().err
    (tmp_path / "wrong.toml").write_text("stepz = 3\n[flow]\ndepht = 1\n")
    with pytest.raises(SystemExit):
        main(["-c", str(tmp_path / "wrong.toml")])
    assert "there is no setting stepz, flow.depht" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--steps", "3"])
    assert "training needs topology and data and output" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(tmp_path / "none.pdb"), "data.h5", "-o", "m", "--steps", "3"])
    assert "there is no file" in capsys.readouterr().err


@pytest.mark.parametrize("options, message", [
    ({"optimizer": "sgd"}, "optimizer must be one of adam, adamw"),
    ({"precision": "half"}, "precision must be one of"),
    ({"decay": "linear"}, "decay must be one of"),
    ({"likelihood_weight": "0:1, 0.5:0, 1:0", "force_weight": 0}, "all weights of losses are 0 when 50.0% of the run"),
    ({"force_weight": "a"}, "no schedule"),
])
def test_bad_settings(options, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(steps=10, **options)


def test_learning_rates():
    from openmmflow_training.schedules import learning_rate

    def rates(decay):
        return [learning_rate(p, highest=2.0, final=0.001, warm_up=0.1, decay=decay) for p in (0.05, 0.1, 0.55, 0.8, 0.95, 1.0)]

    assert rates("constant") == [1.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    assert rates("step") == pytest.approx([1.0, 2.0, 0.2, 0.02, 0.002, 0.002])
    assert rates("cosine")[1:3] == pytest.approx([2.0, 1.001]) and rates("cosine")[-1] == pytest.approx(0.002)
