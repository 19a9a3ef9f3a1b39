# SPDX-License-Identifier: MIT
"""The shipped model is the certified one and its figures keep their bounds; and the machinery that makes the figures."""
import dataclasses
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from openmm import Context, Platform, VerletIntegrator, app, unit

from openmmflow import FlowModel, analysis, certify, shipped
from openmmflow.certify import command
from openmmflow.demo import force_field_molecule
from openmmflow.hashes import sha256
from openmmflow.trajectory import read_energies

from marginal_flow import write_marginal_flow

CERTIFICATION = Path(__file__).parents[2] / "docs" / "certification"
OWN_PARTS = [part for part in certify.PARTS if part not in ("published", "ensemble")]
"""What needs nothing but the model, even one whose samples have no weight in the force field."""


# --- The shipped model -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("part", sorted({bound.part for bound in certify.BOUNDS}))
def test_the_shipped_model_is_the_certified_one(part):
    document = json.loads((CERTIFICATION / f"{part}.json").read_text())
    assert document["model"]["sha256"] == sha256(shipped.MODEL), (
        f"docs/certification/{part}.json is of another model than the one that ships; run ./dev certify")
    assert document["machine"]["cpu"] and document["date"] and document["versions"]["openmm"]


@pytest.mark.parametrize("bound", certify.BOUNDS, ids=lambda bound: f"{bound.part}-{bound.figure}")
def test_the_figures_of_the_shipped_model_keep_their_bounds(bound):
    value = certify.read_parts(CERTIFICATION)[bound.part]["figures"][bound.figure]
    print(f"{bound.meaning}: {value:.6g} {bound.unit} ({bound})")
    assert bound.holds(value)


def test_the_page_shows_the_figures():
    assert CERTIFICATION.with_suffix(".md").read_text() == certify.report(CERTIFICATION)


def test_the_readme_shows_the_figures():
    readme = (CERTIFICATION.parents[1] / "README.md").read_text()
    assert certify.README_BEGIN + certify.readme_table(CERTIFICATION) + certify.README_END in readme


def test_the_bounds_are_those_of_the_project():
    """They may be tightened; loosening them needs a decision, not an edit."""
    bounds = {(bound.part, bound.figure): bound for bound in certify.BOUNDS}
    assert bounds["accuracy", "forceRmse"].at_most <= 45
    assert bounds["published", "gain"].at_least >= 0.3
    assert bounds["populations", "absoluteDifference"].at_most <= 1
    assert bounds["nve", "starts"].at_least >= 10 and bounds["nve", "length"].at_least >= 100
    assert bounds["nve", "fluctuationRatio"].at_most <= 1.3
    assert bounds["step_size", "exponent"].at_least >= 1.85 and bounds["step_size", "exponent"].at_most <= 2.15
    assert bounds["nvt", "length"].at_least >= 1000 and bounds["nvt", "basins"].at_least >= 3
    assert bounds["nvt", "smallestFractionInSupport"].at_least == 1
    assert {bound.part for bound in certify.BOUNDS} == set(certify.PARTS)
    assert bounds["data", "frames"].at_least >= 100_000 and bounds["data", "inefficiency"].at_most <= 1.2
    assert bounds["ensemble", "samples"].at_least >= 100_000 and bounds["ensemble", "effectiveFraction"].at_least >= 0.1
    assert bounds["ensemble", "basinDifference"].at_most <= 1.96
    assert bounds["long_nve", "length"].at_least >= 1000 and bounds["long_nve", "drift"].at_most <= 1e-4
    assert bounds["long_nvt", "length"].at_least >= 10_000 and bounds["long_nvt", "temperatureDeviation"].at_most <= 2
    assert bounds["long_nvt", "allFinite"].at_least >= 1


# --- The machinery, on a small scale -----------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def structure():
    return app.PDBFile(str(shipped.STRUCTURE))


@pytest.fixture(scope="module")
def model(tmp_path_factory, structure):
    positions = structure.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    bonds = [(a.index, b.index) for a, b in structure.topology.bonds()]
    return write_marginal_flow(tmp_path_factory.mktemp("model") / "marginal.safetensors", positions, bonds)


