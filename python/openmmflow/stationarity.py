# SPDX-License-Identifier: MIT
"""Whether dynamics in a flow's potential keeps the flow's own distribution: the test of all parts together.

Copies of the molecule start from independent samples of the flow, with Maxwell velocities, and run under FlowForce at the
model's temperature, all in one System. With measure "cartesian" the distribution must not change. With measure "frame" the same
weights give dynamics the density p d01² d12 sin a012 instead, up to a constant (docs/theory.md, "Measures"): the distribution
must change, and by that much.

``python -m openmmflow.stationarity MODEL -o FOLDER`` does both and writes the figures as JSON; it goes on where it was
interrupted.
"""
from __future__ import annotations

import argparse
import io
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Callable

import numpy as np
import openmm
from scipy import stats
from tqdm import tqdm

from . import FlowForce, FlowModel, atomic, builder, model_file
from .dataset import MOLAR_GAS_CONSTANT
from .simulate import InterruptFlag, read_pdb
from .velocities import kick, masses, maxwell_velocities

SIGNIFICANCE = 0.01
"""Of all tests together: a sound run misses it once in a hundred."""


@dataclass(frozen=True)
class Settings:
    """How the copies run.

    ``copies`` molecules; ``length`` ps in steps of ``step_size`` ps; LangevinMiddle with ``friction`` 1/ps. Means over time
    take a sample every ``interval`` ps from ``relaxation`` ps on. ``reference`` is the number of further samples of the flow
    that the copies are compared with. One thread for each of ``threads``; ``seed`` is of everything random.

    Raises ValueError for numbers that make no sense.
    """

    copies: int = 20_000
    length: float = 5.0
    step_size: float = 0.001
    friction: float = 10.0
    interval: float = 0.05
    relaxation: float = 1.0
    reference: int = 400_000
    threads: int = 1
    seed: int = 1

    def __post_init__(self):
        if not (self.copies >= 2 and self.reference >= 2 and self.threads >= 1 and 0 < self.seed < 2 ** 31):
            raise ValueError("expected at least two copies and two reference samples, a thread, and a seed from 1 to 2^31 - 1")
        if not (0 < self.step_size <= self.interval and 0 <= self.relaxation < self.length and self.friction >= 0):
            raise ValueError("expected 0 < step_size <= interval and 0 <= relaxation < length, all in ps, and a friction >= 0 in 1/ps")

    @property
    def steps_per_interval(self) -> int:
        return round(self.interval / self.step_size)

    @property
    def num_intervals(self) -> int:
        return round(self.length / self.interval)


def has_block(model: FlowModel) -> bool:
    """Whether the model has mixed coordinates."""
    return "block" in model.architecture["layers"][0]


def with_measure(model: FlowModel, measure: str) -> FlowModel:
    """The same weights, with ln p taken in another measure."""
    architecture, tensors = model_file.unpack(model.to_bytes())
    return FlowModel.from_bytes(model_file.pack({**architecture, "measure": measure}, tensors))


