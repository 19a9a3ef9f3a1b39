# SPDX-License-Identifier: MIT
"""The notebooks run from the first cell to the last, in short form, and are stored without output."""
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat reads notebooks")
nbclient = pytest.importorskip("nbclient", reason="nbclient runs notebooks")

FOLDER = Path(__file__).parents[2] / "examples" / "notebooks"
# Parameters of the short form, and what must be printed.
SHORT = {
    "from_zero_to_dynamics": ({"NVT_STEPS": 3000, "NVE_STEPS": 1000, "SAMPLES": 500}, ["Support Exits", "fluctuation 0.00"]),
    "import_and_check": ({"STARTS": 1, "LENGTH": 0.5}, ["activation", "ln p (frame) - ln p (cartesian)", "passed: model"]),
    "reweighting": ({"SAMPLES": 3000, "MOVES": 100}, ["effective samples", "replica exchange: 3.64", "acceptance"]),
    "solvated": ({"FRAMES": 300, "TRAINING_STEPS": 10, "DYNAMICS_STEPS": 20, "PADDING": 0.5}, ["FlowForce", "change when the water moves"]),
}


def test_all_are_here():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(SHORT)


@pytest.mark.parametrize("name", SHORT)
def test_notebook_runs(name):
    if name in ("import_and_check", "solvated"):
        pytest.importorskip("torch", reason="bgflow's checkpoints and training are PyTorch's")
    if name == "solvated":
        pytest.importorskip("openmmflow_training", reason="the notebook trains a flow")
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    assert not [cell for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")], "clear all outputs before you commit"
    parameters, expected = SHORT[name]
    index, = (i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ()))
    assert all(f"{key} = " in notebook.cells[index].source for key in parameters)
    notebook.cells.insert(index + 1, nbformat.v4.new_code_cell("\n".join(f"{key} = {value}" for key, value in parameters.items())))
    # Plots are drawn without a screen, and the kernel is the Python of the test.
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}).execute()
    text = "\n".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    for words in expected:
        assert words in text, text
    pictures = [output for cell in notebook.cells for output in cell.get("outputs", ()) if "image/png" in output.get("data", ())]
    assert len(pictures) == (0 if name == "solvated" else 1)
    if name == "solvated":
        before, after = (float(number) for number in text.split("when the water moves: ")[1].split(" kJ/mol")[0].split(" and "))
        assert before == pytest.approx(after, abs=0.02)
