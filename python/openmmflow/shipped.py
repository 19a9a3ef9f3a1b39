# SPDX-License-Identifier: MIT
"""The model that ships with the package, and its molecule."""
from __future__ import annotations

from pathlib import Path

_DATA = Path(__file__).parent / "data"

MODEL = _DATA / "alanine_dipeptide.safetensors"
"""Alanine dipeptide at 300 K, amber99sbildn + OBC, unconstrained: docs/certification.md has its figures."""
STRUCTURE = _DATA / "alanine_dipeptide.pdb"
"""ACE-ALA-NME, 22 atoms in the order of the model."""
