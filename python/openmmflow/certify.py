# SPDX-License-Identifier: MIT
"""Long physics runs of the shipped model: ``python -m openmmflow.certify``, or ``./dev certify``.

Every figure that the project quotes about its model comes from here. The runs stop at any time and go on; a part whose runs are
complete is written to docs/certification as JSON with the hash of the model, the machine and the date, and docs/certification.md
shows all parts next to their bounds.
"""
from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

import h5py
import numpy as np
import openmm
from tqdm import tqdm

import openmmflow

from . import analysis, atomic, dataset, shipped
from .demo import FORCE_FIELD, force_field_molecule
from .hashes import sha256
from .simulate import InterruptFlag, Molecule, flow_molecule
from .stored_run import Settings, StoredRun, maxwell_velocities
from .trajectory import read_energies, read_positions

TEMPERATURE = 300.0
"""K; of the data, and what k_BT means in every figure."""
KT = dataset.MOLAR_GAS_CONSTANT * TEMPERATURE
FRAME_ATOMS = (14, 8, 6)
"""The frame that likelihoods in measure "frame" are quoted for."""
NUM_STARTS = 10
STEP_SIZES = (0.25, 0.5, 0.75, 1.0)
NVE_LENGTH = 100.0
"""ps"""
STEP_SIZE_LENGTH = 5.0
"""ps"""
NVT_LENGTH = 1000.0
"""ps"""
NVT_PLATFORM = "CPU"
"""Twice as fast as Reference, in single precision where that is enough; energy conservation is measured in double, on Reference."""
ENERGY_SAMPLING = 15.0
"""fs between energies in NVE runs: a whole number of steps of every size."""
PHI, PSI = (4, 6, 8, 14), (6, 8, 14, 16)
BASINS = {
    "beta": lambda phi, psi: ~analysis.in_alpha_l(phi) & (np.abs(psi) > np.radians(90)),
    "alphaR": lambda phi, psi: ~analysis.in_alpha_l(phi) & (psi > np.radians(-70)) & (psi < np.radians(30)),
    "alphaL": lambda phi, psi: analysis.in_alpha_l(phi) & (psi > np.radians(-30)) & (psi < np.radians(90)),
}
"""Where the NVT runs start: φ and ψ in radian."""
CERTIFICATION = Path("docs/certification")
"""Where the figures of the shipped model are, relative to the repository."""


@dataclass(frozen=True)
class Bound:
    """What a figure must be for the model to be certified."""

    part: str
    figure: str
    meaning: str
    unit: str
    at_least: Optional[float] = None
    at_most: Optional[float] = None

    def holds(self, value: float) -> bool:
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    def __str__(self):
        if self.at_least is not None and self.at_most is not None:
            return f"{self.at_least:g} to {self.at_most:g}"
        return f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"


BOUNDS = (
    Bound("accuracy", "forceRmse", "force RMSE on held-out frames", "k_BT/nm", at_most=80.0),
    Bound("populations", "absoluteDifference", "φ-basin free energy, flow against replica exchange", "k_BT", at_most=1.0),
    Bound("nve", "starts", "NVE starts", "", at_least=NUM_STARTS),
    Bound("nve", "length", "NVE length of each", "ps", at_least=NVE_LENGTH),
    Bound("nve", "fluctuationRatio", "NVE fluctuation at 1 fs, flow over Amber from the same starts", "", at_most=3.0),
    Bound("step_size", "exponent", "exponent of the step size in the fluctuation", "", at_least=1.85, at_most=2.15),
    Bound("nvt", "length", "NVT length from each basin", "ps", at_least=NVT_LENGTH),
    Bound("nvt", "basins", "NVT basins to start from", "", at_least=len(BASINS)),
    Bound("nvt", "smallestFractionInSupport", "NVT frames inside the support, least of the basins", "", at_least=1.0),
    Bound("nvt", "smallestFractionInInnerSupport", "NVT frames where U is exactly -ln p, least of the basins", "", at_least=0.999),
)


