# SPDX-License-Identifier: MIT
"""How a model is shown: the table and the diagram say what the architecture and the tensors say."""
import re
from xml.etree import ElementTree

import numpy as np
import pytest

import openmmflow
from openmmflow import model_file, model_summary, shipped


@pytest.fixture(scope="module")
def model() -> openmmflow.FlowModel:
    return openmmflow.FlowModel.load(shipped.MODEL)


def test_table_says_what_the_file_says(model):
    architecture, tensors = model_file.unpack(model.to_bytes())
    lines = str(model).splitlines()
    assert f"{model.num_parameters:,} weights" in lines[0] and model.checksum in lines[0]
    rows = {line.split()[0]: line for line in lines[4:]}
    assert len(rows) == len(architecture["layers"]) + 1
    for index, layer in enumerate(architecture["layers"]):
        if layer["type"] == "coupling":
            first, last = (tensors[f"layers.{index}.networks.0.{number}.weight"].shape for number in (0, 2))
            weights = sum(tensor.size for name, tensor in tensors.items() if name.startswith(f"layers.{index}."))
            assert f"{first[1]}-{first[0]}-{last[1]}-{last[0]}" in rows[str(index)] and f" {weights:,} " in rows[str(index)]
            kinds = [("bonds", 0, 21), ("angles", 21, 41), ("torsions", 41, 60)]
            for name, begin, end in kinds:
                changed = sum(begin <= i < end for i in layer["transformed"])
                assert not changed or f"{changed} {name}" in rows[str(index)]


def test_domains_follow_the_layers():
    """Of each kind of layer that changes them."""
    architecture = {
        "numParticles": 5,
        "layers": [{"type": "mixedCoordinates", "block": [0, 1, 2], "blockDimensions": 3, "zMatrix": [[3, 0, 1, 2], [4, 3, 0, 1]]},
                   {"type": "marginal", "distribution": "normal", "coordinates": [0, 1]},
                   {"type": "permutation", "order": [4, 1, 2, 3, 0, 5, 6, 7, 8]},
                   {"type": "logit", "coordinates": [1]},
                   {"type": "logistic", "coordinates": [6]},
                   {"type": "coupling", "transformed": [1], "conditionedOn": [0], "transformer": {"type": "affine", "closedForm": "density"}}],
        "base": [{"distribution": "normal", "coordinates": [1]}]}
    tensors = {"layers.5.networks.0.0.weight": np.zeros((7, 2)), "layers.5.networks.0.0.bias": np.zeros(7),
               "layers.5.networks.0.1.weight": np.zeros((2, 7)), "layers.5.networks.0.1.bias": np.zeros(2)}
    stages = model_summary.stages(architecture, tensors)
    real, circle, interval = "real", "circle", "interval"
    assert [stage.domains for stage in stages[:5]] == [
        [real] * 4 + [circle] * 2 + [real] * 3,
        [interval] * 2 + [real] * 2 + [circle] * 2 + [real] * 3,
        [circle, interval, real, real, interval, circle, real, real, real],
        [circle, real, real, real, interval, circle, real, real, real],
        [circle, real, real, real, interval, circle, interval, real, real]]
    assert stages[2].kinds[0] == "torsion" and stages[2].changed == [0, 4]
    assert stages[5].networks == [[2, 7, 2]] and stages[5].weights == 37 and stages[5].read == [0]


def test_diagram_is_self_contained(model):
    text = model._repr_html_()
    assert "<script" not in text and "href" not in text and model.checksum in text
    svg = ElementTree.fromstring(re.search(r"<svg.*</svg>", text)[0].replace('xmlns="http://www.w3.org/2000/svg"', ""))
    layers = len(model.architecture["layers"])
    strips = {}
    for cell in svg.iter("rect"):
        if cell.find("title") is not None:
            strips.setdefault(cell.get("y"), []).append((float(cell.get("x")), float(cell.get("width"))))
    assert len(strips) == layers + 1
    for cells in strips.values():
        assert sum(width for _, width in cells) == pytest.approx(420, abs=0.1)
        assert all(a[0] + a[1] == pytest.approx(b[0], abs=0.02) for a, b in zip(cells, cells[1:]))
