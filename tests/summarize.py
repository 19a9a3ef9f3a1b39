# SPDX-License-Identifier: MIT
"""Counts of JUnit result files, one line each; exit status 1 if a file is missing, has a failure or not a single test that ran."""
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def counts(path: Path) -> tuple[int, int, int]:
    """(passed, failed, skipped) of a JUnit file."""
    passed = failed = skipped = 0
    for case in ElementTree.parse(path).iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
        elif case.find("skipped") is not None:
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped


def main(paths: list[str]) -> int:
    status = 0
    for path in map(Path, paths):
        try:
            passed, failed, skipped = counts(path)
        except (OSError, ElementTree.ParseError) as error:
            print(f"{path.stem}: no results ({error})")
            status = 1
            continue
        print(f"{path.stem}: {passed} passed, {failed} failed, {skipped} skipped")
        if failed or not passed:
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