def turn(positions, origin, axis, angle, moved):
    """Positions with the particles ``moved`` turned by ``angle`` about the axis from one particle to another."""
    start, direction = positions[origin], positions[axis] - positions[origin]
    direction = direction / np.linalg.norm(direction)
    relative = positions[moved] - start
    turned = positions.copy()
    turned[moved] = start + (relative * np.cos(angle) + np.cross(direction, relative) * np.sin(angle)
                             + np.outer(relative @ direction, direction) * (1 - np.cos(angle)))
    return turned


@pytest.fixture(scope="module")
def frames(tmp_path_factory, structure):
    """A data set of 120 conformations in all basins, with Amber's energies and forces."""
    start = structure.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    molecule = force_field_molecule()
    context = Context(molecule.system, VerletIntegrator(0.001), Platform.getPlatformByName("Reference"))
    random = np.random.default_rng(1)
    targets = [(-80, 150), (-80, -20), (60, 30)] * 40
    positions, forces, energies = [], [], []
    for target in targets:
        frame = start
        # What lies beyond each axis on the side of the carboxyl group.
        for atoms, moved, degrees in ((certify.PHI, [9, *range(10, 22)], target[0]), (certify.PSI, list(range(15, 22)), target[1])):
            frame = turn(frame, atoms[1], atoms[2], np.radians(degrees) - analysis.torsion_angles(frame, atoms), moved)
            assert np.degrees(analysis.torsion_angles(frame, atoms)) == pytest.approx(degrees, abs=1e-6)
        frame = frame + 0.001 * random.standard_normal(frame.shape)
        context.setPositions(frame)
        state = context.getState(energy=True, forces=True)
        positions.append(frame)
        forces.append(state.getForces(asNumpy=True)._value)
        energies.append(state.getPotentialEnergy()._value)
    path = tmp_path_factory.mktemp("frames") / "frames.h5"
    with h5py.File(path, "w") as file:
        file["positions"], file["forces"], file["energies"] = np.array(positions), np.array(forces), np.array(energies)
        file.attrs["description"] = json.dumps({"temperature": 300.0})
    return path


SHORT = certify.Protocol(starts=2, nve_length=0.3, step_size_length=0.15, nvt_length=0.5, step_sizes=(0.5, 1.0),
                         long_nve_length=0.45, long_nvt_length=4.0, samples=400, block=10)
"""All lengths and numbers small."""


def test_accuracy_and_populations_are_what_they_are_defined_to_be(tmp_path, model, frames):
    certification = certify.Certification(model, [frames], tmp_path, held_out_fraction=0.5, protocol=SHORT)
    flow = FlowModel.load(model)
    with h5py.File(frames) as file:
        positions, forces, energies = file["positions"][:], file["forces"][:], file["energies"][:]
    kT = 0.00831446261815324 * 300

    accuracy = certification.accuracy()
    log_prob, gradient = flow.log_prob_and_gradient(positions[60:])
    assert accuracy["frames"] == 60 and accuracy["fractionInSupport"] == 1.0
    assert accuracy["forceRmse"] == pytest.approx(np.sqrt(np.mean((gradient - forces[60:] / kT) ** 2)), rel=1e-9)
    assert accuracy["negativeLogLikelihood"] == pytest.approx(-log_prob.mean(), rel=1e-12)

    populations = certification.populations()
    inside = np.arange(120) % 3 == 2
    weights = np.exp(flow.log_prob(positions) + energies / kT - (flow.log_prob(positions) + energies / kT).max())
    assert populations["framesInBasin"] == 40
    assert populations["forceField"]["freeEnergy"] == pytest.approx(np.log(2))
    assert populations["flow"]["population"] == pytest.approx(weights[inside].sum() / weights.sum(), rel=1e-9)
    assert populations["absoluteDifference"] == pytest.approx(
        abs(np.log(weights[~inside].sum() / weights[inside].sum()) - np.log(2)), rel=1e-9)


