# SPDX-License-Identifier: MIT
"""The demonstration, shortened: its table, its plots, and that it can be repeated."""
import json

import numpy as np
import pytest
from openmm import app, unit

from openmmflow import shipped
from openmmflow.command_line import INTERRUPTED, main
from openmmflow.demo import FORCE_FIELD, demo
from openmmflow.trajectory import read_energies, read_positions

from marginal_flow import write_marginal_flow


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    structure = app.PDBFile(str(shipped.STRUCTURE))
    positions = structure.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    bonds = [(a.index, b.index) for a, b in structure.topology.bonds()]
    return write_marginal_flow(tmp_path_factory.mktemp("model") / "marginal.safetensors", positions, bonds)


def test_the_demonstration_prints_its_table_and_writes_its_plots(tmp_path, model, capsys):
    command = ["demo", "--model", str(model), "-o", str(tmp_path / "demo"), "--nvt-steps", "1000", "--nve-steps", "500"]
    assert main(command) == 0
    captured = capsys.readouterr()
    rows = {line[:48].strip(): line[48:].split() for line in captured.out.splitlines() if line.startswith((" " * 40, "speed", "NV"))}
    results = json.loads((tmp_path / "demo" / "results.json").read_text())
    assert list(results) == ["flow", FORCE_FIELD]
    for column, name in enumerate(results):
        result = results[name]
        assert result["steps_per_second"] > 50
        assert result["nanoseconds_per_day"] == pytest.approx(result["steps_per_second"] * 1e-6 * 86400)
        assert float(rows["NVT  mean temperature, K"][column]) == pytest.approx(result["nvt_temperature"], abs=0.06)
        assert 200 < result["nvt_temperature"] < 400
        # The NVE figures are those of the files, by the definition.
        nve = read_energies(tmp_path / "demo" / name.split()[0] / "nve" / "energies.csv")
        slope, intercept = np.polyfit(nve.time, nve.total, 1)
        assert result["nve_fluctuation"] == pytest.approx(np.std(nve.total - slope * nve.time - intercept) / 66, rel=1e-6)
        assert result["nve_drift"] == pytest.approx(abs(slope) / 66, rel=1e-6)
        # Torsions of the test's flow are free, so its conformations are no good start for the force field.
        assert 1e-5 < result["nve_fluctuation"] < (0.05 if name == "flow" else np.inf)
        assert len(read_positions(tmp_path / "demo" / name.split()[0] / "nvt" / "trajectory.dcd")) == 10
    assert "NVT: 100%" in captured.err and "NVE: 100%" in captured.err    # the progress bars
    for plot in ("ramachandran.png", "energy_conservation.png"):
        assert (tmp_path / "demo" / plot).read_bytes().startswith(b"\x89PNG")
        assert plot in captured.out
    # Again: it starts anew, and with the same seed.
    assert main([*command, "--quiet"]) == 0
    again = json.loads((tmp_path / "demo" / "results.json").read_text())
    assert again["flow"]["nvt_potential_energy"] == pytest.approx(results["flow"]["nvt_potential_energy"], abs=50)


def test_an_interrupted_demonstration_writes_no_table(tmp_path, model):
    calls = iter(range(1000))
    assert demo(tmp_path, model=model, nvt_steps=1000, nve_steps=100, progress=False, stop=lambda: next(calls) > 3) is None
    assert not list(tmp_path.glob("*.png")) and not (tmp_path / "results.json").exists()
    assert INTERRUPTED == 130
