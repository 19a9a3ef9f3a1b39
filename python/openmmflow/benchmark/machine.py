# SPDX-License-Identifier: MIT
"""Where figures were measured."""
from __future__ import annotations

import datetime
import os
import platform

import openmm

import openmmflow


def description() -> dict:
    """Processor, its cores and load, versions and date, as they go into JSON files."""
    versions = {"openmmflow": openmmflow.__version__, "openmm": openmm.Platform.getOpenMMVersion(),
                "python": platform.python_version()}
    try:
        import torch
        versions["torch"] = torch.__version__
    except ImportError:
        pass
    return {"processor": _processor(), "cores": os.cpu_count(), "loadAverage": list(os.getloadavg()), "system": platform.platform(),
            "instructions": os.environ.get("OPENMMFLOW_INSTRUCTIONS", "widest"), "versions": versions,
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
