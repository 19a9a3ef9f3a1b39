# SPDX-License-Identifier: MIT
"""Time of a step, a force and an energy of the shipped model on every platform it runs on, next to its classical force field.

Part of ``./dev bench``. Each figure is the median of repeated timings; the machine should have nothing else to do.
"""
import argparse
import os
import platform
import statistics
import time

import openmm
from openmm import unit

import openmmflow
from openmmflow import dataset, shipped

REPEATS = 7


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--molecules", type=int, nargs="+", default=[1, 16], help="numbers of molecules in the System")
    parser.add_argument("--seconds", type=float, default=0.3, help="length of one timing")
    options = parser.parse_args()

    print(f"{processor()}, {os.cpu_count()} cores; OpenMM {openmm.Platform.getOpenMMVersion()}, "
          f"openmmflow {openmmflow.__version__}, model {openmmflow.FlowModel.load(shipped.MODEL).checksum}")
    print(f"{'potential':<12}{'platform':<12}{'molecules':>10}{'step, µs':>12}{'forces, µs':>12}{'energy, µs':>12}{'ns/day, 1 fs':>14}")
    for name in platforms():
        for molecules in options.molecules:
            row("flow", name, molecules, flow_system(molecules), options.seconds)
        row("force field", name, 1, dataset.implicit_solvent_system(dataset.alanine_dipeptide().topology), options.seconds)


def platforms() -> list[str]:
    """The platforms that FlowForce runs on."""
    names = (openmm.Platform.getPlatform(index).getName() for index in range(openmm.Platform.getNumPlatforms()))
    return [name for name in names if not openmmflow.why_not_supported(name)]


def flow_system(molecules: int) -> openmm.System:
    """A System of molecules in the potential of the shipped model, all in one force."""
    force = openmmflow.FlowForce(shipped.MODEL)
    system = openmm.System()
    for molecule in range(molecules):
        first = system.getNumParticles()
        for atom in dataset.alanine_dipeptide().topology.atoms():
            system.addParticle(atom.element.mass)
        force.addMolecule(range(first, system.getNumParticles()))
    system.addForce(force)
    return system


def row(potential: str, name: str, molecules: int, system: openmm.System, seconds: float):
    """Print one line of the table."""
    start = dataset.alanine_dipeptide().getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName(name))
    context.setPositions([position for _ in range(molecules) for position in start])
    openmm.LocalEnergyMinimizer.minimize(context, 10, 200)
    context.setVelocitiesToTemperature(300, 1)
    forces = median_time(lambda: context.getState(forces=True), seconds)
    energy = median_time(lambda: context.getState(energy=True), seconds)
    steps = 20
    step = median_time(lambda: (context.getIntegrator().step(steps), context.getState(positions=True)), seconds) / steps
    print(f"{potential:<12}{name:<12}{molecules:>10}{1e6 * step:>12.1f}{1e6 * forces:>12.1f}{1e6 * energy:>12.1f}"
          f"{86400 / step * 1e-6:>14.1f}", flush=True)


def median_time(call, seconds: float) -> float:
    """Seconds that a call takes: the median over repeats that together take about `seconds`."""
    call()
    begin = time.perf_counter()
    call()
    count = max(1, int(seconds / REPEATS / (time.perf_counter() - begin)))
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        for _ in range(count):
            call()
        times.append((time.perf_counter() - begin) / count)
    return statistics.median(times)


def processor() -> str:
    """The name of this machine's processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
