# SPDX-License-Identifier: MIT
"""A flow next to the force field that it learned from, as distributions: what samples are worth, how far both are apart,
populations.
"""
from __future__ import annotations

import numpy as np

from . import FlowModel, analysis, reweighting


def ensemble_figures(model: FlowModel, positions, log_prob, energies, data_positions, data_energies, torsion, *, temperature: float,
                     state=analysis.in_alpha_l, block: int = 1000) -> dict:
    """Figures of samples of a flow and of equilibrium data of a force field, as a JSON document.

    Parameters
    ----------
    model : the flow.
    positions, log_prob, energies : of independent samples (``openmmflow.sampling``): (samples, particles, 3) nm, (samples,) ln
        p in measure "cartesian", (samples,) kJ/mol in the force field.
    data_positions, data_energies : lists, one entry for each trajectory in order of time: (frames, particles, 3) nm, (frames,)
        kJ/mol.
    torsion : the four particles of the torsion whose state is asked for.
    temperature : of the data, K.
    state : from the torsion (radian) to whether it is in the state.
    block : length in frames of nearly independent blocks of the data.

    Returns
    -------
    dict
        JSON document: ``freeEnergy`` is -ln Z from the samples alone, ``freeEnergyBar`` that of samples and data together,
        ``divergence`` KL(data, flow); ``state`` has -ln(P/(1-P)) of both, and whether they agree within their joint 95 %
        interval. Everything in k_BT.
    """
    weights = reweighting.log_weights(log_prob, energies, temperature)
    quality = reweighting.quality(weights)
    data_log_prob = [analysis.cartesian_log_prob(model, x, model.log_prob(x)) for x in data_positions]
    comparison = reweighting.compare_with_data(log_prob, energies, data_log_prob, data_energies, temperature, block=block)
    inside = state(analysis.torsion_angles(positions, torsion))
    flow, flow_error = reweighting.free_energy_difference(weights, inside)
    data = analysis.basin_free_energy([state(analysis.torsion_angles(x, torsion)) for x in data_positions], block=block)
    joint = float(np.hypot(flow_error, data.error))
    relative = np.exp(weights - weights.max())
    return {
        "samples": quality.samples, "effectiveSamples": quality.effective_samples,
        "effectiveFraction": quality.effective_samples / quality.samples, "largestWeightShare": quality.largest_share,
        "paretoK": quality.pareto_k, "freeEnergy": quality.free_energy, "freeEnergyError": quality.free_energy_error,
        "frames": int(sum(map(len, data_energies))), "freeEnergyBar": comparison.free_energy,
        "freeEnergyBarError": comparison.free_energy_error, "overlap": comparison.overlap,
        "divergence": comparison.divergence, "divergenceError": comparison.divergence_error,
        "state": {
            "freeEnergy": flow, "error": flow_error, "samples": int(inside.sum()),
            "effectiveSamples": analysis.effective_samples(relative[inside]),
            "forceField": data.free_energy, "forceFieldError": data.error, "framesInState": int(
                sum(state(analysis.torsion_angles(x, torsion)).sum() for x in data_positions)),
            "difference": flow - data.free_energy, "jointError": joint, "standardErrors": abs(flow - data.free_energy) / joint,
            "withinJoint95": bool(abs(flow - data.free_energy) <= 1.96 * joint)}}


def describe(figures: dict) -> str:
    """The figures in a few lines."""
    f, s = figures, figures["state"]
    return "\n".join([
        f"{f['samples']:,} samples: {f['effectiveSamples']:,.0f} effective ({100 * f['effectiveFraction']:.1f} %), largest weight "
        f"{100 * f['largestWeightShare']:.2f} %, Pareto k {f['paretoK']:.2f}",
        f"-ln Z: {f['freeEnergy']:.3f} ± {f['freeEnergyError']:.3f} from the samples, {f['freeEnergyBar']:.3f} ± {f['freeEnergyBarError']:.3f} with "
        f"{f['frames']:,} frames (overlap {f['overlap']:.2f})",
        f"KL(data, flow) = {f['divergence']:.3f} ± {f['divergenceError']:.3f} k_BT",
        f"φ-basin: {s['freeEnergy']:.3f} ± {s['error']:.3f} reweighted, {s['forceField']:.3f} ± {s['forceFieldError']:.3f} force field: "
        f"{s['standardErrors']:.2f} joint standard errors apart, {'within' if s['withinJoint95'] else 'OUTSIDE of'} the joint 95 % interval"])
