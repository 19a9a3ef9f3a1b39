# SPDX-License-Identifier: MIT
"""Long physics runs of the shipped model: ``python -m openmmflow.certify``, or ``./dev certify``.

Every figure that the project quotes about its model comes from here. The runs stop at any time and go on; a part whose runs are
complete is written to docs/certification as JSON with the hash of the model, the machine and the date, and docs/certification.md
shows all parts next to their bounds.
"""
from .bounds import BOUNDS, Bound
from .certification import PARTS, Certification
from .command import certify
from .frames import Frames, read_frames
from .protocol import BASINS, PHI, PSI, TEMPERATURE, Protocol
from .report import README_BEGIN, README_END, read_parts, readme_table, report, update_readme
from .runs import Job, run_jobs

__all__ = ["BASINS", "BOUNDS", "Bound", "Certification", "Frames", "Job", "PARTS", "PHI", "PSI", "Protocol", "README_BEGIN", "README_END",
           "TEMPERATURE", "certify", "read_frames", "read_parts", "readme_table", "report", "run_jobs", "update_readme"]