# --- Frames of the force field -----------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Frames:
    """Amber's frames at 300 K: one trajectory for each file, in order of time."""

    positions: list[np.ndarray]
    """(frames, 22, 3) each, nm"""
    forces: list[np.ndarray]
    """likewise, kJ/mol/nm"""
    energies: list[np.ndarray]
    """(frames,) each, kJ/mol"""
    names: list[str]

    def held_out(self, fraction: float) -> Frames:
        """The last frames of each file, which training does not see."""
        def tail(arrays):
            return [array[len(array) - int(round(fraction * len(array))):] for array in arrays]

        return Frames(tail(self.positions), tail(self.forces), tail(self.energies), self.names)


def read_frames(paths) -> Frames:
    """Read data sets that ``openmmflow dataset`` made, also while they are growing."""
    positions, forces, energies = [], [], []
    for path in paths:
        with h5py.File(path, "r", locking=False) as file:
            temperature = json.loads(file.attrs["description"])["temperature"]
            if temperature != TEMPERATURE:
                raise ValueError(f"{path} is of {temperature} K, expected {TEMPERATURE} K")
            count = len(file["energies"])
            positions.append(file["positions"][:count])
            forces.append(file["forces"][:count])
            energies.append(file["energies"][:count])
    return Frames(positions, forces, energies, [Path(path).name for path in paths])


# --- The parts ---------------------------------------------------------------------------------------------------------------

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


