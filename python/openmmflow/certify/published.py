# SPDX-License-Identifier: MIT
"""The published flow, where somebody has its checkpoint: it is not part of the project."""
from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from dataclasses import dataclass
from typing import Optional

import numpy as np
from openmm import app

import openmmflow

from ..importers.bgflow import import_checkpoint

CHECKPOINT, SPECIFICATION, STRUCTURE = "published_ala2_smooth.ckpt", "published_ala2_smooth.json", "alanine_dipeptide.pdb"


@dataclass(frozen=True)
class PublishedFlow:
    """The published flow, and the order of atoms that it knows."""

    model: openmmflow.FlowModel
    structure: app.PDBFile

    def log_prob(self, positions, topology) -> np.ndarray:
        """ln p (frames,) in the measure of the checkpoint for positions (frames, particles, 3) in nm in the order of ``topology``."""
        order = equivalent_atoms(self.structure, topology, positions[0])
        return self.model.log_prob(np.ascontiguousarray(positions[:, order]))


def published_flow() -> Optional[PublishedFlow]:
    """From the folder that the environment variable OPENMMFLOW_SHARED_DATA names, else from ../shared/data; None where it is not."""
    folder = Path(os.environ.get("OPENMMFLOW_SHARED_DATA", "../shared/data"))
    if not (folder / CHECKPOINT).exists():
        return None
    with tempfile.TemporaryDirectory() as temporary:
        target = Path(temporary) / "published.safetensors"
        import_checkpoint(folder / CHECKPOINT, json.loads((folder / SPECIFICATION).read_text()), target)
        return PublishedFlow(openmmflow.FlowModel.load(target), app.PDBFile(str(folder / STRUCTURE)))


def equivalent_atoms(structure: app.PDBFile, topology: app.Topology, positions) -> list[int]:
    """For every atom of ``structure`` the index of the same atom in ``topology``, by residue and name.

    The names of the three hydrogens of a methyl group do not say in which sense they go round, and dynamics keeps it: where
    ``positions`` (particles, 3) of ``topology`` go round the other way, two of them change places.
    """
    index = {(atom.residue.index, atom.name): atom.index for atom in topology.atoms()}
    order = [index[atom.residue.index, atom.name] for atom in structure.topology.atoms()]
    reference = structure.getPositions(asNumpy=True)._value
    neighbours = {}
    for first, second in structure.topology.bonds():
        neighbours.setdefault(first, []).append(second)
        neighbours.setdefault(second, []).append(first)
    for atom, bonded in neighbours.items():
        hydrogens = sorted(a.index for a in bonded if a.element.symbol == "H")
        if len(hydrogens) == 3:
            if _handedness(reference[[atom.index, *hydrogens]]) != _handedness(positions[[order[i] for i in (atom.index, *hydrogens)]]):
                second, third = hydrogens[1:]
                order[second], order[third] = order[third], order[second]
    return order


def _handedness(positions) -> bool:
    """In which sense three atoms go round a fourth, the first."""
    return float(np.linalg.det(positions[1:] - positions[0])) > 0
