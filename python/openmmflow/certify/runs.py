# SPDX-License-Identifier: MIT
"""The pieces of dynamics that figures come from, run side by side; they stop at any time and go on."""
from __future__ import annotations

import multiprocessing
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np
from tqdm import tqdm

from .. import shipped
from ..demo import force_field_molecule
from ..hashes import sha256
from ..simulate import Molecule, flow_molecule
from ..stored_run import Settings, StoredRun
from ..trajectory import read_energies


@dataclass(frozen=True)
class Job:
    """One piece of dynamics of a part."""

    directory: Path
    model: Path
    potential: str
    """"flow" or "amber" """
    settings: Settings
    steps: int
    starts: Path
    """File with ``positions`` and ``velocities`` (starts, particles, 3)"""
    start: int

    def molecule(self) -> Molecule:
        return flow_molecule(self.model, shipped.STRUCTURE) if self.potential == "flow" else force_field_molecule()

    def run(self, stop: Callable[[int], bool]) -> bool:
        """Run, or go on; ``stop`` gets the number of steps done. Whether all steps are there."""
        molecule = self.molecule()

        def start():
            with np.load(self.starts) as starts:
                return starts["positions"][self.start], starts["velocities"][self.start]

        with StoredRun(self.directory, molecule.topology, molecule.system, self.settings, start=start,
                       description={"potential": self.potential, "start": self.start, "starts": sha256(self.starts)}) as run:
            return run.advance(self.steps, progress=False, stop=lambda: stop(run.step), checkpoint_seconds=20)


def is_complete(job: Job) -> bool:
    """Whether the energies of all steps are on the disk."""
    try:
        return int(read_energies(job.directory / "energies.csv").step[-1]) >= job.steps - job.steps % job.settings.report_interval
    except (OSError, ValueError):
        return False


_shared = {}


def _initialize_worker(progress, stopping, deadline):
    # Ctrl-C reaches every process of the terminal; the parent alone decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _shared.update(progress=progress, stopping=stopping, deadline=deadline)


def _run_job(index_and_job) -> bool:
    index, job = index_and_job

    def stop(step):
        _shared["progress"][index] = step
        return _shared["stopping"].is_set() or time.monotonic() > _shared["deadline"]

    if stop(0):
        return False
    return job.run(stop)


def run_jobs(jobs: list[Job], *, processes: int, deadline: float, interrupted: Callable[[], bool], progress: bool = True) -> bool:
    """Run jobs side by side until all are complete, the deadline (``time.monotonic``) or an interruption; whether they are complete."""
    # Jobs of several parts may be the same run: the longest of each folder does for all. Longest first shares the work best.
    longest = {}
    for job in jobs:
        if job.directory not in longest or job.steps > longest[job.directory].steps:
            longest[job.directory] = job
    jobs = sorted(longest.values(), key=lambda job: -job.steps * (10 if job.potential == "flow" else 1))
    if not jobs:
        return True
    spawn = multiprocessing.get_context("spawn")
    # Processes run side by side, so each has one thread; OpenMM's CPU platform reads this.
    os.environ["OPENMM_CPU_THREADS"] = "1"
    done, stopping = spawn.Array("q", len(jobs), lock=False), spawn.Event()
    with spawn.Pool(min(processes, len(jobs)), _initialize_worker, (done, stopping, deadline)) as pool:
        result = pool.map_async(_run_job, list(enumerate(jobs)), chunksize=1)
        with tqdm(total=sum(job.steps for job in jobs), unit="step", unit_scale=True, disable=not progress, mininterval=1.0) as bar:
            while not result.ready():
                result.wait(0.5)
                bar.update(sum(min(step, job.steps) for step, job in zip(done, jobs)) - bar.n)
                if interrupted():
                    stopping.set()
        complete = all(result.get())
        pool.close()
        pool.join()
    return complete
