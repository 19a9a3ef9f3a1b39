# SPDX-License-Identifier: MIT
"""Dynamics in folders: what is written, that it resumes bit by bit, and what is refused."""
import json
import shutil
import subprocess
import sys

import mdtraj
import numpy as np
import openmm
import pytest
from openmm import app, unit

from openmmflow import FlowModel, analysis, plots, shipped, trajectory
from openmmflow.demo import force_field_molecule
from openmmflow.simulate import bonds_disagree, flow_molecule, simulate
from openmmflow.stored_run import Settings, SimulationError, StoredRun, discard, maxwell_velocities

from marginal_flow import write_marginal_flow

PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def structure():
    return app.PDBFile(str(shipped.STRUCTURE))


@pytest.fixture(scope="module")
def model(tmp_path_factory, structure):
    positions = structure.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    bonds = [(a.index, b.index) for a, b in structure.topology.bonds()]
    return write_marginal_flow(tmp_path_factory.mktemp("model") / "marginal.safetensors", positions, bonds)


@pytest.fixture
def molecule(model):
    return flow_molecule(model, shipped.STRUCTURE)


def thermal_start(molecule, seed=1):
    velocities = maxwell_velocities(molecule.system, 300.0, np.random.default_rng(seed))
    return lambda: (molecule.positions, velocities)


def stored_run(directory, molecule, settings, **description):
    return StoredRun(directory, molecule.topology, molecule.system, settings, description={"name": "A", **description},
                     start=thermal_start(molecule))


# --- What a run writes -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("ensemble", ["nvt", "nve"])
def test_a_run_writes_what_it_promises(tmp_path, molecule, ensemble):
    settings = Settings(ensemble=ensemble, report_interval=20, trajectory_interval=50)
    assert simulate(tmp_path / "run", molecule, settings, 1010, equilibration_steps=200, progress=False)
    energies = trajectory.read_energies(tmp_path / "run" / "energies.csv")
    assert energies.step.tolist() == list(range(20, 1001, 20))
    assert np.allclose(energies.time, energies.step * 1e-3)
    assert np.allclose(energies.total, energies.potential + energies.kinetic)
    assert 100 < energies.temperature.mean() < 600
    frames = mdtraj.load_dcd(str(tmp_path / "run" / "trajectory.dcd"), top=mdtraj.Topology.from_openmm(molecule.topology))
    assert frames.n_frames == 20
    assert np.allclose(frames.xyz, trajectory.read_positions(tmp_path / "run" / "trajectory.dcd"), atol=1e-6)
    stored = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert stored["settings"]["ensemble"] == ensemble and stored["description"]["potential"] == "flow"
    for name in ("energies.png", "ramachandran.png"):
        assert (tmp_path / "run" / name).read_bytes().startswith(PNG)


def test_the_potential_energy_is_that_of_the_density(tmp_path, model, molecule):
    settings = Settings(report_interval=10, trajectory_interval=10)
    with stored_run(tmp_path / "run", molecule, settings) as run:
        run.advance(200, progress=False)
        log_prob = FlowModel.load(model).log_prob(run.positions())
        kT = unit.MOLAR_GAS_CONSTANT_R.value_in_unit(unit.kilojoule_per_mole / unit.kelvin) * 300.0
        # Frames are stored in single precision; bonds of 0.004 nm width make some 1e-3 k_BT of it.
        assert np.allclose(run.energies().potential, -kT * log_prob, atol=0.05)


def test_velocity_verlet_has_the_energies_of_the_leapfrog_runs(tmp_path):
    """The kinetic energy of a VerletIntegrator's State belongs to the same instant as its potential energy."""
    molecule = force_field_molecule()
    settings = Settings(ensemble="nve", report_interval=1, trajectory_interval=1000)
    with stored_run(tmp_path / "run", molecule, settings) as run:
        run.advance(200, progress=False)
        leapfrog = run.energies()
    integrator = openmm.CustomIntegrator(0.001)
    integrator.addUpdateContextState()
    integrator.addComputePerDof("v", "v+0.5*dt*f/m")
    integrator.addComputePerDof("x", "x+dt*v")
    integrator.addComputePerDof("v", "v+0.5*dt*f/m")
    context = openmm.Context(molecule.system, integrator, openmm.Platform.getPlatformByName("Reference"))
    positions, velocities = thermal_start(molecule)()
    context.setPositions(positions)
    context.setVelocities(velocities)
    total = []
    for _ in range(200):
        integrator.step(1)
        state = context.getState(energy=True)
        total.append((state.getKineticEnergy() + state.getPotentialEnergy())._value)
    assert np.allclose(leapfrog.total, total, atol=1e-8)
    # Not a shifted one: half a step makes a hundred times the fluctuation.
    assert leapfrog.total.std() < 1.0