class Certification:
    """The parts, their jobs, and how their figures come from the files of the jobs."""

    def __init__(self, model, frame_paths, cache, *, held_out_fraction: float = 0.1):
        self.model_path = Path(model).resolve()
        self.model = openmmflow.FlowModel.load(self.model_path)
        self.model_hash = sha256(self.model_path)
        self.cache = Path(cache).resolve() / self.model_hash[:16]
        self.frames = read_frames(frame_paths)
        self.held_out = self.frames.held_out(held_out_fraction)
        self.cache.mkdir(parents=True, exist_ok=True)
        self.parts = {"accuracy": self.accuracy, "populations": self.populations, "nve": self.nve, "step_size": self.step_size,
                      "nvt": self.nvt}

    def jobs(self, part: str) -> list[Job]:
        """What must be run before the part's figures can be computed."""
        if part == "nve":
            return [self._nve_job(potential, start, 1.0, NVE_LENGTH) for potential in ("flow", "amber") for start in range(NUM_STARTS)]
        if part == "step_size":
            # The runs at 1 fs are the first piece of those of "nve".
            return [self._nve_job(potential, start, size, STEP_SIZE_LENGTH if size < 1.0 else NVE_LENGTH)
                    for size in STEP_SIZES for potential in ("flow", "amber") for start in range(NUM_STARTS)]
        if part == "nvt":
            settings = [Settings(ensemble="nvt", step_size=1.0, temperature=TEMPERATURE, friction=1.0, seed=1 + index,
                                 report_interval=100, trajectory_interval=100, platform=NVT_PLATFORM) for index in range(len(BASINS))]
            return [Job(self.cache / "nvt" / basin, self.model_path, "flow", settings[index], round(NVT_LENGTH * 1000),
                        self._starts("basins", self._basin_frames), index) for index, basin in enumerate(BASINS)]
        return []

    def _nve_job(self, potential, start, step_size, length) -> Job:
        settings = Settings(ensemble="nve", step_size=step_size, temperature=TEMPERATURE,
                            report_interval=round(ENERGY_SAMPLING / step_size), trajectory_interval=10 ** 9)
        return Job(self.cache / "nve" / f"{potential}-{step_size:g}fs" / str(start), self.model_path, potential, settings,
                   round(length * 1000 / step_size), self._starts("nve", self._nve_frames), start)

    def _nve_frames(self) -> np.ndarray:
        """Held-out frames at even distances."""
        positions = np.concatenate(self.held_out.positions)
        return positions[(2 * np.arange(NUM_STARTS) + 1) * len(positions) // (2 * NUM_STARTS)]

    def _basin_frames(self) -> np.ndarray:
        """The first held-out frame in each basin."""
        positions = np.concatenate(self.held_out.positions)
        phi, psi = (analysis.torsion_angles(positions, atoms) for atoms in (PHI, PSI))
        chosen = []
        for name, inside in BASINS.items():
            found = np.flatnonzero(inside(phi, psi))
            if len(found) == 0:
                raise ValueError(f"no held-out frame is in basin {name}; give more frames")
            chosen.append(positions[found[0]])
        return np.array(chosen)

    def _starts(self, name: str, choose: Callable[[], np.ndarray]) -> Path:
        """File of starts with Maxwell velocities. Once written it stays, also when the data sets grow: runs depend on it."""
        path = self.cache / f"starts-{name}.npz"
        if not path.exists():
            random = np.random.default_rng(2026)
            positions = choose()
            system = force_field_molecule().system
            velocities = np.array([maxwell_velocities(system, TEMPERATURE, random) for _ in positions])
            temporary = path.with_name(f".{path.name}.{os.getpid()}.npz")
            np.savez(temporary, positions=positions, velocities=velocities)
            os.replace(temporary, path)
        return path

    # Each of the following returns the figures of a part as a JSON document.

    def accuracy(self) -> dict:
        """Forces and likelihood on held-out frames."""
        positions, forces = np.concatenate(self.held_out.positions), np.concatenate(self.held_out.forces) / KT
        log_prob, gradient = self.model.log_prob_and_gradient(positions)
        inside = np.isfinite(log_prob)
        to_frame = analysis.log_frame_over_cartesian(positions[inside], FRAME_ATOMS)
        if self.model.measure != "cartesian":
            raise ValueError(f'the model is of measure "{self.model.measure}"; figures are defined for "cartesian"')
        return {
            "frames": len(positions), "fractionInSupport": float(inside.mean()),
            "forceRmse": analysis.force_rmse(gradient[inside], forces[inside]),
            "forceRms": float(np.sqrt(np.mean(forces ** 2))),
            "negativeLogLikelihood": float(-log_prob[inside].mean()),
            "negativeLogLikelihoodFrame": float(-(log_prob[inside] + to_frame).mean()),
            "frameAtoms": list(FRAME_ATOMS)}

    def populations(self) -> dict:
        """Populations of the φ-basins, the flow's by importance reweighting of Amber's frames: w = p_flow/p_Amber.

        Exact for the flow's density restricted to where Amber has frames; the effective sample size says how many frames carry it.
        """
        in_basin = [analysis.in_alpha_l(analysis.torsion_angles(positions, PHI)) for positions in self.frames.positions]
        log_weights = [self.model.log_prob(positions) + energies / KT
                       for positions, energies in zip(self.frames.positions, self.frames.energies)]
        reference = analysis.basin_free_energy(in_basin)
        flow = analysis.basin_free_energy(in_basin, log_weights)
        difference, error = analysis.basin_shift(in_basin, log_weights)
        largest = max(w.max() for w in log_weights)
        weights = np.exp(np.concatenate(log_weights) - largest)
        inside = np.concatenate(in_basin)
        return {
            "basin": {"torsion": "phi", "degrees": np.degrees(analysis.ALPHA_L_EDGES).tolist()},
            "frames": len(inside), "framesInBasin": int(inside.sum()),
            "replicaExchange": {"population": reference.population, "freeEnergy": reference.free_energy, "error": reference.error,
                                "populationOfEachFile": [float(s.mean()) for s in in_basin]},
            "flow": {"population": flow.population, "freeEnergy": flow.free_energy, "error": flow.error,
                     "effectiveSamples": flow.effective_samples,
                     "effectiveSamplesInBasin": analysis.effective_samples(weights[inside])},
            "difference": difference, "differenceError": error, "absoluteDifference": abs(difference)}

    def nve(self) -> dict:
        """Energy conservation at 1 fs."""
        jobs = self.jobs("nve")
        found = {potential: [self._conservation(job) for job in jobs if job.potential == potential] for potential in ("flow", "amber")}
        fluctuation = {name: np.array([c.fluctuation for c in runs]) for name, runs in found.items()}
        drift = {name: np.array([c.drift for c in runs]) for name, runs in found.items()}
        return {
            "starts": NUM_STARTS, "length": NVE_LENGTH, "stepSize": 1.0, "platform": "Reference",
            "degreesOfFreedom": self._degrees_of_freedom(),
            "fluctuation": float(fluctuation["flow"].mean()), "fluctuationAmber": float(fluctuation["amber"].mean()),
            "fluctuationRatio": float(fluctuation["flow"].mean() / fluctuation["amber"].mean()),
            "drift": float(drift["flow"].mean()), "driftAmber": float(drift["amber"].mean()),
            "fluctuationOfEachStart": {name: values.tolist() for name, values in fluctuation.items()},
            "driftOfEachStart": {name: values.tolist() for name, values in drift.items()}}

    def step_size(self) -> dict:
        """How the fluctuation grows with the step size."""
        figures = {"starts": NUM_STARTS, "length": STEP_SIZE_LENGTH, "stepSizes": list(STEP_SIZES)}
        for potential, suffix in (("flow", ""), ("amber", "Amber")):
            fluctuation = np.empty((NUM_STARTS, len(STEP_SIZES)))
            for job in self.jobs("step_size"):
                if job.potential == potential:
                    column = STEP_SIZES.index(job.settings.step_size)
                    fluctuation[job.start, column] = self._conservation(job, until=STEP_SIZE_LENGTH).fluctuation
            exponent, error = analysis.step_size_exponent(STEP_SIZES, fluctuation)
            figures.update({f"exponent{suffix}": exponent, f"exponentError{suffix}": error,
                            f"fluctuation{suffix}": fluctuation.mean(axis=0).tolist()})
        return figures

    def nvt(self) -> dict:
        """Whether dynamics stays where the model has density."""
        runs = {}
        for basin, job in zip(BASINS, self.jobs("nvt")):
            positions = read_positions(job.directory / "trajectory.dcd")
            energies = read_energies(job.directory / "energies.csv")
            log_prob = self.model.log_prob(positions)
            continued = self._continued_energy(job.molecule(), positions)
            phi = analysis.torsion_angles(positions, PHI)
            in_basin = analysis.in_alpha_l(phi)
            runs[basin] = {
                "frames": len(positions), "temperature": float(energies.temperature.mean()),
                "fractionInSupport": float(np.isfinite(log_prob).mean()),
                "fractionInInnerSupport": float(analysis.in_inner_support(continued, log_prob).mean()),
                "potentialEnergy": {"mean": float(energies.potential.mean()), "min": float(energies.potential.min()),
                                    "max": float(energies.potential.max())},
                "fractionInAlphaL": float(in_basin.mean()), "phiCrossings": int(np.sum(in_basin[1:] != in_basin[:-1]))}
        return {"length": NVT_LENGTH, "stepSize": 1.0, "friction": 1.0, "platform": NVT_PLATFORM, "basins": len(runs),
                "smallestFractionInSupport": min(run["fractionInSupport"] for run in runs.values()),
                "smallestFractionInInnerSupport": min(run["fractionInInnerSupport"] for run in runs.values()), "runs": runs}

    def _conservation(self, job: Job, until: float = np.inf) -> analysis.EnergyConservation:
        energies = read_energies(job.directory / "energies.csv")
        # Half a sampling interval of slack for the accumulated time.
        chosen = energies.time <= until + 0.5e-3 * ENERGY_SAMPLING
        return analysis.energy_conservation(energies.time[chosen], energies.total[chosen], self._degrees_of_freedom())

    def _degrees_of_freedom(self) -> int:
        return analysis.degrees_of_freedom(force_field_molecule().system)

    def _continued_energy(self, molecule: Molecule, positions) -> np.ndarray:
        """Energy of FlowForce, k_BT, for positions (frames, particles, 3)."""
        context = openmm.Context(molecule.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
        energies = np.empty(len(positions))
        for index, frame in enumerate(positions):
            context.setPositions(frame)
            energies[index] = context.getState(energy=True).getPotentialEnergy()._value
        return energies / (dataset.MOLAR_GAS_CONSTANT * self.model.temperature)


# --- Running -----------------------------------------------------------------------------------------------------------------

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


def machine() -> dict:
    """What the figures were computed on."""
    cpu = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), "unknown")
    return {"cpu": cpu, "cores": os.cpu_count()}


