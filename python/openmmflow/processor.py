# SPDX-License-Identifier: MIT
"""How the operating system schedules a simulation of few particles on the CPU platform."""
from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def one_core() -> Iterator[int | None]:
    """Keep this thread, and the threads and processes that it starts meanwhile, on one core; gives its number.

    OpenMM's CPU platform hands work to threads of its own several times a step, even if there is but one. For a small molecule
    that takes longer than the molecule. Two things make it cheap: caller and thread share a core, so that none has to be woken from
    sleep, and they are scheduled as a batch (``SCHED_BATCH``, which needs no privileges), so that the one that is woken does not
    interrupt the one that is about to wait for it.

    Make the Context inside the ``with``, with the platform property ``Threads`` at 1:

    >>> with openmmflow.one_core():
    ...     simulation = app.Simulation(topology, system, integrator, openmm.Platform.getPlatform("CPU"), {"Threads": "1"})
    ...     simulation.step(1_000_000)

    Does nothing (None) where the system has no such calls; a process with another scheduling policy than the usual one keeps it.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield None
        return
    cores, policy = os.sched_getaffinity(0), os.sched_getscheduler(0)
    core = max(cores)    # the first one often serves interrupts
    os.sched_setaffinity(0, {core})
    if policy == os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        yield core
    finally:
        if policy == os.SCHED_OTHER:
            os.sched_setscheduler(0, policy, os.sched_param(0))
        os.sched_setaffinity(0, cores)
