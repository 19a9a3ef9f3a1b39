# SPDX-License-Identifier: MIT
"""The sdist of openmmflow-training: python tools/training_sdist.py DIST, from the root of the repository.

It is built from the tree of the whole repository, which training/pyproject.toml reaches by "..". An sdist cannot reach out of its folder, so
this one has that file, with paths from here, as its own pyproject.toml at the root of what CMake reads.
"""
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = ("CMakeLists.txt", "LICENSE", "cmake", "flow", "openmmapi", "platforms", "serialization", "training")
PATHS = {'cmake.source-dir = ".."\n': "", 'wheel.packages = ["openmmflow_training"]': 'wheel.packages = ["training/openmmflow_training"]',
         'input = "../CMakeLists.txt"': 'input = "CMakeLists.txt"'}


def pyproject(text: str) -> str:
    """training/pyproject.toml as it is at the root of the repository."""
    for here, there in PATHS.items():
        if text.count(here) != 1:
            raise SystemExit(f"training/pyproject.toml has changed: expected {here!r} once")
        text = text.replace(here, there)
    return text


def main(dist: str) -> None:
    root = Path(__file__).resolve().parents[1]
    known = subprocess.run(["git", "ls-files", "-z", "--", *SOURCES], cwd=root, check=True, capture_output=True, text=True).stdout.split("\0")
    with tempfile.TemporaryDirectory() as folder:
        for name in filter(None, known):
            if (root / name).exists():    # not one that is deleted and not yet committed so
                (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, Path(folder) / name)
        (Path(folder) / "training" / "pyproject.toml").unlink()
        (Path(folder) / "pyproject.toml").write_text(pyproject((root / "training" / "pyproject.toml").read_text()))
        subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--sdist", "--outdir", str(Path(dist).resolve()), folder], check=True)


if __name__ == "__main__":
    main(sys.argv[1])
