# SPDX-License-Identifier: MIT
"""How often alanine dipeptide goes from one φ-basin to the other: Monte Carlo with a flow against molecular dynamics.

Both are of one System and one temperature. Monte Carlo's crossings are counted. Dynamics crosses too seldom to be counted from
the larger basin: copies start in the smaller one, and what is counted is how many leave it in the time that they spend there.
In equilibrium as many go as come, so dynamics crosses 2 P k times in unit time, P the population of the smaller basin and k the
rate of leaving. If few or none leave, k is bounded by the 95 % limit of a Poisson count. A copy has left when φ has come to the
middle of the other basin: crossings back and forth on the barrier do not count.

``python -m openmmflow.crossings -o crossings.json`` writes the figures of the shipped model.
"""
from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import openmm
from scipy import stats

from . import FlowModel, FlowMonteCarlo, analysis, atomic, shipped
from .demo import FORCE_FIELD, force_field_molecule
from .reweighting import log_weights
from .sampling import PotentialEnergy
from .stored_run import maxwell_velocities

PHI = (4, 6, 8, 14)
LEFT = np.radians([-150.0, -40.0])
"""φ between these is the middle of the larger basin."""


def monte_carlo_crossings(model: FlowModel, system: openmm.System, *, temperature: float, seconds: float, attempts: int = 4, seed: int = 1,
                          independence: float = 1.0) -> dict:
    """Run Monte Carlo alone for ``seconds`` of processor time; how often it crosses, and the population of the smaller basin.

    ``attempts`` moves lie between looks at φ; two crossings between looks are not seen. The error of the population is from
    blocks.
    """
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    positions, _ = model.sample(1, seed=seed)
    context.setPositions(positions[0])
    mover = FlowMonteCarlo(model, system, temperature=temperature, independence=independence, orientation="uniform", seed=seed)
    mover.step(context, 200)
    states = []
    begin, wall = time.process_time(), time.monotonic()
    while (used := time.process_time() - begin) < seconds:
        mover.step(context, attempts)
        states.append(bool(analysis.in_alpha_l(analysis.torsion_angles(context.getState(positions=True).getPositions(asNumpy=True)._value, PHI))))
    wall = time.monotonic() - wall
    states = np.array(states)
    crossings = int(np.sum(states[1:] != states[:-1]))
    means = np.array([block.mean() for block in np.array_split(states.astype(float), 20)])
    return {"processorSeconds": used, "wallSeconds": wall, "attempts": attempts * len(states), "crossings": crossings,
            "crossingsPerSecond": crossings / used, "acceptance": mover.statistics["independence"].acceptance,
            "population": float(states.mean()), "populationError": float(means.std(ddof=1) / np.sqrt(len(means)))}


def equilibrium_starts(model: FlowModel, system: openmm.System, count: int, *, temperature: float, samples: int, seed: int) -> np.ndarray:
    """Conformations (count, particles, 3) of the force field's ensemble within the smaller basin, by resampling the flow's."""
    positions, log_prob = model.sample(samples, seed=seed)
    positions, log_prob = (a[analysis.in_alpha_l(analysis.torsion_angles(positions, PHI))] for a in (positions, log_prob))
    weights = log_weights(log_prob, PotentialEnergy(system, model.num_particles)(positions), temperature)
    share = np.exp(weights - weights.max())
    chosen = np.random.default_rng(seed).choice(len(positions), count, p=share / share.sum())
    return positions[chosen]


