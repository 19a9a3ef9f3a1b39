# SPDX-License-Identifier: MIT
"""The ratios that are demanded of FlowForce on the CPU platform, and whether a run shows them."""
from __future__ import annotations

from dataclasses import dataclass

from .speed import Results


@dataclass(frozen=True)
class Target:
    """A ratio of two times and its bound."""

    what: str
    slow: tuple
    fast: tuple
    """Which timings are divided: (potential, size, molecules, threads, quantity)."""
    bound: float
    at_least: bool = True

    def ratio(self, results: Results) -> float | None:
        """The measured ratio; None if the run holds not both timings.

        With one thread processor times are divided, which other programs on the machine do not enter, with more the elapsed ones.
        """
        times = [results.find(*key) for key in (self.slow, self.fast)]
        if None in times:
            return None
        clock = "cpu" if self.slow[3] == self.fast[3] == 1 else "wall"
        return times[0][clock] / times[1][clock]

    def verdict(self, ratio: float) -> str:
        """"met", or by how much the ratio misses the bound."""
        missing = self.bound / ratio if self.at_least else ratio / self.bound
        if missing <= 1:
            return "met"
        return f"short by a factor {missing:.2f}" if missing >= 1.05 else f"short by {100 * (missing - 1):.1f} %"


CPU = "FlowForce CPU"

TARGETS = (
    Target("one molecule, 314k: faster than PyTorch in eager mode",
           ("PyTorch eager", "314k", 1, 1, "forces"), (CPU, "314k", 1, 1, "forces"), 100),
    Target("one molecule, 758k: faster than torch.compile",
           ("PyTorch compiled", "758k", 1, 1, "forces"), (CPU, "758k", 1, 1, "forces"), 30),
    Target("one molecule, 314k: slower than streaming the weights",
           (CPU, "314k", 1, 1, "forces"), ("floor", "314k", 1, 1, "forces"), 2, at_least=False),
    Target("a step, 314k: faster than amber99sbildn + OBC on CPU",
           ("force field CPU", "314k", 1, 1, "step"), (CPU, "314k", 1, 1, "step"), 1.5),
    Target("a step, 314k: slower than amber99sbildn + OBC on Reference",
           (CPU, "314k", 1, 1, "step"), ("force field Reference", "314k", 1, 1, "step"), 2.5, at_least=False),
    Target("1,024 molecules, 314k, two threads: faster than a PyTorch batch",
           ("PyTorch eager", "314k", 1024, 2, "forces"), (CPU, "314k", 1024, 2, "forces"), 10),
    Target("one molecule, 314k: root finding slower than closed form",
           ("FlowForce CPU, roots", "314k", 1, 1, "forces"), (CPU, "314k", 1, 1, "forces"), 2, at_least=False),
)


def table(results: Results) -> list[dict]:
    """Every target that the run says something about: what, ratio, bound, verdict."""
    rows = []
    for target in TARGETS:
        ratio = target.ratio(results)
        if ratio is not None:
            rows.append({"what": target.what, "ratio": ratio, "bound": target.bound,
                         "demanded": "at least" if target.at_least else "at most", "verdict": target.verdict(ratio)})
    return rows