def test_an_interruption_before_the_first_report_leaves_files_with_headers(tmp_path, molecule):
    settings = Settings(ensemble="nve", report_interval=10, trajectory_interval=40)
    with stored_run(tmp_path / "run", molecule, settings) as run:
        run.advance(4, progress=False)
    with stored_run(tmp_path / "run", molecule, settings) as run:
        assert run.first_step == 4
        run.advance(30, progress=False)
    with stored_run(tmp_path / "run", molecule, settings) as run:
        run.advance(80, progress=False)
        assert run.energies().step.tolist() == list(range(10, 81, 10))
        assert len(run.positions()) == 2


# --- Resuming ----------------------------------------------------------------------------------------------------------------

# One Context in a process: the Reference platform has one random number generator for all.
SCRIPT = """
import os, sys
from test_simulate import *
model, directory, ensemble, steps, kill_at = sys.argv[1:]
molecule = flow_molecule(model, shipped.STRUCTURE)
settings = Settings(ensemble=ensemble, report_interval=10, trajectory_interval=30, seed=7)
run = stored_run(directory, molecule, settings)
if int(kill_at):
    run.advance(int(kill_at), progress=False)
    run.simulation.step(75)    # beyond the last checkpoint, in the middle of a report interval
    os.kill(os.getpid(), 9)
run.advance(int(steps), progress=False)
run.close()
"""


def in_a_process(model, directory, ensemble, steps, kill_at=0):
    command = [sys.executable, "-c", SCRIPT, str(model), str(directory), ensemble, str(steps), str(kill_at)]
    result = subprocess.run(command, cwd=__file__.rsplit("/", 1)[0], capture_output=True, text=True)
    assert result.returncode == (-9 if kill_at else 0), result.stderr


@pytest.mark.parametrize("ensemble", ["nvt", "nve"])
def test_a_killed_run_goes_on_bit_by_bit(tmp_path, model, ensemble):
    in_a_process(model, tmp_path / "whole", ensemble, 400)
    for kill_at in (5, 105, 222):
        in_a_process(model, tmp_path / "killed", ensemble, 400, kill_at=kill_at)
    in_a_process(model, tmp_path / "killed", ensemble, 400)
    for name in ("energies.csv", "checkpoint.bin"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    killed, whole = ((tmp_path / name / "trajectory.dcd").read_bytes() for name in ("killed", "whole"))
    # The header's second record holds the time of day at which the file was begun.
    assert len(killed) == len(whole) and killed[:100] == whole[:100] and killed[268:] == whole[268:]


def test_a_finished_run_can_be_prolonged(tmp_path, molecule):
    settings = Settings(ensemble="nve", report_interval=10, trajectory_interval=30)
    for steps in (100, 100, 250):
        assert simulate(tmp_path / "run", molecule, settings, steps, equilibration_steps=50, progress=False)
    assert trajectory.read_energies(tmp_path / "run" / "energies.csv").step.tolist() == list(range(10, 251, 10))


def test_a_stopped_run_says_so_and_goes_on(tmp_path, molecule):
    settings = Settings(report_interval=10, trajectory_interval=30)
    asked = iter([False, False, False, True])
    assert not simulate(tmp_path / "run", molecule, settings, 100, equilibration_steps=50, progress=False, stop=lambda: next(asked))
    with StoredRun(tmp_path / "run", molecule.topology, molecule.system, settings, start=lambda: pytest.fail("began anew"),
                   description={**molecule.description, "equilibrationSteps": 50}) as run:
        assert run.first_step == 30


# --- What is refused ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("change, message", [
    ({"step_size": 0.5}, r"settings.step_size is 1.0 there and 0.5 now"),
    ({"ensemble": "nve"}, r'settings.ensemble is "nvt" there and "nve" now'),
    ({"temperature": 310.0, "seed": 2}, r"settings.seed is 1 there and 2 now; settings.temperature is 300.0 there and 310.0 now"),
])
def test_other_settings_are_refused(tmp_path, molecule, change, message):
    stored_run(tmp_path / "run", molecule, Settings()).close()
    with pytest.raises(SimulationError, match=message):
        stored_run(tmp_path / "run", molecule, Settings(**change))


