# SPDX-License-Identifier: MIT
"""``openmmflow benchmark`` and the PyTorch implementation that it measures against."""
import json
from pathlib import Path

import numpy as np
import pytest

import openmmflow
from openmmflow import command_line, model_file, shipped
from openmmflow.benchmark import conservation, models, page, scaling, speed, systems, targets, timing

torch = pytest.importorskip("torch", reason="what FlowForce is measured against needs PyTorch")


def torch_log_prob_and_gradient(architecture, tensors, positions):
    from openmmflow.benchmark.torch_flow import TorchFlow

    x = torch.tensor(positions, dtype=torch.float32, requires_grad=True)
    log_prob = TorchFlow(architecture, tensors)(x)
    gradient, = torch.autograd.grad(log_prob.sum(), x)
    return log_prob.detach().numpy(), gradient.numpy()


def relative(a, b):
    return np.sqrt(np.mean((a - b)**2) / np.mean(b**2))


def test_torch_is_the_shipped_model():
    frames = models.conformations(20)
    model = openmmflow.FlowModel.load(shipped.MODEL)
    log_prob, gradient = torch_log_prob_and_gradient(*model_file.read(shipped.MODEL), frames)
    expected, expected_gradient = model.log_prob_and_gradient(frames)
    assert np.abs(log_prob - expected).max() < 1e-2
    assert relative(gradient, expected_gradient) < 1e-3


def test_torch_is_the_published_model(published_model):
    frames = models.conformations(20)
    log_prob, gradient = torch_log_prob_and_gradient(*model_file.unpack(published_model.to_bytes()), frames)
    expected, expected_gradient = published_model.log_prob_and_gradient(frames)
    assert np.abs(log_prob - expected).max() < 1e-2
    assert relative(gradient, expected_gradient) < 1e-3


def test_torch_finds_roots(tmp_path):
    path, _ = models.make("60k", tmp_path)
    other = models.with_roots(path)
    frames = models.conformations(5)
    log_prob, gradient = torch_log_prob_and_gradient(*model_file.read(other), frames)
    expected, expected_gradient = openmmflow.FlowModel.load(other).log_prob_and_gradient(frames)
    assert np.abs(log_prob - expected).max() < 1e-2
    assert relative(gradient, expected_gradient) < 2e-3


def test_python_force_is_flow_force(tmp_path):
    """The two potentials that are timed side by side are the same one, also for several molecules."""
    path, _ = models.make("60k", tmp_path)
    positions = models.conformations(3)
    flow = systems.energy_and_forces(systems.context(systems.flow_system(path, 3), "Reference", positions))
    other = systems.energy_and_forces(systems.context(systems.torch_system(path, 3), "Reference", positions))
    assert other[0] == pytest.approx(flow[0], abs=0.1)
    assert relative(other[1], flow[1]) < 1e-3