def certify(parts, certification: Certification, output, *, processes: int, deadline: float = np.inf,
            interrupted: Callable[[], bool] = lambda: False, progress: bool = True) -> list[str]:
    """Run parts and write the figures of those that are complete into the folder ``output``; returns the names of the others."""
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    jobs = [job for part in parts for job in certification.jobs(part)]
    incomplete = []
    complete = run_jobs(jobs, processes=processes, deadline=deadline, interrupted=interrupted, progress=progress)
    for part in parts:
        if not complete and not all(_is_complete(job) for job in certification.jobs(part)):
            incomplete.append(part)
            continue
        atomic.write_json(output / f"{part}.json", {
            "part": part, "model": {"file": certification.model_path.name, "sha256": certification.model_hash},
            "data": certification.frames.names, "date": datetime.date.today().isoformat(), "machine": machine(),
            "versions": {"openmmflow": openmmflow.__version__, "openmm": openmm.Platform.getOpenMMVersion(), "numpy": np.__version__},
            "figures": certification.parts[part]()})
    atomic.write_bytes(output.with_suffix(".md"), report(output).encode())
    return incomplete


def _is_complete(job: Job) -> bool:
    """Whether the energies of all steps are on the disk."""
    try:
        return int(read_energies(job.directory / "energies.csv").step[-1]) >= job.steps - job.steps % job.settings.report_interval
    except (OSError, ValueError):
        return False


