# SPDX-License-Identifier: MIT
"""Crossings of the φ-basins of alanine dipeptide: counted for Monte Carlo, and bounded for dynamics by docs/sampling/crossings.json."""
import json
from pathlib import Path

import numpy as np

from openmmflow import FlowModel, analysis, crossings, shipped
from openmmflow.demo import force_field_molecule

FIGURES = Path(__file__).parents[2] / "docs" / "sampling" / "crossings.json"


def test_monte_carlo_crosses_a_thousand_times_as_often_as_dynamics():
    """The rate of leaving the basin comes from the committed run of nanoseconds; both speeds are those of this machine now."""
    model, system = FlowModel.load(shipped.MODEL), force_field_molecule().system
    monte_carlo = crossings.monte_carlo_crossings(model, system, temperature=300.0, seconds=4.0, seed=2)
    starts = crossings.equilibrium_starts(model, system, 1, temperature=300.0, samples=3000, seed=4)
    phi = analysis.torsion_angles(starts, crossings.PHI)
    assert analysis.in_alpha_l(phi).all()
    dynamics = crossings.leaving_rate(system, starts, temperature=300.0, length=10.0)
    committed = json.loads(FIGURES.read_text())
    print(crossings.describe(committed))
    limit = 2 * committed["monteCarlo"]["population"] * committed["dynamics"]["rateLimit"] * dynamics["nanosecondsPerSecond"]
    ratio = monte_carlo["crossingsPerSecond"] / limit
    print(f"now: {monte_carlo['crossings']} crossings in {monte_carlo['processorSeconds']:.1f} s of processor time, acceptance "
          f"{100 * monte_carlo['acceptance']:.1f} %, population {monte_carlo['population']:.3f} ± {monte_carlo['populationError']:.3f}; dynamics "
          f"{1000 * dynamics['nanosecondsPerSecond']:.1f} ps a second; crossings per second at least {ratio:,.0f} times those of dynamics")
    assert committed["ratio"] >= 1000
    assert ratio >= 1000
    assert monte_carlo["acceptance"] > 0.1


def test_population_of_monte_carlo_is_that_of_reweighted_samples():
    """Two ways from the flow to the force field's population: the Markov chain, and independent weights."""
    from openmmflow import reweighting, sampling

    model, system = FlowModel.load(shipped.MODEL), force_field_molecule().system
    positions, log_prob = model.sample(6000, seed=11)
    energies = sampling.PotentialEnergy(system, model.num_particles)(positions)
    weights = reweighting.log_weights(log_prob, energies, 300.0)
    population, error = reweighting.expectation(weights, analysis.in_alpha_l(analysis.torsion_angles(positions, crossings.PHI)))
    committed = json.loads(FIGURES.read_text())["monteCarlo"]
    print(f"population of φ > 0: {population:.4f} ± {error:.4f} reweighted, {committed['population']:.4f} ± {committed['populationError']:.4f} "
          "Monte Carlo")
    assert abs(population - committed["population"]) < 4 * np.hypot(error, committed["populationError"])
    assert error < 0.01