def test_runs_stop_go_on_and_are_certified(tmp_path, model, frames):
    """Stopped by the deadline, then complete; the figures are those of the files of the runs."""
    output, cache = tmp_path / "docs" / "certification", tmp_path / "runs"
    certification = certify.Certification(model, [frames], cache, held_out_fraction=1.0, protocol=SHORT)
    assert certify.certify(OWN_PARTS, certification, output, processes=2, deadline=0.0, progress=False) == [
        "nve", "step_size", "nvt", "long_nve", "long_nvt"]
    assert set(certify.read_parts(output)) == {"data", "accuracy", "populations"}
    assert certify.certify(OWN_PARTS, certification, output, processes=2, progress=False) == []
    parts = certify.read_parts(output)
    assert set(parts) == set(OWN_PARTS)
    for document in parts.values():
        assert document["model"]["sha256"] == sha256(model) and document["data"] == ["frames.h5"]

    nve = parts["nve"]["figures"]
    fluctuations = []
    for start in range(2):
        energies = read_energies(certification.cache / "nve" / "flow-1fs" / str(start) / "energies.csv")
        assert energies.until(0.3).step.tolist() == list(range(15, 301, 15))
        energies = energies.until(0.3)
        fluctuations.append(analysis.energy_conservation(energies.time, energies.total, 66).fluctuation)
    assert nve["fluctuationOfEachStart"]["flow"] == pytest.approx(fluctuations)
    assert nve["fluctuation"] == pytest.approx(np.mean(fluctuations))
    assert nve["fluctuationRatio"] == pytest.approx(nve["fluctuation"] / nve["fluctuationAmber"])
    # Both potentials are smooth: second order, as far as so short a run can tell.
    assert 1.5 < parts["step_size"]["figures"]["exponent"] < 2.5
    assert 1.5 < parts["step_size"]["figures"]["exponentAmber"] < 2.5
    nvt = parts["nvt"]["figures"]
    assert set(nvt["runs"]) == {"beta", "alphaR", "alphaL"} and nvt["runs"]["beta"]["frames"] == 5
    assert nvt["smallestFractionInSupport"] == nvt["smallestFractionInInnerSupport"] == 1.0
    assert parts["long_nve"]["figures"]["drift"] >= 0 and parts["long_nvt"]["figures"]["samples"] == 40
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{certify.README_BEGIN}old\n{certify.README_END}after\n")
    certify.update_readme(readme, output)
    assert readme.read_text() == f"before\n{certify.README_BEGIN}{certify.readme_table(output)}{certify.README_END}after\n"
    assert f"| {nve['fluctuation']:.4f} | Amber {nve['fluctuationAmber']:.4f} |" in readme.read_text()
    page = output.with_suffix(".md").read_text()
    assert page == certify.report(output) and "| NVE starts | 2  | ≥ 10 | **misses** |" in page


def test_starts_are_the_same_for_both_potentials_and_step_sizes(tmp_path, model, frames):
    certification = certify.Certification(model, [frames], tmp_path, held_out_fraction=1.0, protocol=SHORT)
    jobs = [job for job in certification.jobs("step_size") if job.start == 1]
    assert len(jobs) == 4 and len({job.starts for job in jobs}) == 1 and len({job.directory for job in jobs}) == 4
    with np.load(jobs[0].starts) as starts:
        temperatures = (force_field_molecule().system, starts["velocities"])
    masses = np.array([temperatures[0].getParticleMass(i)._value for i in range(22)])
    kinetic = 0.5 * (masses[:, None] * temperatures[1] ** 2).sum(axis=(1, 2))
    assert np.all(np.abs(kinetic * 2 / 66 / 0.00831446261815324 - 300) < 5 * 300 * np.sqrt(2 / 66))


def test_samples_of_the_shipped_model_are_worth_something(tmp_path, frames):
    protocol = dataclasses.replace(SHORT, samples=2000)
    certification = certify.Certification(shipped.MODEL, [frames], tmp_path, protocol=protocol)
    figures = certification.ensemble()
    assert figures["samples"] == 2000 and 0.1 < figures["effectiveFraction"] < 1
    assert figures["basinDifference"] == figures["state"]["standardErrors"]


def test_a_model_of_another_measure_has_no_figures(tmp_path, model, frames):
    from openmmflow import model_file

    architecture, tensors = model_file.read(model)
    model_file.write(tmp_path / "frame.safetensors", {**architecture, "measure": "frame"}, tensors)
    with pytest.raises(ValueError, match='of measure "frame"'):
        certify.Certification(tmp_path / "frame.safetensors", [frames], tmp_path).accuracy()


def test_the_command_writes_what_was_asked_for(tmp_path, model, frames, capsys):
    output = tmp_path / "certification"
    assert command.main(["--only", "accuracy", "--model", str(model), "--frames", str(frames), "--runs", str(tmp_path / "runs"),
                         "-o", str(output)]) == 0
    assert set(certify.read_parts(output)) == {"accuracy"}
    assert "force RMSE on held-out frames" in capsys.readouterr().out
