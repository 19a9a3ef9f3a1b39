# SPDX-License-Identifier: MIT
"""`openmmflow check`: a smooth model passes, one that no time step resolves fails, and each figure answers to what it measures."""
import html
import json
import re

import numpy as np
import pytest

from openmmflow import FlowModel, analysis, check, check_report, command_line, model_file
from random_flow import random_flow

SHORT = {"starts": 3, "length": 0.5, "frames": 6, "step_size": 0.5, "masses": [12.0] * 6}


def steep(architecture, tensors):
    """The flow with components so narrow that a femtosecond steps over them, though not beyond what single precision resolves."""
    for layer in architecture["layers"]:
        if layer["type"] == "coupling":
            layer["transformer"].update(alphaRange=20.0, logSteepnessBound=2.0, minimumFloor=1e-3)
    return architecture, {name: tensor * (1.2 if "networks" in name else 1.0) for name, tensor in tensors.items()}


def figures(certificate, check_name):
    return [figure for figure in certificate.figures if figure.check == check_name]


def test_a_smooth_model_passes(small_model, tmp_path):
    certificate = check.check(small_model, **SHORT)
    print(certificate.table())
    assert certificate.passed
    page, document = check_report.write(certificate, tmp_path / "page", "a smooth model")
    text = page.read_text()
    assert "<h1>a smooth model: passed</h1>" in text and "FAIL" not in text and small_model.checksum in text
    assert text.count("data:image/png;base64,") == 3 and "<svg" in text and not re.search("<script|(?:src|href)=['\"]?http", text)
    for figure in certificate.figures:
        assert f"<td>{figure.value:.3g}</td>" in text and f"<td>{html.escape(figure.meaning)}</td>" in text
    written = json.loads(document.read_text())
    assert written["passed"] and len(written["figures"]) == len(certificate.figures) >= 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "page.json"]


def test_a_model_that_no_step_resolves_fails(tmp_path, capsys):
    path = tmp_path / "steep.safetensors"
    model_file.write(path, *steep(*random_flow()))
    assert command_line.main(["check", str(path), "-o", str(tmp_path / "steep.html"), "--starts", "3", "--length", "0.5", "-q"]) == 1
    output = capsys.readouterr().out
    print(output)
    assert "FAILED" in output
    found = json.loads((tmp_path / "steep.json").read_text())["figures"]
    failed = {figure["check"] for figure in found if not figure["holds"]}
    assert failed == {"conservation"}, "it is a smooth function all the same: only dynamics shows that no step resolves it"
    page = (tmp_path / "steep.html").read_text()
    assert "steep.safetensors: FAILED</h1>" in page and "<p class=bad>" in page and page.count("<tr class=bad>") == len(
        [figure for figure in found if not figure["holds"]])
    # Said before minutes of checks.
    assert command_line.main(["check", str(path), "-o", str(tmp_path / "steep.pdf")]) == 1
    assert "expected a name that ends in .html" in capsys.readouterr().err


def test_a_model_in_mixed_coordinates():
    """A block in Cartesians and particles placed from it, on every platform; the block's particles are walked, too."""
    pytest.importorskip("torch", reason="random architectures are made with PyTorch")
    from random_architecture import RandomArchitecture

    drawn = RandomArchitecture(3, 6, measure="cartesian", block=4, count=40)
    drawn.add_coupling("affine")
    drawn.add_coupling("moebius")
    architecture, tensors = drawn.model()
    for name in tensors:
        if name.startswith("base") and name.endswith(".std"):
            tensors[name] = 0.2 * tensors[name]    # far from edges
    certificate = check.check(FlowModel.from_bytes(model_file.pack(architecture, tensors)), **SHORT)
    print(certificate.table())
    assert certificate.passed
    assert [figure.value for figure in figures(certificate, "smoothness")] == [np.inf]


def test_a_kink_is_seen():
    """The measure of continuity is small for a cubic that begins at 0, and of order 1 where the second derivative jumps."""
    assert check._jump(lambda t: max(t - 0.1, 0) ** 2, 0.1) < 1e-3
    assert check._jump(lambda t: max(t - 0.1, 0), 0.1) > 0.3


def test_walks_move_one_coordinate(small_model, small_positions):
    architecture = small_model.architecture
    rows = [row for row in architecture["layers"][0]["zMatrix"] if row[3] >= 0]
    walks = list(check._walks(small_model, small_positions[0]))
    assert [kind for kind, _, _ in walks] == ["bond", "angle", "torsion"] * len(rows)

    def coordinates(x):
        bonds = [np.linalg.norm(x[i] - x[j]) for i, j, _, _ in rows]
        angles = [np.arccos((x[i] - x[j]) @ (x[k] - x[j]) / np.linalg.norm(x[i] - x[j]) / np.linalg.norm(x[k] - x[j]))
                  for i, j, k, _ in rows]
        return {"bond": bonds, "angle": angles, "torsion": [analysis.torsion_angles(x, row) for row in rows]}

    before = coordinates(small_positions[0])
    for index, (kind, _, walk) in enumerate(walks):
        t = {"bond": 0.16, "angle": 1.7, "torsion": 0.4}[kind]
        positions, velocity = walk(t)
        after = coordinates(positions)
        assert after[kind][index // 3] == pytest.approx(t, abs=1e-9)
        for other in before:
            unmoved = [n for n in range(len(rows)) if (other, n) != (kind, index // 3)]
            assert np.allclose(np.array(after[other])[unmoved], np.array(before[other])[unmoved], atol=1e-9), (kind, other)
        h = 1e-6
        assert np.allclose(velocity, (walk(t + h)[0] - walk(t - h)[0]) / (2 * h), atol=1e-8)


def test_masses_come_from_the_bonds_or_from_the_user(small_model):
    system = check.molecule_system(small_model)
    assert [system.getParticleMass(i)._value for i in range(6)] == [1.008] + [12.011] * 4 + [1.008]
    system = check.molecule_system(small_model, range(1, 7))
    assert [system.getParticleMass(i)._value for i in range(6)] == [1, 2, 3, 4, 5, 6]


def test_a_model_outside_of_its_own_support_is_refused():
    """Nearly all of the density lies at the lower edges of bonds and angles."""
    architecture, tensors = random_flow()
    real = [coordinate for layer in architecture["layers"] if layer["type"] == "marginal" for coordinate in layer["coordinates"]]
    circles = [coordinate for coordinate in architecture["base"][0]["coordinates"] if coordinate not in real]
    architecture["base"] = [{"distribution": "truncatedNormal", "coordinates": real},
                            {"distribution": "uniform", "coordinates": circles}]
    tensors |= {"base.0.mean": np.zeros(len(real)), "base.0.std": np.full(len(real), 1e-4)}
    for name in tensors:
        if name.startswith("layers") and name.endswith(".std"):
            tensors[name] = tensors[name] * 1e3    # marginals that are nearly uniform
    with pytest.raises(ValueError, match="margins of its own support"):
        check.samples_inside(FlowModel.from_bytes(model_file.pack(architecture, tensors)), 10, 1)
    assert len(check.samples_inside(FlowModel.from_bytes(model_file.pack(*random_flow())), 10, 1)) == 10
