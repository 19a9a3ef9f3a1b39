# SPDX-License-Identifier: MIT
"""Conservation of energy on other platforms over 100 ps at 1 fs, next to Reference from the same starts.

    python benchmarks/gpu_conservation.py CUDA|OpenCL|HIP|CPU... [--precision mixed] [--starts 32] [--together 16] [--picoseconds 100]
        [--reference FILE] [--folder DIR] [--json FILE]

Several starts run together, as molecules of one Context that know nothing of each other. The energy of each is its kinetic energy, brought to
the time of the positions, and its potential energy on Reference. The runs lie in a folder and go on where they stopped; what is written is about
the starts that have come to their end on all platforms. Fluctuation and drift are those of docs/theory.md, of one molecule. Over 100 ps
trajectories on two platforms are not the same: rounding parts them within some picoseconds. So the fluctuations of a start differ by chance,
and the means over starts are compared. A start that did not conserve its energy on one of two platforms, which is rare and a property of the model,
is counted and left out of both means. Reference takes far longer than a GPU; with --reference its figures are those in the JSON of another run.
"""
from __future__ import annotations

import argparse
import concurrent.futures
import datetime
import json
import os
import sys
from pathlib import Path

import numpy as np
import openmm
from openmm import unit

import openmmflow
from openmmflow import analysis, shipped
from openmmflow.benchmark import conservation, systems

LARGEST_DIFFERENCE = 0.1
"""Of the ratio of fluctuations from 1."""
LARGEST_DRIFT = 1e-4
"""kJ/mol/ps per degree of freedom."""
NOT_CONSERVED = 5
"""Times the median over starts: a fluctuation that is no longer one."""
STEPS_PER_SAMPLE = 10
SAMPLES_PER_SAVE = 100
"""One picosecond."""


class Run:
    """Molecules of one Context at constant energy, with the total energy of each. Kept in a file."""

    def __init__(self, path: Path, model: openmmflow.FlowModel, platform: str, precision: str, starts: list[tuple[np.ndarray, np.ndarray]]):
        self.path, self.model, self.platform, self.precision = path, model, platform, precision
        if path.exists():
            with np.load(path) as stored:
                if str(stored["checksum"]) != model.checksum:
                    sys.exit(f"{path} is of another model; take another folder")
                self.energies, self.positions, self.velocities = stored["energies"], stored["positions"], stored["velocities"]
        else:
            self.energies = np.empty((0, len(starts)))
            self.positions, self.velocities = (np.concatenate(values) for values in zip(*starts))

    @property
    def picoseconds(self) -> float:
        return len(self.energies) * STEPS_PER_SAMPLE / 1000

    def advance(self, picoseconds: float) -> None:
        """Up to a length, in steps that are kept."""
        if self.picoseconds >= picoseconds:
            return
        system = systems.flow_system(self.model, self.energies.shape[1])
        masses = np.array([system.getParticleMass(i)._value for i in range(system.getNumParticles())])[:, None]
        properties = {"Precision": self.precision} if self.platform in ("CUDA", "OpenCL", "HIP") else {}
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName(self.platform), properties)
        context.setPositions(self.positions)
        context.setVelocities(self.velocities)
        # On a machine with a GPU the energies on Reference take most of the time.
        workers = min(os.cpu_count() or 1, self.energies.shape[1])
        singles = [systems.context(systems.flow_system(self.model), "Reference", np.zeros((22, 3)), integrator=openmm.VerletIntegrator(0.001))
                   for _ in range(workers)]
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            while self.picoseconds < picoseconds:
                samples = []
                for _ in range(SAMPLES_PER_SAVE):
                    context.getIntegrator().step(STEPS_PER_SAMPLE)
                    state = context.getState(positions=True, velocities=True, forces=True)
                    self.positions = state.getPositions(asNumpy=True)._value
                    self.velocities = state.getVelocities(asNumpy=True)._value
                    # Velocities of the leapfrog are half a step behind.
                    velocities = self.velocities + 0.0005 * state.getForces(asNumpy=True)._value / masses
                    kinetic = (0.5 * masses * velocities**2).reshape(self.energies.shape[1], -1).sum(axis=1)
                    molecules = np.array_split(self.positions.reshape(self.energies.shape[1], -1, 3), workers)
                    samples.append(kinetic + np.concatenate(list(pool.map(potential_energies, singles, molecules))))
                self.energies = np.concatenate([self.energies, samples])
                self._save()
                print(f"{self.path.stem}: {self.picoseconds:g} ps", flush=True)

    def _save(self) -> None:
        temporary = self.path.with_suffix(".part.npz")
        np.savez(temporary, energies=self.energies, positions=self.positions, velocities=self.velocities, checksum=self.model.checksum)
        os.replace(temporary, self.path)

    def figures(self, picoseconds: float, degrees: int) -> list[analysis.EnergyConservation]:
        samples = round(1000 * picoseconds / STEPS_PER_SAMPLE)
        times = (np.arange(samples) + 1) * STEPS_PER_SAMPLE / 1000
        return [analysis.energy_conservation(times, values[:samples], degrees) for values in self.energies.T]