class Copies:
    """The dynamics of all copies, in a folder: it stops at any time and goes on.

    Parameters
    ----------
    directory : made if it is not there.
    model : of one molecule.
    particle_masses : of the molecule, dalton.
    settings : how.

    The coordinates that are looked at are those of the model; with mixed coordinates those of a Z-matrix made from the bonds.

    Raises ValueError when the folder holds another run.
    """

    def __init__(self, directory, model: FlowModel, particle_masses, settings: Settings):
        self.model, self.settings = model, settings
        self.masses = [float(m) for m in particle_masses]
        self.z_matrix = builder.covering_z_matrix(model.architecture)
        self.directory = Path(directory)
        self._checkpoint = self.directory / "checkpoint.npz"
        self.directory.mkdir(parents=True, exist_ok=True)
        self._check({"model": model.checksum, "masses": self.masses, "settings": asdict(settings),
                     "openmm": openmm.version.version})
        size, copies = model.num_particles, settings.copies
        system = openmm.System()
        force = FlowForce(model)
        for copy in range(copies):
            for mass in self.masses:
                system.addParticle(mass)
            force.addMolecule(range(copy * size, (copy + 1) * size))
        system.addForce(force)
        self._integrator = openmm.LangevinMiddleIntegrator(model.temperature, settings.friction, settings.step_size)
        self._integrator.setRandomNumberSeed(settings.seed)
        self.context = openmm.Context(system, self._integrator, openmm.Platform.getPlatformByName("CPU"), {"Threads": str(settings.threads)})
        self.intervals = 0
        """Intervals done."""
        self.sums = np.zeros((copies, model.num_coordinates))
        """Sums over time of each copy's coordinates: angles of torsions as their sine, which is enough for a mean."""
        if self._checkpoint.exists():
            with np.load(self._checkpoint) as stored:
                self.context.loadCheckpoint(stored["context"].tobytes())
                self.intervals, self.sums = int(stored["intervals"]), stored["sums"]
        else:
            positions, _ = model.sample(copies, seed=settings.seed)
            self.context.setPositions(positions.reshape(-1, 3))
            velocities = maxwell_velocities(system, model.temperature, np.random.default_rng(settings.seed))
            forces = self.context.getState(forces=True).getForces(asNumpy=True)._value
            self.context.setVelocities(kick(velocities, forces, masses(system), -0.5 * settings.step_size))

    def _check(self, identity: dict):
        path = self.directory / "settings.json"
        if path.exists() and json.loads(path.read_text()) != json.loads(json.dumps(identity)):
            raise ValueError(f"{self.directory} holds a run of another model or with other settings; use another folder")
        atomic.write_json(path, identity)

    def positions(self) -> np.ndarray:
        """(copies, particles, 3), nm"""
        state = self.context.getState(positions=True)
        return state.getPositions(asNumpy=True)._value.reshape(self.settings.copies, -1, 3)

    def coordinates(self) -> np.ndarray:
        """Internal coordinates (copies, coordinates): bonds in nm, angles/π, torsions from 0 to 1."""
        return builder.internal_coordinates(self.positions(), self.z_matrix)

    def advance(self, *, stop: Callable[[], bool] = lambda: False, progress: bool = True, checkpoint_seconds: float = 60.0) -> bool:
        """Run to the end or until ``stop`` returns True; whether the end was reached."""
        s = self.settings
        last = time.monotonic()
        with tqdm(total=s.num_intervals, initial=self.intervals, unit="interval", desc=self.directory.name, disable=not progress) as bar:
            while self.intervals < s.num_intervals and not stop():
                self._integrator.step(s.steps_per_interval)
                self.intervals += 1
                if self.intervals * s.interval > s.relaxation:
                    self.sums += _linear(self.coordinates(), self.model.num_particles)
                bar.update()
                if time.monotonic() - last > checkpoint_seconds:
                    self._store()
                    last = time.monotonic()
        self._store()
        return self.intervals >= s.num_intervals

    def _store(self):
        buffer = io.BytesIO()
        np.savez(buffer, intervals=self.intervals, sums=self.sums, context=np.frombuffer(self.context.createCheckpoint(), dtype=np.uint8))
        atomic.write_bytes(self._checkpoint, buffer.getvalue())

    def time_means(self) -> np.ndarray:
        """Mean over time of each copy (copies, coordinates), torsions as their sine; from ``relaxation`` on."""
        s = self.settings
        return self.sums / sum(i * s.interval > s.relaxation for i in range(1, self.intervals + 1))


def _linear(coordinates, num_particles: int) -> np.ndarray:
    """Coordinates whose mean makes sense: torsions replaced by the sine of the angle."""
    values = np.array(coordinates)
    first_torsion = 2 * num_particles - 3
    values[:, first_torsion:] = -np.sin(2 * np.pi * values[:, first_torsion:])
    return values


def coordinate_names(z_matrix) -> list[str]:
    """Names of the internal coordinates, in the model's order: "bond 1-0", "angle 2-1-0", "torsion 3-2-1-0"."""
    second = next(row for row in z_matrix if list(row).count(-1) == 2)
    third = next(row for row in z_matrix if list(row).count(-1) == 1)
    full = [row for row in z_matrix if -1 not in row]
    return ([f"bond {row[0]}-{row[1]}" for row in (second, third, *full)]
            + [f"angle {row[0]}-{row[1]}-{row[2]}" for row in (third, *full)]
            + ["torsion " + "-".join(map(str, row)) for row in full])


# --- Tests -------------------------------------------------------------------------------------------------------------------

