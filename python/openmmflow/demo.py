# SPDX-License-Identifier: MIT
"""The main job, shown: molecular dynamics of alanine dipeptide in the shipped model, next to its force field."""
from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Callable

import openmm
from openmm import unit

from . import analysis, atomic, plots, shipped
from .dataset import ALANINE_DIPEPTIDE_FORCE_FIELD, implicit_solvent_system
from .simulate import Molecule, flow_molecule, read_pdb, thermal_start
from .stored_run import Settings, StoredRun, discard

FORCE_FIELD = "amber99sbildn + OBC"


@dataclass(frozen=True)
class Result:
    """The figures of one potential; energies in kJ/mol, those of "per degree of freedom" divided by the 66 of the molecule."""

    steps_per_second: float
    nanoseconds_per_day: float
    nvt_temperature: float
    nvt_potential_energy: float
    nvt_kinetic_energy: float
    nve_total_energy: float
    nve_fluctuation: float
    nve_drift: float


_ROWS = (
    ("speed, steps/s", "steps_per_second", "{:,.0f}"),
    ("speed at 1 fs, ns/day", "nanoseconds_per_day", "{:,.1f}"),
    ("NVT  mean temperature, K", "nvt_temperature", "{:.1f}"),
    ("NVT  mean potential energy, kJ/mol", "nvt_potential_energy", "{:.2f}"),
    ("NVT  mean kinetic energy, kJ/mol", "nvt_kinetic_energy", "{:.2f}"),
    ("NVE  mean total energy, kJ/mol", "nve_total_energy", "{:.2f}"),
    ("NVE  fluctuation per degree of freedom, kJ/mol", "nve_fluctuation", "{:.5f}"),
    ("NVE  drift per degree of freedom, kJ/mol/ps", "nve_drift", "{:.1e}"),
)


def force_field_molecule(pdb_path=shipped.STRUCTURE) -> Molecule:
    """Alanine dipeptide in the force field that made the shipped model's data."""
    pdb = read_pdb(pdb_path)
    return Molecule(pdb.topology, implicit_solvent_system(pdb.topology),
                    pdb.getPositions(asNumpy=True).value_in_unit(unit.nanometer),
                    {"potential": FORCE_FIELD, "forceField": list(ALANINE_DIPEPTIDE_FORCE_FIELD), "structure": Path(pdb_path).name})


def steps_per_second(molecule: Molecule, settings: Settings, positions, velocities, *, seconds: float = 2.0) -> float:
    """Speed of the bare integration, without any reports."""
    platform, properties = settings.platform_and_properties()
    integrator = settings.integrator()
    context = openmm.Context(molecule.system, integrator, platform, properties)
    context.setPositions(positions)
    context.setVelocities(velocities)
    integrator.step(20)
    steps, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        integrator.step(100)
        steps += 100
    # Asking for the state waits for whatever a GPU still has to do.
    context.getState(positions=True)
    return steps / (time.perf_counter() - begin)


def run_one(directory: Path, name: str, molecule: Molecule, *, nvt_steps: int, nve_steps: int, seed: int, platform: str,
            progress: bool, stop: Callable[[], bool], nve_start=None):
    """NVT, then NVE from ``nve_start`` (positions, velocities), or from where NVT ended if that is None.

    Returns the result, what there is to plot, and the start of NVE; None when ``stop`` returned True.
    """
    nvt = Settings(ensemble="nvt", seed=seed, platform=platform, report_interval=20, trajectory_interval=100)
    nve = Settings(ensemble="nve", seed=seed, platform=platform, report_interval=10, trajectory_interval=100)
    for part in ("nvt", "nve"):
        discard(directory / part)

    def thermalized():
        return thermal_start(molecule, temperature=nvt.temperature, seed=seed, steps=5000)

    with StoredRun(directory / "nvt", molecule.topology, molecule.system, nvt, description=molecule.description,
                   start=thermalized) as run:
        if not run.advance(nvt_steps, progress=progress, stop=stop, label=f"{name}, NVT"):
            return None
        nvt_energies, positions = run.energies(), run.positions()
        end = run.simulation.context.getState(positions=True, velocities=True)
    if nve_start is None:
        nve_start = end.getPositions(asNumpy=True)._value, end.getVelocities(asNumpy=True)._value
    with StoredRun(directory / "nve", molecule.topology, molecule.system, nve, description=molecule.description,
                   start=lambda: nve_start) as run:
        if not run.advance(nve_steps, progress=progress, stop=stop, label=f"{name}, NVE"):
            return None
        nve_energies = run.energies()

    (phi, psi), = analysis.backbone_torsions(molecule.topology)
    torsions = analysis.torsion_angles(positions, phi), analysis.torsion_angles(positions, psi)
    conservation = analysis.energy_conservation(
        nve_energies.time, nve_energies.total, analysis.degrees_of_freedom(molecule.system))
    speed = steps_per_second(molecule, nve, *nve_start)
    return Result(
        steps_per_second=speed, nanoseconds_per_day=speed * nve.step_size * 1e-6 * 86400,
        nvt_temperature=float(nvt_energies.temperature.mean()), nvt_potential_energy=float(nvt_energies.potential.mean()),
        nvt_kinetic_energy=float(nvt_energies.kinetic.mean()), nve_total_energy=float(nve_energies.total.mean()),
        nve_fluctuation=conservation.fluctuation, nve_drift=conservation.drift), torsions, nve_energies, nve_start


def table(results: dict[str, Result]) -> str:
    """The results side by side."""
    width = max(len(row[0]) for row in _ROWS)
    lines = [" " * width + "".join(f"{name:>22}" for name in results)]
    for label, field, form in _ROWS:
        lines.append(f"{label:<{width}}" + "".join(f"{form.format(getattr(result, field)):>22}" for result in results.values()))
    return "\n".join(lines)


def demo(directory, *, model=None, nvt_steps: int = 60_000, nve_steps: int = 20_000, seed: int = 1, platform: str = "Reference",
         progress: bool = True, stop: Callable[[], bool] = lambda: False) -> dict[str, Result] | None:
    """Run the demonstration and write ``ramachandran.png``, ``energy_conservation.png`` and ``results.json``.

    Returns the results by name of the potential, or None when ``stop`` returned True. An earlier demonstration in the folder is
    replaced.
    """
    directory = Path(directory)
    molecules = {"flow": flow_molecule(model or shipped.MODEL, shipped.STRUCTURE), FORCE_FIELD: force_field_molecule()}
    results, torsions, conserved = {}, {}, {}
    nve_start = None    # the same for all: how energy is conserved depends on how much of it there is
    for name, molecule in molecules.items():
        done = run_one(directory / name.split()[0], name, molecule, nvt_steps=nvt_steps, nve_steps=nve_steps, seed=seed,
                       platform=platform, progress=progress, stop=stop, nve_start=nve_start)
        if done is None:
            return None
        results[name], torsions[name], conserved[name], nve_start = done
    plots.save(plots.ramachandran(torsions, title=f"alanine dipeptide, NVT at 300 K, {nvt_steps / 1000:g} ps"),
               directory / "ramachandran.png")
    plots.save(plots.energy_conservation(conserved, analysis.degrees_of_freedom(molecules["flow"].system)),
               directory / "energy_conservation.png")
    atomic.write_json(directory / "results.json", {name: asdict(result) for name, result in results.items()})
    return results