def test_another_potential_is_refused(tmp_path, model, molecule):
    stored_run(tmp_path / "run", molecule, Settings()).close()
    scaled = flow_molecule(model, shipped.STRUCTURE, scale=0.5)
    with pytest.raises(SimulationError, match="the System .* is another one"):
        stored_run(tmp_path / "run", scaled, Settings())
    with pytest.raises(SimulationError, match='description.name is "A" there and "B" now'):
        stored_run(tmp_path / "run", molecule, Settings(), name="B")


def test_damaged_folders_are_refused(tmp_path, molecule):
    settings = Settings(ensemble="nve", report_interval=10, trajectory_interval=10)
    with stored_run(tmp_path / "whole", molecule, settings) as run:
        run.advance(100, progress=False)

    def damaged(name, content):
        directory = tmp_path / f"damaged-{name}"
        shutil.copytree(tmp_path / "whole", directory)
        if content is None:
            (directory / name).unlink()
        else:
            (directory / name).write_bytes(content)
        return directory

    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    for name, content, message in (
            ("trajectory.dcd", whole["trajectory.dcd"][:-100], "holds 9 frames, its checkpoint expects 10"),
            ("energies.csv", b"\n".join(whole["energies.csv"].split(b"\n")[:5]) + b"\n", "holds 4 lines of data, its checkpoint expects 10"),
            ("trajectory.dcd", b"no trajectory", "is not a DCD file"),
            ("checkpoint.bin", whole["checkpoint.bin"][:40], "checkpoint.bin cannot be loaded"),
            ("settings.json", b"{", "settings.json cannot be read"),
            ("settings.json", None, "but no settings.json")):
        directory = damaged(name, content)
        with pytest.raises(SimulationError, match=message):
            stored_run(directory, molecule, settings)
        shutil.rmtree(directory)


def test_discard_deletes_a_run_and_nothing_else(tmp_path, molecule):
    stored_run(tmp_path / "run", molecule, Settings()).close()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    discard(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]
    discard(tmp_path / "run")
    (tmp_path / "energies.csv").write_text("of something else")
    discard(tmp_path)
    assert (tmp_path / "energies.csv").exists()


@pytest.mark.parametrize("wrong, message", [
    ({"ensemble": "npt"}, "ensemble must be one of nvt, nve"),
    ({"step_size": 0.0}, "step_size must be positive"),
    ({"temperature": -1.0}, "temperature must be positive"),
    ({"temperature": float("nan")}, "temperature must be positive"),
    ({"friction": -1.0}, "friction must not be negative"),
    ({"report_interval": 0}, "report_interval must be at least 1"),
    ({"seed": 0}, "seed must be between"),
])
def test_senseless_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Settings(**wrong)


def test_unknown_platforms_and_precisions_are_refused(tmp_path, molecule):
    with pytest.raises(SimulationError, match="OpenMM has no platform 'Quantum'; it has .*Reference"):
        stored_run(tmp_path / "run", molecule, Settings(platform="Quantum"))
    with pytest.raises(SimulationError, match="no choice of precision"):
        stored_run(tmp_path / "run", molecule, Settings(precision="double"))
    assert not (tmp_path / "run").exists()


def test_structures_that_are_not_of_the_model_are_refused(tmp_path, model):
    lines = shipped.STRUCTURE.read_text().splitlines(keepends=True)
    atoms = [line for line in lines if line.startswith(("ATOM", "HETATM"))]

    def pdb(name, atoms):
        (tmp_path / name).write_text("".join(atoms) + "END\n")
        return tmp_path / name

    with pytest.raises(SimulationError, match="has 21 atoms, the model is of 22 particles"):
        flow_molecule(model, pdb("short.pdb", atoms[:-1]))
    with pytest.raises(SimulationError, match="there is no file"):
        flow_molecule(model, tmp_path / "missing.pdb")
    with pytest.raises(SimulationError, match="is no PDB file: it has no ATOM or HETATM records"):
        flow_molecule(model, model)
    ours = flow_molecule(model, shipped.STRUCTURE)
    assert bonds_disagree(FlowModel.load(model), ours.topology) == ""
    swapped = flow_molecule(model, pdb("swapped.pdb", [atoms[1], atoms[0], *atoms[2:]]))
    assert "bonds that the model has not" in bonds_disagree(FlowModel.load(model), swapped.topology)


# --- Figures -----------------------------------------------------------------------------------------------------------------

def test_energy_conservation_recovers_trend_and_noise():
    time = np.arange(20_000) * 0.01
    noise = np.random.default_rng(1).standard_normal(len(time))
    found = analysis.energy_conservation(time, 5.0 - 0.3 * time + 2.0 * noise, 66)
    assert found.drift == pytest.approx(0.3 / 66, rel=0.01)
    assert found.fluctuation == pytest.approx(2.0 / 66, rel=0.02)
    with pytest.raises(ValueError, match="not finite"):
        analysis.energy_conservation(time, np.where(time > 100, np.nan, 1.0), 66)


