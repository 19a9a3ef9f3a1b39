# SPDX-License-Identifier: MIT
"""The example of a flow that was trained in vacuum as one part of a solvated system, in short form."""
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs PyTorch")
pytest.importorskip("openmmflow_training", exc_type=ImportError, reason="the training component is not installed")


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples"))
    import solvated_flow

    yield solvated_flow
    del sys.modules["solvated_flow"]


def test_solvated_flow(example, tmp_path):
    data = example.make_data(tmp_path / "vacuum.h5", frames=700, replicas=1, highest_temperature=300.0, steps_per_frame=20, equilibration_frames=20,
                             progress=False)
    model = example.train(data, tmp_path / "vacuum.safetensors", steps=30, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)    # trained in vacuum: nothing counts twice
        results = example.compare(model, picoseconds=0.2, box=2.1, equilibration=0.05, interval=5)
    example.plot(tmp_path / "solvated_flow.png", results)
    assert (tmp_path / "solvated_flow.png").stat().st_size > 10_000
    for name, result in results.items():
        print(f"\n{name}: energy of the molecule {result['energy'].mean():.0f} ± {result['energy'].std():.0f} kJ/mol, "
              f"g(r) up to {result['g'].max():.1f}")
        assert np.isfinite(result["energy"]).all() and 0.5 < result["g"].max() < 6
        # No water closer than 0.2 nm, and bulk far out.
        assert result["g"][result["distance"] < 0.2].sum() == 0
        assert abs(result["g"][-15:].mean() - 1) < 0.3
    # So short a training knows the molecule roughly.
    assert abs(results["flow in water"]["energy"].mean() - results["force field"]["energy"].mean()) < 150
