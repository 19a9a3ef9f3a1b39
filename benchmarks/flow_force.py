# SPDX-License-Identifier: MIT
"""``openmmflow benchmark`` with the C++ program of this checkout's build, for the floor; quick unless arguments say otherwise.

Part of ``./dev bench``. The machine should have nothing else to do.
"""
import sys
from pathlib import Path

from openmmflow import command_line

PROGRAM = Path(__file__).parents[1] / "build" / "dev" / "benchmarks" / "FlowBenchmarks"


def main() -> int:
    """Run the command with the arguments of this script."""
    arguments = sys.argv[1:] or ["--quick"]
    if "--kernels" not in arguments and PROGRAM.is_file():
        arguments += ["--kernels", str(PROGRAM)]
    return command_line.main(["benchmark", *arguments])


if __name__ == "__main__":
    sys.exit(main())