def test_degrees_of_freedom():
    system = force_field_molecule().system
    assert analysis.degrees_of_freedom(system) == 66
    system.addConstraint(0, 1, 0.1)
    assert analysis.degrees_of_freedom(system) == 65
    system.addParticle(0.0)
    assert analysis.degrees_of_freedom(system) == 65


def test_step_size_exponent_of_a_power_law():
    sizes = np.array([0.25, 0.5, 1.0])
    noise = 1 + 0.05 * np.random.default_rng(2).standard_normal((10, 3))
    exponent, error = analysis.step_size_exponent(sizes, 0.01 * sizes ** 2 * noise)
    assert exponent == pytest.approx(2.0, abs=4 * error) and 0.001 < error < 0.05


def test_torsions_are_those_of_mdtraj(structure):
    positions = structure.getPositions(asNumpy=True)._value + 0.01 * np.random.default_rng(3).standard_normal((50, 22, 3))
    frames = mdtraj.Trajectory(positions, mdtraj.Topology.from_openmm(structure.topology))
    (phi, psi), = analysis.backbone_torsions(structure.topology)
    assert np.allclose(analysis.torsion_angles(positions, phi), mdtraj.compute_phi(frames, periodic=False)[1][:, 0], atol=1e-5)
    assert np.allclose(analysis.torsion_angles(positions, psi), mdtraj.compute_psi(frames, periodic=False)[1][:, 0], atol=1e-5)


def test_basin_free_energies_of_a_known_process():
    """A two-state chain with known populations: the value, its error, and the shift by known weights."""
    random = np.random.default_rng(4)
    found = []
    for _ in range(40):
        # Leaves the basin with 0.04 and enters with 0.01: population 0.2, correlation time 20 frames.
        states, state = np.empty(20_000, dtype=bool), False
        for frame, draw in enumerate(random.random(len(states))):
            state = draw >= 0.04 if state else draw < 0.01
            states[frame] = state
        found.append(analysis.basin_free_energy([states[:12_000], states[12_000:]], block=500))
    values = np.array([f.free_energy for f in found])
    assert values.mean() == pytest.approx(np.log(4), abs=3 * values.std() / np.sqrt(len(values)) + 0.005)
    assert np.mean([f.error for f in found]) == pytest.approx(values.std(), rel=0.4)
    weights = [np.where(states, 1.5, 0.0)]
    shift, _ = analysis.basin_shift([states], weights)
    assert shift == pytest.approx(-1.5, abs=1e-12)
    with pytest.raises(ValueError, match="in the basin and outside"):
        analysis.basin_free_energy([np.zeros(100, dtype=bool)])


def test_measures_differ_by_the_frame(structure, model, tmp_path):
    """The conversion of ln p to measure "frame" is what the model itself computes in that measure."""
    from openmmflow import model_file

    architecture, tensors = model_file.read(model)
    model_file.write(tmp_path / "frame.safetensors", {**architecture, "measure": "frame"}, tensors)
    positions = structure.getPositions(asNumpy=True)._value + 0.002 * np.random.default_rng(5).standard_normal((20, 22, 3))
    cartesian, frame = (FlowModel.load(path).log_prob(positions) for path in (model, tmp_path / "frame.safetensors"))
    assert np.isfinite(cartesian).all()
    frame_atoms = [row[0] for row in sorted(architecture["layers"][0]["zMatrix"], key=lambda row: -row.count(-1))[:3]]
    assert np.allclose(frame - cartesian, analysis.log_frame_over_cartesian(positions, frame_atoms), atol=1e-10)


def test_inner_support_is_where_both_energies_agree():
    inside = analysis.in_inner_support(np.array([-200.0, -200.0, 5.0]), np.array([200.0 + 1e-9, 199.999, -np.inf]))
    assert inside.tolist() == [True, False, False]


def test_plots_are_pictures_of_their_series(tmp_path):
    random = np.random.default_rng(6)
    angles = random.uniform(-np.pi, np.pi, (2, 300))
    figure = plots.ramachandran({"one": angles, "two": angles})
    assert [axis.get_title().split("\n") for axis in figure.axes] == [["one", "300 frames"], ["two", "300 frames"]]
    plots.save(figure, tmp_path / "map.png")
    assert [path.name for path in tmp_path.iterdir()] == ["map.png"]
    assert (tmp_path / "map.png").read_bytes().startswith(PNG)
