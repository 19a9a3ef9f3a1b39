# SPDX-License-Identifier: MIT
"""Timings that can be compared although the machine does other things as well."""
from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Seconds of one call, medians over rounds."""

    wall: float
    cpu: float
    """Processor time of all threads of this process; what other programs take does not enter."""
    rounds: int
    calls: int
    """In all rounds together."""


def interleaved(tasks: dict[str, Callable[[], object]], *, seconds: float, rounds: int = 7) -> dict[str, Timing]:
    """Time tasks that are to be compared: in each of several rounds every task has its turn, so that all see the same machine.

    Parameters
    ----------
    tasks : by name; each is called as often in a round as ``seconds`` allows, once at least.
    seconds : about as long as one task is timed in all. Tasks that take longer than that by themselves have fewer rounds.
    """
    calls, samples = {}, {name: [] for name in tasks}
    for name, task in tasks.items():
        task()    # warms up
        begin = time.perf_counter()
        task()
        calls[name] = max(1, round(seconds / rounds / max(time.perf_counter() - begin, 1e-9)))
    spent = dict.fromkeys(tasks, 0.0)
    for turn in range(rounds):
        for name, task in tasks.items():
            if turn >= 3 and spent[name] > 2 * seconds:
                continue
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(calls[name]):
                task()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            spent[name] += wall
            samples[name].append((wall / calls[name], cpu / calls[name]))
    return {name: Timing(*(statistics.median(column) for column in zip(*taken)), len(taken), len(taken) * calls[name])
            for name, taken in samples.items()}