def leaving_rate(system: openmm.System, starts, *, temperature: float, length: float, friction: float = 1.0, step_size: float = 0.001,
                 seed: int = 1) -> dict:
    """Rate (1/ns) at which dynamics leaves the smaller basin: LangevinMiddle from each of ``starts`` for ``length`` ps, or
    until it has left.
    """
    platform = openmm.Platform.getPlatformByName("Reference")
    inside, left, steps = 0.0, 0, 0
    begin = time.process_time()
    for index, start in enumerate(starts):
        integrator = openmm.LangevinMiddleIntegrator(temperature, friction, step_size)
        integrator.setRandomNumberSeed(seed + index)
        context = openmm.Context(system, integrator, platform)
        context.setPositions(start)
        context.setVelocities(maxwell_velocities(system, temperature, np.random.default_rng(seed + index)))
        for _ in range(round(length)):
            integrator.step(round(1 / step_size))
            steps += round(1 / step_size)
            inside += 1e-3
            phi = analysis.torsion_angles(context.getState(positions=True).getPositions(asNumpy=True)._value, PHI)
            if LEFT[0] < phi < LEFT[1]:
                left += 1
                break
    used = time.process_time() - begin
    return {"copies": len(starts), "nanoseconds": inside, "left": left, "rate": left / inside,
            "rateLimit": float(stats.chi2.ppf(0.95, 2 * left + 2) / 2 / inside), "processorSeconds": used,
            "nanosecondsPerSecond": inside / used, "stepSize": step_size, "friction": friction}


def crossing_figures(model: FlowModel, *, seconds: float, copies: int, length: float, samples: int = 40_000, seed: int = 1) -> dict:
    """Monte Carlo against dynamics of alanine dipeptide in the force field of the shipped model, as a JSON document.

    ``ratio`` takes the upper 95 % limit of dynamics' rate: it is a lower bound.
    """
    system, temperature = force_field_molecule().system, model.temperature
    monte_carlo = monte_carlo_crossings(model, system, temperature=temperature, seconds=seconds, seed=seed)
    starts = equilibrium_starts(model, system, copies, temperature=temperature, samples=samples, seed=seed + 1)
    dynamics = leaving_rate(system, starts, temperature=temperature, length=length, seed=seed)
    dynamics["crossingsPerNanosecond"] = 2 * monte_carlo["population"] * dynamics["rate"]
    dynamics["crossingsPerNanosecondLimit"] = 2 * monte_carlo["population"] * dynamics["rateLimit"]
    dynamics["crossingsPerSecondLimit"] = dynamics["crossingsPerNanosecondLimit"] * dynamics["nanosecondsPerSecond"]
    return {"model": model.checksum, "forceField": FORCE_FIELD, "temperature": temperature, "monteCarlo": monte_carlo, "dynamics": dynamics,
            "ratio": monte_carlo["crossingsPerSecond"] / dynamics["crossingsPerSecondLimit"]}


def describe(figures: dict) -> str:
    """The figures in a few lines."""
    mc, md = figures["monteCarlo"], figures["dynamics"]
    return "\n".join([
        f"Monte Carlo: {mc['crossings']} crossings in {mc['processorSeconds']:.1f} s of processor time ({mc['crossingsPerSecond']:.1f} a second), "
        f"acceptance {100 * mc['acceptance']:.1f} %, population of φ > 0 {100 * mc['population']:.2f} ± {100 * mc['populationError']:.2f} %",
        f"dynamics: {md['left']} of {md['copies']} copies left φ > 0 in {md['nanoseconds']:.2f} ns, so at most {md['crossingsPerNanosecondLimit']:.4f} "
        f"crossings a ns (95 %); {1000 * md['nanosecondsPerSecond']:.1f} ps a second",
        f"crossings per second, Monte Carlo over dynamics: at least {figures['ratio']:,.0f}"])


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m openmmflow.crossings", formatter_class=argparse.ArgumentDefaultsHelpFormatter,
                                     description="φ-basin crossings of alanine dipeptide: Monte Carlo with a flow against dynamics.")
    parser.add_argument("--model", type=Path, default=shipped.MODEL)
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON file")
    parser.add_argument("--seconds", type=float, default=60.0, help="of processor time for Monte Carlo")
    parser.add_argument("--copies", type=int, default=16, help="of the molecule, for dynamics")
    parser.add_argument("--length", type=float, default=500.0, help="ps of dynamics of each")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    figures = crossing_figures(FlowModel.load(options.model), seconds=options.seconds, copies=options.copies, length=options.length,
                               seed=options.seed)
    print(describe(figures))
    atomic.write_json(options.output, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