def z_scores(first, second, weights=None) -> np.ndarray:
    """Difference of the means of independent samples (n, columns), first less second, in standard errors: (columns,).

    ``weights`` (n,) are of ``second``, whose mean and error are then those of importance sampling.
    """
    weights = np.ones(len(second)) if weights is None else np.asarray(weights)
    share = weights / weights.sum()
    mean = share @ second
    variance = share ** 2 @ (second - mean) ** 2
    return (first.mean(axis=0) - mean) / np.sqrt(first.var(axis=0, ddof=1) / len(first) + variance)


def compare(coordinates, reference, latents, num_particles: int) -> dict:
    """Whether two sets of conformations are samples of one distribution.

    Parameters
    ----------
    coordinates, reference : internal coordinates (n, coordinates) of both.
    latents : of the first set, mapped by the base density's cumulative distribution: independent and uniform on [0,1] if the
        set is of the flow's density, so that they test the joint distribution; rows with NaN (outside of the support) are
        counted and left out.

    Returns a JSON document with Kolmogorov-Smirnov tests of every coordinate and latent, z-tests of every mean (torsions: of
    cosine and sine), and the smallest p-value, multiplied by the number of tests.
    """
    first_torsion = 2 * num_particles - 3
    columns = coordinates.shape[1]
    p = {"kolmogorovSmirnov": [stats.ks_2samp(coordinates[:, i], reference[:, i], method="asymp").pvalue for i in range(columns)]}

    def moments(values):
        turn = 2 * np.pi * values[:, first_torsion:]
        return np.hstack([values[:, :first_torsion], np.cos(turn), np.sin(turn)])

    p["z"] = (2 * stats.norm.sf(np.abs(z_scores(moments(coordinates), moments(reference))))).tolist()
    inside = np.isfinite(latents).all(axis=1)
    p["latentKolmogorovSmirnov"] = [stats.kstest(latents[inside, i], "uniform").pvalue for i in range(columns)]
    tests = sum(map(len, p.values()))
    smallest = {name: float(min(values)) for name, values in p.items()}
    corrected = min(1.0, tests * min(smallest.values()))
    return {"tests": tests, "smallestP": smallest, "correctedP": corrected, "stationary": corrected > SIGNIFICANCE,
            "outsideOfSupport": int((~inside).sum())}


def base_cdf(model: FlowModel, latents) -> np.ndarray:
    """Latents (n, coordinates) mapped to [0,1] by the cumulative distribution of the base density."""
    architecture, tensors = model_file.unpack(model.to_bytes())
    uniform = np.array(latents, dtype=float)
    for entry, base in enumerate(architecture["base"]):
        if base["distribution"] == "uniform":
            continue
        mean, std = (np.asarray(tensors[f"base.{entry}.{name}"], dtype=float) for name in ("mean", "std"))
        columns = base["coordinates"]
        value = stats.norm.cdf((uniform[:, columns] - mean) / std)
        if base["distribution"] == "truncatedNormal":
            low, high = stats.norm.cdf((0 - mean) / std), stats.norm.cdf((1 - mean) / std)
            value = (value - low) / (high - low)
        uniform[:, columns] = value
    return uniform


def figures(copies: Copies, cartesian: FlowModel) -> dict:
    """What the finished run shows, as a JSON document.

    ``cartesian`` is the model with measure "cartesian", whose density the samples are of.
    """
    s, size = copies.settings, copies.model.num_particles
    reference_positions, _ = cartesian.sample(s.reference, seed=s.seed + 1_000_000_007)
    reference = builder.internal_coordinates(reference_positions, copies.z_matrix)
    final = copies.positions()
    result = {"measure": copies.model.measure, "settings": asdict(s), "masses": copies.masses, "parameters": copies.model.num_parameters,
              "model": copies.model.checksum, "temperature": copies.model.temperature,
              "end": compare(copies.coordinates(), reference, base_cdf(cartesian, cartesian.to_latent(final)), size)}
    means = copies.time_means()
    linear = _linear(reference, size)
    score = z_scores(means, linear)
    result["timeMeans"] = {"tests": len(score), "largestZ": float(np.abs(score).max()),
                           "of": coordinate_names(copies.z_matrix)[int(np.abs(score).argmax())],
                           "correctedP": float(min(1.0, len(score) * 2 * stats.norm.sf(np.abs(score).max())))}
    if has_block(cartesian):
        return result
    # What measure "frame" samples: p times the volume element of the frame that it leaves out.
    d01, d12, angle = reference[:, 0], reference[:, 1], np.pi * reference[:, size - 1]
    weights = d01 ** 2 * d12 * np.sin(angle)
    predicted_score = z_scores(means, linear, weights)
    result["frame"] = {}
    for name, column, power in (("d01", 0, 2), ("d12", 1, 1)):
        mean, spread = linear[:, column].mean(), linear[:, column].std()
        shift = means[:, column].mean() - mean
        error = np.sqrt(means[:, column].var(ddof=1) / s.copies + spread ** 2 / s.reference)
        result["frame"][name] = {
            "mean": float(mean), "shift": float(shift), "error": float(error), "sigmas": float(shift / error),
            "predicted": float(weights @ linear[:, column] / weights.sum() - mean),
            "predictedByWidth": float(power * spread ** 2 / mean), "zOfPrediction": float(predicted_score[column])}
    result["frame"]["largestZOfPrediction"] = float(np.abs(predicted_score[:2 * size - 3]).max())
    return result