def potential_energies(context: openmm.Context, molecules: np.ndarray) -> list[float]:
    """Of molecules one after the other, kJ/mol."""
    energies = []
    for positions in molecules:
        context.setPositions(positions)
        energies.append(context.getState(energy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole))
    return energies


def measure(model: openmmflow.FlowModel, platforms: list[str], precision: str, starts: int, together: int, picoseconds: float,
            folder: Path, reference: list[analysis.EnergyConservation] | None = None) -> dict[str, list[analysis.EnergyConservation]]:
    """Of each start, on the platforms and on Reference, unless there is a reference already."""
    folder.mkdir(parents=True, exist_ok=True)
    degrees = analysis.degrees_of_freedom(systems.flow_system(model))
    phase_space = conservation.equilibrated(systems.flow_system(model), starts)
    found = {name: [] for name in (*platforms, *(["Reference"] if reference is None else []))}
    for first in range(0, starts, together):
        for name in found:
            run = Run(folder / f"{name}-{first}.npz", model, name, precision, phase_space[first:first + together])
            run.advance(picoseconds)
            found[name] += run.figures(picoseconds, degrees)
    return found if reference is None else found | {"Reference": reference}


def read_reference(path: Path, model: openmmflow.FlowModel, picoseconds: int, starts: int) -> list[analysis.EnergyConservation]:
    """The figures of Reference from a file of main, which must be of the same model, length and at least as many starts."""
    stored = json.loads(path.read_text())
    figures = [analysis.EnergyConservation(**figure) for figure in stored["starts"]["Reference"][:starts]]
    if stored["model"] != model.checksum or stored["picoseconds"] != picoseconds or len(figures) < starts:
        sys.exit(f"{path} is of the model {stored['model']}, {stored['picoseconds']} ps and {len(stored['starts']['Reference'])} starts; "
                 f"needed are {model.checksum}, {picoseconds} ps and {starts} starts")
    return figures


def report(found: dict[str, list[analysis.EnergyConservation]], precision: str, picoseconds: int) -> dict:
    """Print how the platforms compare with Reference, and the figures for a file."""
    fluctuations = {name: np.array([figure.fluctuation for figure in figures]) for name, figures in found.items()}
    conserved = {name: values <= NOT_CONSERVED * np.median(values) for name, values in fluctuations.items()}
    comparisons = {}

    def verdict(drift):
        # What is demanded is of this length; chance gives shorter runs a larger drift.
        return f" ({'met' if drift <= LARGEST_DRIFT else 'NOT met'})" if picoseconds >= 100 else ""

    def mean(values):
        return values.mean(), values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")

    for name, figures in found.items():
        slopes = np.array([figure.slope for figure in figures])[conserved[name]]
        (drift, drift_error), (slope, slope_error) = mean(abs(slopes)), mean(slopes)
        lost = int((~conserved[name]).sum())
        print(f"{name}: {lost} of {len(figures)} starts did not conserve their energy; of the others, per degree of freedom: fluctuation "
              f"{fluctuations[name][conserved[name]].mean():.5f} kJ/mol; mean drift, the size of a slope, {drift:.2e} ± {drift_error:.1e} "
              f"kJ/mol/ps{verdict(drift)}; mean slope, to which chance adds nothing, {slope:.1e} ± {slope_error:.1e}{verdict(abs(slope))}; "
              f"demanded over 100 ps: at most {LARGEST_DRIFT:g}")
        comparisons[name] = {"notConserved": lost, "drift": drift, "drift_error": drift_error, "slope": slope, "slope_error": slope_error}
        if name == "Reference":
            continue
        label = name if name == "CPU" else f"{name} ({precision})"
        both = conserved[name] & conserved["Reference"]
        comparison = conservation.compare(fluctuations[name][both], fluctuations["Reference"][both], label, LARGEST_DIFFERENCE)
        print(comparison.verdict)
        comparisons[name] |= {"ratio": comparison.ratio, "ratio_error": comparison.error}
    return {"comparison": comparisons, "starts": {
        name: [{"fluctuation": figure.fluctuation, "slope": figure.slope} for figure in figures] for name, figures in found.items()}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("platforms", nargs="+", choices=("CUDA", "OpenCL", "HIP", "CPU"))
    parser.add_argument("--precision", default="mixed", choices=("single", "mixed", "double"))
    parser.add_argument("--starts", type=int, default=32)
    parser.add_argument("--together", type=int, default=16)
    parser.add_argument("--picoseconds", type=int, default=100)
    parser.add_argument("--model", default=str(shipped.MODEL))
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("build/gpu_conservation"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    for platform in options.platforms:
        reason = openmmflow.why_not_supported(platform)
        if reason:
            parser.exit(1, f"{reason}\n")
    model = openmmflow.FlowModel.load(options.model)
    reference = options.reference and read_reference(options.reference, model, options.picoseconds, options.starts)
    found = measure(model, options.platforms, options.precision, options.starts, options.together, options.picoseconds, options.folder, reference)
    figures = report(found, options.precision, options.picoseconds)
    if options.json:
        options.json.write_text(json.dumps({
            "date": datetime.date.today().isoformat(), "model": model.checksum, "precision": options.precision,
            "picoseconds": options.picoseconds, **figures}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
