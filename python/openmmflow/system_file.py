# SPDX-License-Identifier: MIT
"""Systems as XML files, as ``openmm.XmlSerializer`` writes them."""
from __future__ import annotations

from pathlib import Path

import openmm


def read_system(path) -> openmm.System:
    """The System of an XML file. Raises ValueError when the file holds something else, OSError when it cannot be read."""
    expected = "write one with openmm.XmlSerializer.serialize(system)"
    text = Path(path).read_text(errors="replace")
    try:
        system = openmm.XmlSerializer.deserialize(text)
    except Exception as error:    # OpenMM's Python layer raises bare ValueErrors as well as OpenMMExceptions
        raise ValueError(f"{path} is not the XML of an OpenMM System ({error}); {expected}") from error
    if not isinstance(system, openmm.System):
        raise ValueError(f"{path} holds a {type(system).__name__}, not a System; {expected}")
    return system