def describe(result: dict) -> str:
    """The figures in a few lines."""
    s, end, means = result["settings"], result["end"], result["timeMeans"]
    lines = [f"{s['copies']} copies, {s['length']:g} ps at {result['temperature']:g} K, measure {result['measure']!r}, "
             f"{result['parameters']:,} parameters",
             f"  at the end: {end['tests']} tests, smallest p {min(end['smallestP'].values()):.2e}, corrected {end['correctedP']:.2e}: "
             f"{'stationary' if end['stationary'] else 'NOT stationary'}; {end['outsideOfSupport']} outside of the support",
             f"  means over time: largest |z| {means['largestZ']:.1f} ({means['of']}), corrected p {means['correctedP']:.2e}"]
    for name in ("d01", "d12") if "frame" in result else ():
        bond = result["frame"][name]
        lines.append(f"  {name}: longer by {1e6 * bond['shift']:.1f} ± {1e6 * bond['error']:.1f} fm ({bond['sigmas']:.1f} σ); measure 'frame' "
                     f"predicts {1e6 * bond['predicted']:.1f} fm (from the width {1e6 * bond['predictedByWidth']:.1f} fm)")
    return "\n".join(lines)


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m openmmflow.stationarity", formatter_class=argparse.ArgumentDefaultsHelpFormatter,
                                     description="Does dynamics in the potential of a flow keep the flow's distribution?")
    parser.add_argument("model", type=Path, help="a model file")
    parser.add_argument("--pdb", type=Path, required=True, help="the molecule, for its masses")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the runs; the figures go to stationarity.json there")
    parser.add_argument("--hydrogen-mass", type=float, default=None, metavar="DALTON",
                        help="least mass of an atom: heavier hydrogens allow longer steps, and masses do not change the distribution")
    parser.add_argument("--measure", choices=("cartesian", "frame"), nargs="+", default=None,
                        help="of the dynamics: both, but for models with mixed coordinates, which have dynamics in \"cartesian\" alone")
    defaults = Settings()
    for name, value in asdict(defaults).items():
        parser.add_argument("--" + name.replace("_", "-"), type=type(value), default=value)
    options = parser.parse_args(arguments)
    settings = Settings(**{name: getattr(options, name) for name in asdict(defaults)})
    model = FlowModel.load(options.model)
    measures = options.measure or (["cartesian"] if has_block(model) else ["cartesian", "frame"])
    if has_block(model) and (model.measure != "cartesian" or measures != ["cartesian"]):
        parser.error("a model with mixed coordinates is no potential of conformations in measure 'frame'")
    cartesian = with_measure(model, "cartesian")
    particle_masses = [atom.element.mass._value for atom in read_pdb(options.pdb).topology.atoms()]
    if options.hydrogen_mass:
        particle_masses = [max(mass, options.hydrogen_mass) for mass in particle_masses]
    path = options.output / "stationarity.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    with InterruptFlag() as stop:
        for measure in measures:
            copies = Copies(options.output / measure, with_measure(cartesian, measure), particle_masses, settings)
            if not copies.advance(stop=stop):
                print("interrupted; the same command goes on", file=sys.stderr)
                return 130
            results[measure] = figures(copies, cartesian)
            print(describe(results[measure]), flush=True)
            atomic.write_json(path, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
