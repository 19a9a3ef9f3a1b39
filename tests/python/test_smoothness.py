# SPDX-License-Identifier: MIT
"""Which models are smooth enough for dynamics, and who says so: the model, `openmmflow check`, and FlowForce once in a process."""
import math
import subprocess
import sys

import numpy as np
import pytest

from openmmflow import FlowModel, check, model_file
from random_architecture import TRANSFORMERS, RandomArchitecture
from random_flow import conformations, random_flow

DERIVATIVES = {"rationalQuadraticSpline": 1, "cubicBSpline": 2, "affine": math.inf, "moebius": math.inf, "analytic": math.inf}

DYNAMICS = """
import sys
import numpy as np, openmm
from openmmflow import FlowForce, FlowModel, check
for path in sys.argv[2:]:
    system = check.molecule_system(FlowModel.load(path))
    for _ in range(2):
        context = openmm.Context(system, integrator := openmm.VerletIntegrator(0.0001), openmm.Platform.getPlatform("Reference"))
        context.setPositions(np.load(sys.argv[1])[0])
        context.getState(energy=True, forces=True)
        print("energy", file=sys.stderr)
        integrator.step(2)
        print("steps", file=sys.stderr)
"""


def spline_flow(bins=3):
    """random_flow with rational-quadratic splines in place of its smooth mixtures."""
    architecture, tensors = random_flow()
    random = np.random.default_rng(1)
    circles = set(range(2 * architecture["numParticles"] - 3, 3 * architecture["numParticles"] - 6))
    for index, layer in enumerate(architecture["layers"]):
        if layer["type"] == "coupling":
            layer["transformer"] = {"type": "rationalQuadraticSpline", "closedForm": "density", "bins": bins, "minimumWidth": 0.1,
                                    "minimumHeight": 0.1, "minimumSlope": 0.2, "slopeSharpness": 1.0}
            outputs = 3 * bins * len(layer["transformed"]) + len(set(layer["transformed"]) - circles)
            name = f"layers.{index}.networks.0.1"
            tensors[f"{name}.weight"] = 0.1 * random.normal(size=(outputs, tensors[f"{name}.weight"].shape[1]))
            tensors[f"{name}.bias"] = 0.3 * random.normal(size=outputs)
    return architecture | {"version": 2}, tensors


@pytest.fixture(scope="module")
def spline_model():
    return FlowModel.from_bytes(model_file.pack(*spline_flow()))


@pytest.mark.parametrize("transformer", ["smoothMixture", *TRANSFORMERS])
def test_derivatives(transformer):
    drawn = RandomArchitecture(1)
    if transformer != "affine":    # which is of what no marginal maps to an interval
        drawn.add_marginals()
    drawn.add_coupling("smoothMixture")
    drawn.add_coupling(transformer)
    model = FlowModel.from_bytes(model_file.pack(*drawn.model()))
    assert model.num_continuous_derivatives == DERIVATIVES.get(transformer, math.inf)


def test_splines_fail_the_check(spline_model):
    certificate = check.check(spline_model, starts=3, length=0.2, frames=4, step_size=0.5, masses=[12.0] * 6)
    print(certificate.table())
    assert not certificate.passed
    assert "smoothness" in {figure.check for figure in certificate.figures if not figure.holds}


def test_flow_force_warns_once_in_dynamics(spline_model, small_model, tmp_path):
    spline_model.save(tmp_path / "spline.safetensors")
    small_model.save(tmp_path / "smooth.safetensors")
    np.save(tmp_path / "positions.npy", conformations(count=1))

    def errors(*names):
        command = [sys.executable, "-c", DYNAMICS, str(tmp_path / "positions.npy"), *(str(tmp_path / f"{name}.safetensors") for name in names)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stderr.splitlines()

    found = errors("smooth", "spline", "spline")
    marks = [line for line in found if line in ("energy", "steps")]
    assert marks == ["energy", "steps"] * 6
    warnings = [index for index, line in enumerate(found) if "warning" in line]
    assert len(warnings) == 1 and "rationalQuadraticSpline" in found[warnings[0]]
    assert found[warnings[0] - 1] == "energy" and found[:warnings[0]].count("energy") == 3, "at the first step of the first spline"
