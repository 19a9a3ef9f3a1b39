# SPDX-License-Identifier: MIT
"""Names for the contents of files."""
from __future__ import annotations

import hashlib
from pathlib import Path


def sha256(path) -> str:
    """SHA-256 of the contents of a file, hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
