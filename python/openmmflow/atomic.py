# SPDX-License-Identifier: MIT
"""Files that appear complete or not at all."""
from __future__ import annotations

import json
import os
from pathlib import Path


def write_bytes(path, content: bytes):
    """Replace the file ``path`` in one step: whoever reads it sees the old content or the new one."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path, document):
    """Write a JSON document that people can read; NaN and infinity raise ValueError."""
    write_bytes(path, (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())