def read_parts(directory) -> dict[str, dict]:
    """The JSON documents of a folder by name of the part."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(Path(directory).glob("*.json"))}


def report(directory) -> str:
    """docs/certification.md from the JSON documents."""
    parts = read_parts(directory)
    lines = ["# Certification of the shipped model", "",
             "Written by `./dev certify` from the JSON files in `certification/`; the definitions are in",
             "[theory.md](theory.md#how-figures-are-defined).", ""]
    for document in sorted({(p["model"]["file"], p["model"]["sha256"]) for p in parts.values()}):
        lines.append(f"- Model: `{document[0]}`, SHA-256 `{document[1]}`")
    for text in sorted({f"{p['machine']['cpu']}, {p['machine']['cores']} cores, "
                        f"OpenMM {p['versions']['openmm']}, {p['date']}" for p in parts.values()}):
        lines.append(f"- Computed on: {text}")
    lines += ["", "| figure | value | bound | |", "|---|---|---|---|"]
    for bound in BOUNDS:
        if bound.part not in parts:
            lines.append(f"| {bound.meaning} | not run | {bound} | |")
            continue
        value = parts[bound.part]["figures"][bound.figure]
        lines.append(f"| {bound.meaning} | {value:.4g} {bound.unit} | {bound} | {'holds' if bound.holds(value) else '**misses**'} |")
    lines += ["", "## All figures", ""]
    for name, document in parts.items():
        lines += [f"### {name}", "", "```json", json.dumps(document["figures"], indent=1), "```", ""]
    return "\n".join(lines)


README_BEGIN, README_END = "<!-- figures, written by ./dev certify -->\n", "<!-- end of figures -->\n"


def readme_table(directory) -> str:
    """The figures that README.md shows, a Markdown table with a line for each part that was run."""
    figures = {name: document["figures"] for name, document in read_parts(directory).items()}
    lines = ["| figure | flow | for comparison |", "|---|---|---|"]
    if "accuracy" in figures:
        f = figures["accuracy"]
        lines += [f"| force RMSE on {f['frames']:,} held-out frames, k_BT/nm | {f['forceRmse']:.1f} | "
                  f"RMS force {f['forceRms']:.0f}; published flow 55.6 |",
                  f"| negative log-likelihood, measure \"cartesian\" / \"frame\" | {f['negativeLogLikelihood']:.1f} / "
                  f"{f['negativeLogLikelihoodFrame']:.1f} | published flow - / -210.9 |"]
    if "populations" in figures:
        f = figures["populations"]
        lines.append(f"| free energy of the basin φ > 0, k_BT | {f['flow']['freeEnergy']:.2f} ± {f['flow']['error']:.2f} | replica exchange "
                     f"{f['replicaExchange']['freeEnergy']:.2f} ± {f['replicaExchange']['error']:.2f} |")
    if "nve" in figures:
        f = figures["nve"]
        title = f"NVE, {f['starts']} × {f['length']:g} ps at {f['stepSize']:g} fs, per degree of freedom"
        lines += [f"| {title}: energy fluctuation, kJ/mol | {f['fluctuation']:.4f} | Amber {f['fluctuationAmber']:.4f} |",
                  f"| the same: energy drift, kJ/mol/ps | {f['drift']:.1e} | Amber {f['driftAmber']:.1e} |"]
    if "step_size" in figures:
        f = figures["step_size"]
        lines.append(f"| exponent of the step size in the fluctuation, {f['stepSizes'][0]:g} to {f['stepSizes'][-1]:g} fs | "
                     f"{f['exponent']:.2f} ± {f['exponentError']:.2f} | Amber {f['exponentAmber']:.2f}; smooth potential 2 |")
    if "nvt" in figures:
        f = figures["nvt"]
        lines.append(f"| NVT, {f['basins']} × {f['length'] / 1000:g} ns: frames where U is exactly -k_BT ln p, least of the runs | "
                     f"{100 * f['smallestFractionInInnerSupport']:.2f} % | |")
    return "\n".join(lines) + "\n"


def update_readme(path, directory):
    """Put the table between its two marks in README.md; a file without them is left alone."""
    text = Path(path).read_text()
    if README_BEGIN in text and README_END in text:
        before, after = text.split(README_BEGIN)[0], text.split(README_END)[1]
        atomic.write_bytes(path, (before + README_BEGIN + readme_table(directory) + README_END + after).encode())


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m openmmflow.certify", description=__doc__.splitlines()[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    names = ("accuracy", "populations", "nve", "step_size", "nvt")
    parser.add_argument("--only", action="append", choices=names, help="this part; may be given several times; all if not given")
    parser.add_argument("-o", "--output", type=Path, default=CERTIFICATION, help="folder of the JSON files")
    parser.add_argument("--model", type=Path, default=shipped.MODEL, help="the model file")
    parser.add_argument("--frames", type=Path, nargs="+", help="data sets; all of runs/alanine_dipeptide/*.h5 if not given, "
                                                               "and if there is none, one is made in the folder of the runs")
    parser.add_argument("--held-out", type=float, default=0.1, help="fraction at the end of each file that training has not seen")
    parser.add_argument("--runs", type=Path, default=Path("runs/certification"), help="folder of the runs")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="runs side by side")
    parser.add_argument("--minutes", type=float, help="stop after this time; the same command goes on")
    options = parser.parse_args(arguments)
    deadline = np.inf if options.minutes is None else time.monotonic() + 60 * options.minutes
    frames = options.frames or sorted(Path("runs/alanine_dipeptide").glob("*.h5"))
    held_out = options.held_out
    if not frames:
        # Frames that no training has seen: all of them are held out.
        frames, held_out = [options.runs / "frames.h5"], 1.0
        dataset.make_alanine_dipeptide_dataset(frames[0], frames=20_000, seed=4242)
    certification = Certification(options.model, frames, options.runs, held_out_fraction=held_out)
    with InterruptFlag() as interrupted:
        incomplete = certify(options.only or names, certification, options.output, processes=options.processes, deadline=deadline,
                             interrupted=interrupted)
    if options.output == CERTIFICATION and Path("README.md").exists():
        update_readme("README.md", options.output)
    print(report(options.output).split("\n## ", 1)[0])
    if incomplete:
        print(f"not complete: {', '.join(incomplete)}; the same command goes on", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
