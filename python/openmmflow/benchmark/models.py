# SPDX-License-Identifier: MIT
"""The models that are measured: flows of alanine dipeptide of several sizes."""
from __future__ import annotations

import copy
import os
from pathlib import Path

import numpy as np
import openmm
from openmm import unit

from .. import builder, dataset, model_file

SIZES = {
    "60k": builder.FlowOptions(width=27, bond_rounds=2, shape_rounds=1, torsion_rounds=2),
    "314k": builder.FlowOptions(width=115, bond_rounds=2, shape_rounds=1, torsion_rounds=2),
    "758k": builder.FlowOptions(width=109, bond_rounds=4, shape_rounds=4, torsion_rounds=4),
    "3M": builder.FlowOptions(width=309, bond_rounds=4, shape_rounds=4, torsion_rounds=4),
}
"""Six couplings up to 314k parameters, as the published flow of that size has, and fourteen above."""

PUBLISHED = ("published_ala2_smooth.ckpt", "published_ala2_smooth.json")


def make(size: str, folder: Path, ready: Path | None = None) -> tuple[Path, str]:
    """Write the model of a size into ``folder``, or take the file SIZE.safetensors of the folder ``ready`` where there is one.

    Returns its path and what it is.

    314k is the published flow where OPENMMFLOW_SHARED_DATA names the folder with its checkpoint and torch is there to read it; all
    others have random weights, which cost the same.
    """
    path = folder / f"{size}.safetensors"
    if ready is not None and (ready / path.name).is_file():
        path.write_bytes((ready / path.name).read_bytes())
        return path, "a given file"
    published = published_checkpoint() if size == "314k" else None
    if published is not None:
        from ..importers.bgflow import import_checkpoint

        import_checkpoint(*published, path)
        return path, "published flow (Köhler et al. 2021)"
    frames = conformations(200)
    architecture, tensors = builder.build(dataset.alanine_dipeptide().topology, frames, temperature=300.0, options=SIZES[size])
    model_file.write(path, architecture, tensors)
    return path, "random weights"


def published_checkpoint() -> tuple[Path, Path] | None:
    """Checkpoint and spec of the published flow; None if they, or torch, are absent."""
    folder = os.environ.get("OPENMMFLOW_SHARED_DATA")
    paths = tuple(Path(folder) / name for name in PUBLISHED) if folder else ()
    if not paths or not all(path.is_file() for path in paths):
        return None
    try:
        import torch  # noqa: F401
    except ImportError:
        return None
    return paths


def with_roots(path: Path) -> Path:
    """A copy of a model whose transformers are in closed form in the other direction: its density needs roots to be found."""
    architecture, tensors = model_file.read(path)
    architecture = copy.deepcopy(architecture)
    for layer in architecture["layers"]:
        if layer["type"] == "coupling":
            layer["transformer"]["closedForm"] = "sampling"
    other = path.with_name(f"{path.stem}-roots.safetensors")
    model_file.write(other, architecture, tensors)
    return other


def conformations(count: int, *, stride: int = 20, seed: int = 1, temperature: float = 300.0) -> np.ndarray:
    """Frames (count, 22, 3) in nm of alanine dipeptide in its force field: Langevin dynamics, ``stride`` steps of 1 fs apart."""
    pdb = dataset.alanine_dipeptide()
    integrator = openmm.LangevinMiddleIntegrator(temperature, 10.0, 0.001)
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(dataset.implicit_solvent_system(pdb.topology), integrator,
                             openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(pdb.positions)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, 200)
    context.setVelocitiesToTemperature(temperature, seed)
    integrator.step(2000)
    frames = np.empty((count, pdb.topology.getNumAtoms(), 3))
    for frame in frames:
        integrator.step(stride)
        frame[:] = context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    return frames
