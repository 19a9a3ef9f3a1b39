# SPDX-License-Identifier: MIT
"""The parts of the certification: what must be run, and how figures come from it."""
from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Callable

import h5py
import numpy as np
import openmm

import openmmflow

from .. import analysis, data_quality, dataset, sampling, shipped
from ..demo import force_field_molecule
from ..ensemble import ensemble_figures
from ..hashes import sha256
from ..simulate import Molecule
from ..stored_run import Settings, maxwell_velocities
from ..trajectory import read_energies, read_positions
from .frames import read_frames
from .protocol import BASINS, ENERGY_SAMPLING, FRAME_ATOMS, KT, NVT_PLATFORM, PHI, PSI, TEMPERATURE, Protocol
from .runs import Job


PARTS = ("data", "accuracy", "published", "populations", "ensemble", "nve", "step_size", "nvt", "long_nve", "long_nvt")


class Certification:
    """The parts, their jobs, and how their figures come from the files of the jobs."""

    def __init__(self, model, frame_paths, cache, *, held_out_fraction: float = 0.1, protocol: Protocol = Protocol(), published=None):
        self.protocol = protocol
        self.model_path = Path(model).resolve()
        self.published = published
        self.model = openmmflow.FlowModel.load(self.model_path)
        self.model_hash = sha256(self.model_path)
        self.cache = Path(cache).resolve() / self.model_hash[:16]
        self.frames = read_frames(frame_paths)
        self.held_out = self.frames.held_out(held_out_fraction)
        self.cache.mkdir(parents=True, exist_ok=True)
        self.parts = {"data": self.data, "accuracy": self.accuracy, "populations": self.populations, "ensemble": self.ensemble,
                      "nve": self.nve, "step_size": self.step_size, "nvt": self.nvt, "long_nve": self.long_nve,
                      "long_nvt": self.long_nvt}
        if published is not None:
            self.parts["published"] = self.published_likelihood

    def jobs(self, part: str) -> list[Job]:
        """What must be run before the part's figures can be computed."""
        if part == "nve":
            return [self._nve_job(potential, start, 1.0, self.protocol.nve_length) for potential in ("flow", "amber") for start in range(self.protocol.starts)]
        if part == "step_size":
            # The runs at 1 fs are the first piece of those of "nve".
            return [self._nve_job(potential, start, size, self.protocol.step_size_length if size < 1.0 else self.protocol.nve_length)
                    for size in self.protocol.step_sizes for potential in ("flow", "amber") for start in range(self.protocol.starts)]
        if part == "nvt":
            return [self._nvt_job(self.cache / "nvt" / basin, index, self.protocol.nvt_length) for index, basin in enumerate(BASINS)]
        if part == "long_nve":
            return [self._nve_job("flow", 0, 1.0, self.protocol.long_nve_length)]
        if part == "long_nvt":
            return [self._nvt_job(self.cache / "nvt" / next(iter(BASINS)), 0, self.protocol.long_nvt_length)]
        return []

    def _nvt_job(self, directory, start, length) -> Job:
        settings = Settings(ensemble="nvt", step_size=1.0, temperature=TEMPERATURE, friction=1.0, seed=1 + start, report_interval=100,
                            trajectory_interval=100, platform=NVT_PLATFORM)
        return Job(directory, self.model_path, "flow", settings, round(length * 1000), self._starts("basins", self._basin_frames), start)

    def _nve_job(self, potential, start, step_size, length) -> Job:
        settings = Settings(ensemble="nve", step_size=step_size, temperature=TEMPERATURE,
                            report_interval=round(ENERGY_SAMPLING / step_size), trajectory_interval=10 ** 9)
        return Job(self.cache / "nve" / f"{potential}-{step_size:g}fs" / str(start), self.model_path, potential, settings,
                   round(length * 1000 / step_size), self._starts("nve", self._nve_frames), start)

    def _nve_frames(self) -> np.ndarray:
        """Held-out frames at even distances."""
        positions = np.concatenate(self.held_out.positions)
        return positions[(2 * np.arange(self.protocol.starts) + 1) * len(positions) // (2 * self.protocol.starts)]

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

    def data(self) -> dict:
        """How independent the frames are, and whether the runs agree.

        populationError : of the φ-basin, relative; 1 if a run has never been there.
        """
        runs = [data_quality.run_quality(name, positions, dataset.alanine_dipeptide().topology)
                for name, positions in zip(self.frames.names, self.frames.positions)]
        return {"frames": sum(run.frames for run in runs), "inefficiency": max(run.inefficiency for run in runs),
                "disagreement": data_quality.disagreement(runs),
                "populationError": max(run.error / run.population if run.population else 1.0 for run in runs),
                "runs": [dataclasses.asdict(run) for run in runs]}

    def ensemble(self) -> dict:
        """Samples of the flow reweighted to the force field, and how far both are apart."""
        path, molecule = self.cache / "samples.h5", force_field_molecule()
        sampling.sample(path, self.model, self.protocol.samples, system=molecule.system, topology=molecule.topology)
        samples = sampling.read(path)
        with h5py.File(path, "r") as file:
            positions = file["coordinates"][:].astype(float)
        figures = ensemble_figures(self.model, positions, samples.log_prob, samples.energies, self.frames.positions,
                                   self.frames.energies, PHI, temperature=TEMPERATURE, block=self.protocol.block)
        return {**figures, "basinDifference": figures["state"]["standardErrors"]}

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
            "forceField": {"population": reference.population, "freeEnergy": reference.free_energy, "error": reference.error,
                                "populationOfEachFile": [float(s.mean()) for s in in_basin]},
            "flow": {"population": flow.population, "freeEnergy": flow.free_energy, "error": flow.error,
                     "effectiveSamples": flow.effective_samples,
                     "effectiveSamplesInBasin": analysis.effective_samples(weights[inside])},
            "difference": difference, "differenceError": error, "absoluteDifference": abs(difference)}

    def nve(self) -> dict:
        """Energy conservation at 1 fs."""
        jobs = self.jobs("nve")
        found = {potential: [self._conservation(job, until=self.protocol.nve_length) for job in jobs
                             if job.potential == potential] for potential in ("flow", "amber")}
        fluctuation = {name: np.array([c.fluctuation for c in runs]) for name, runs in found.items()}
        drift = {name: np.array([c.drift for c in runs]) for name, runs in found.items()}
        return {
            "starts": self.protocol.starts, "length": self.protocol.nve_length, "stepSize": 1.0, "platform": "Reference",
            "degreesOfFreedom": self._degrees_of_freedom(),
            "fluctuation": float(fluctuation["flow"].mean()), "fluctuationAmber": float(fluctuation["amber"].mean()),
            "fluctuationRatio": float(fluctuation["flow"].mean() / fluctuation["amber"].mean()),
            "drift": float(drift["flow"].mean()), "driftAmber": float(drift["amber"].mean()),
            "fluctuationOfEachStart": {name: values.tolist() for name, values in fluctuation.items()},
            "driftOfEachStart": {name: values.tolist() for name, values in drift.items()}}

    def step_size(self) -> dict:
        """How the fluctuation grows with the step size."""
        figures = {"starts": self.protocol.starts, "length": self.protocol.step_size_length, "stepSizes": list(self.protocol.step_sizes)}
        for potential, suffix in (("flow", ""), ("amber", "Amber")):
            fluctuation = np.empty((self.protocol.starts, len(self.protocol.step_sizes)))
            for job in self.jobs("step_size"):
                if job.potential == potential:
                    column = self.protocol.step_sizes.index(job.settings.step_size)
                    fluctuation[job.start, column] = self._conservation(job, until=self.protocol.step_size_length).fluctuation
            exponent, error = analysis.step_size_exponent(self.protocol.step_sizes, fluctuation)
            figures.update({f"exponent{suffix}": exponent, f"exponentError{suffix}": error,
                            f"fluctuation{suffix}": fluctuation.mean(axis=0).tolist()})
        return figures

    def nvt(self) -> dict:
        """Whether dynamics stays where the model has density."""
        runs = {}
        for basin, job in zip(BASINS, self.jobs("nvt")):
            # One of them may have been continued for the part "long_nvt".
            count = job.steps // job.settings.trajectory_interval
            positions = read_positions(job.directory / "trajectory.dcd")[:count]
            energies = read_energies(job.directory / "energies.csv").until(self.protocol.nvt_length)
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
        return {"length": self.protocol.nvt_length, "stepSize": 1.0, "friction": 1.0, "platform": NVT_PLATFORM, "basins": len(runs),
                "smallestFractionInSupport": min(run["fractionInSupport"] for run in runs.values()),
                "smallestFractionInInnerSupport": min(run["fractionInInnerSupport"] for run in runs.values()), "runs": runs}

    def long_nve(self) -> dict:
        """Energy conservation over a nanosecond, from the first of the starts of "nve"."""
        conservation = self._conservation(self.jobs("long_nve")[0])
        return {"length": self.protocol.long_nve_length, "stepSize": 1.0, "platform": "Reference",
                "fluctuation": conservation.fluctuation, "drift": conservation.drift}

    def long_nvt(self) -> dict:
        """Whether the thermostat holds the temperature and nothing ever breaks."""
        job = self.jobs("long_nvt")[0]
        energies = read_energies(job.directory / "energies.csv")
        temperature = analysis.mean_and_error(energies.temperature)
        return {"length": self.protocol.long_nvt_length, "stepSize": 1.0, "friction": 1.0, "platform": NVT_PLATFORM,
                "samples": len(energies.temperature), "allFinite": float(np.isfinite(energies.total).all()),
                "temperature": temperature[0], "temperatureError": temperature[1],
                "temperatureDeviation": abs(temperature[0] - TEMPERATURE)}

    def published_likelihood(self) -> dict:
        """The published checkpoint on the same held-out frames, both in its measure."""
        positions = np.concatenate(self.held_out.positions)
        published = self.published.log_prob(positions, dataset.alanine_dipeptide().topology)
        own = self.model.log_prob(positions) + analysis.log_frame_over_cartesian(positions, FRAME_ATOMS)
        inside = np.isfinite(published) & np.isfinite(own)
        difference = published - own
        # Blocks of 100 frames (25 ps) for the error: neighbours in time are correlated.
        means = [block.mean() for block in np.array_split(difference[inside], max(2, inside.sum() // 100))]
        return {"frames": len(positions), "fractionInBothSupports": float(inside.mean()),
                "negativeLogLikelihoodFrame": float(-published[inside].mean()),
                "negativeLogLikelihoodFrameOfShippedModel": float(-own[inside].mean()),
                "gain": float(-difference[inside].mean()), "gainError": float(np.std(means) / np.sqrt(len(means)))}

    def _conservation(self, job: Job, until: float = np.inf) -> analysis.EnergyConservation:
        energies = read_energies(job.directory / "energies.csv").until(until)
        return analysis.energy_conservation(energies.time, energies.total, self._degrees_of_freedom())

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