@pytest.mark.parametrize("size, parameters", [("60k", 60e3), ("314k", 314e3), ("758k", 758e3), ("3M", 3e6)])
def test_models_have_their_sizes(size, parameters, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENMMFLOW_SHARED_DATA", raising=False)
    path, what = models.make(size, tmp_path)
    assert what == "random weights"
    assert openmmflow.FlowModel.load(path).num_parameters == pytest.approx(parameters, rel=0.05)


def test_interleaved_timing():
    calls = []
    timings = timing.interleaved({"short": lambda: sum(range(1000)), "long": lambda: calls.append(sum(range(200_000)))},
                                 seconds=0.1, rounds=5)
    assert 0 < timings["short"].wall < timings["long"].wall
    assert timings["long"].calls == len(calls) - 2    # but for warming up and finding their number
    assert timings["long"].cpu <= 1.5 * timings["long"].wall


def test_ratios_and_verdicts():
    results = speed.Results(machine={})
    results.add("PyTorch eager", "314k", 1, 1, "forces", timing.Timing(wall=9e-3, cpu=8e-3, rounds=1, calls=1))
    assert targets.table(results) == []
    results.add("FlowForce CPU", "314k", 1, 1, "forces", timing.Timing(wall=9e-5, cpu=4e-5, rounds=1, calls=1))
    row, = targets.table(results)
    assert row["ratio"] == pytest.approx(200) and row["verdict"] == "met"
    row = targets.TARGETS[0]
    assert row.verdict(50.0) == "short by a factor 2.00"


def test_exponents():
    results = speed.Results(machine={}, models={"60k": {"parameters": 60_000}, "3M": {"parameters": 3_000_000}})
    for size, seconds in (("60k", 1e-5), ("3M", 5e-4)):
        results.add("FlowForce CPU", size, 1, 1, "forces", timing.Timing(wall=seconds, cpu=seconds, rounds=1, calls=1))
    for molecules in (16, 128, 1024):
        results.add("FlowForce CPU", "60k", molecules, 2, "forces", timing.Timing(1e-6 * molecules**0.9, 1.0, 1, 1))
    exponents = {row["what"]: row["exponent"] for row in scaling.table(results)}
    assert exponents == {"FlowForce CPU, one molecule: time ∝ parameters": pytest.approx(1.0),
                         "FlowForce CPU, 2 threads, 60k: time ∝ molecules": pytest.approx(0.9)}


def test_comparison_of_fluctuations():
    random = np.random.default_rng(1)
    reference = 0.005 * (1 + 0.3 * random.normal(size=200))
    same = conservation.compare(reference * (1 + 0.02 * random.normal(size=200)), reference)
    assert same.verdict.endswith(": met.") and abs(same.ratio - 1) < 4 * same.error < 0.01
    assert conservation.compare(1.1 * reference, reference).verdict.endswith("NOT met.")
    assert "not settled" in conservation.compare(random.permutation(reference)[:5], reference[:5]).verdict


def test_performance_page_shows_the_files():
    """The figures of docs/performance.md are those of the JSON files beside it."""
    path = Path(__file__).parents[2] / "docs" / "performance.md"
    text = path.read_text(encoding="utf-8")
    assert len(page.MARK.findall(text)) == len(page.TABLES)
    assert page.render(text, page.folder_of(path)) == text
    readme = path.parents[1] / "README.md"
    assert page.render(readme.read_text(encoding="utf-8"), page.folder_of(readme)) == readme.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="nonsense"):
        page.render("<!-- figures: nonsense -->\n<!-- end -->\n", path.parent)


def test_nve_mode(tmp_path, capsys):
    assert command_line.main(["benchmark", "--mode", "nve", "--starts", "3", "--picoseconds", "0.1", "-o", str(tmp_path)]) == 0
    document = json.loads((tmp_path / "conservation.json").read_text(encoding="utf-8"))
    # For a tenth of a picosecond, trajectories are still the same.
    assert document["comparison"]["ratio"] == pytest.approx(1, abs=0.01)
    assert "Reference" in capsys.readouterr().out


def test_command(tmp_path, capsys):
    """The whole command on what is quick: it prints a table and writes JSON and plots."""
    status = command_line.main(["benchmark", "--sizes", "60k", "--molecules", "1", "2", "--threads", "1", "--seconds", "0.02",
                                "--only", "eager", "forcefield", "roots", "-o", str(tmp_path)])
    assert status == 0
    printed = capsys.readouterr().out
    assert "PyTorch eager" in printed and "force field Reference" in printed
    document = json.loads((tmp_path / "benchmark.json").read_text(encoding="utf-8"))
    assert {timing["potential"] for timing in document["timings"]} == {
        "FlowForce CPU", "FlowForce CPU, roots", "PyTorch eager", "force field CPU", "force field Reference", "no force CPU",
        "no force Reference"}
    assert all(timing["wall"] > 0 for timing in document["timings"])
    assert (tmp_path / "parameters.png").stat().st_size > 0
    assert (tmp_path / "molecules.png").stat().st_size > 0


def test_command_names_unknown_sizes(tmp_path, capsys):
    assert command_line.main(["benchmark", "--sizes", "17", "-o", str(tmp_path)]) == 1
    assert "17" in capsys.readouterr().err


def test_accuracy_mode(tmp_path, capsys):
    assert command_line.main(["benchmark", "--mode", "accuracy", "--frames", "50", "-o", str(tmp_path)]) == 0
    figures = json.loads((tmp_path / "accuracy.json").read_text(encoding="utf-8"))["figures"]
    assert figures["MD frames"]["frames"] == 50 and figures["near edges"]["frames"] == 5
    assert "met" in capsys.readouterr().out
