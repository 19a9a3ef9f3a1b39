# SPDX-License-Identifier: MIT
"""What a flow knows of a conformation, as collective variables: Forces whose energy is the variable.

They go wherever OpenMM takes a Force as a variable: CustomCVForce.addCollectiveVariable, openmm.app.BiasVariable of Metadynamics. Both are
made of FlowForces with k_B T = 1 kJ/mol, so that they need no kernel of their own and run on every platform. The λ of these is the Context parameter
``CollectiveVariableScale``, which stays 1.

Inside of the flow's inner support (docs/theory.md) values are exact. Outside, -ln p goes on as FlowForce does, finite and rising; a latent
has no meaning there.
"""
from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import openmm
from openmm import unit

from . import model_file, model_summary
from ._flow_force import FlowForce
from ._flow_model import FlowModel
from ._units import as_index

SCALE_PARAMETER = "CollectiveVariableScale"
_UNIT_TEMPERATURE = 1 / unit.MOLAR_GAS_CONSTANT_R.value_in_unit(unit.kilojoule_per_mole / unit.kelvin)    # k_B T = 1 kJ/mol
_RADIUS = 0.5
"""Of the Möbius transformations that read a latent on a circle: neither flat nor steep."""


def negative_log_prob(model: FlowModel | str, particles: Iterable[int], *, periodic: bool = False) -> FlowForce:
    """The variable -ln p of a molecule: a FlowForce whose energy in kJ/mol is that number.

    Biasing it flattens the distribution of the flow's own energy (the well-tempered ensemble of Bonomi and Parrinello 2010, when the dynamics
    runs in the flow). In another potential it tells how far a conformation is from what the flow knows.

    Parameters
    ----------
    model : a FlowModel or the path of its file.
    particles : of the molecule, in the order of the model.
    periodic : whether the molecule may be torn by periodic boundaries and is made whole first.
    """
    if not isinstance(model, FlowModel):
        model = FlowModel.load(model)
    force = FlowForce(model)
    force.setName("NegativeLogProb")
    force.addMolecule(particles)
    force.setTemperature(_UNIT_TEMPERATURE)
    force.setScaleParameterName(SCALE_PARAMETER)
    force.setUsesPeriodicBoundaryConditions(periodic)
    return force


def latent(model: FlowModel | str, particles: Iterable[int], coordinate: int, *, periodic: bool = False) -> openmm.CustomCVForce:
    """The variable z_i, one latent of a molecule: a CustomCVForce whose energy in kJ/mol is that number, as FlowModel.to_latent has it.

    Latents of torsions are on a circle: from 0 to 1 turns, where they begin again. The value jumps there, its gradient does not. OpenMM's metadynamics
    knows such variables: ``BiasVariable(latent, 0, 1, width, periodic=True)``. A restraint takes a periodic function of the latent, such as
    ``1-cos(2*pi*(z-z0))``.

    ln p = ln q(z) + ln |det| holds with the same determinant whatever the base density q is, and a map g of one latent more adds ln g'(z_i). So FlowForces
    of flows that differ in one of both have differences that are functions of z_i alone, with exact gradients.

    - Elsewhere than on a circle q is a normal distribution of variance 1 in z_i, about 1/2 + m and about -1/2 + m. The difference of ln p is z_i - m, up
      to a constant that is 0 for the real line, and on [0,1] as well with m = 1/2, as the truncated distributions then are mirror images.
    - On a circle g is the Möbius transformation of centre c and radius r (docs/theory.md), g' = (1 - r²)/(1 + r² - 2r cos 2π(z_i - c)). c = 1/2 gives the
      cosine and c = 3/4 the sine of 2πz_i - π, and these the angle.

    Parameters
    ----------
    model, particles, periodic : as for :func:`negative_log_prob`.
    coordinate : index i of the latent, as in FlowModel.to_latent.

    Raises
    ------
    ValueError : there is no such latent.
    """
    if not isinstance(model, FlowModel):
        model = FlowModel.load(model)
    particles = list(particles)
    coordinate = as_index(coordinate, "coordinate")
    if not 0 <= coordinate < model.num_coordinates:
        raise ValueError(f"there is no latent {coordinate}: the model has {model.num_coordinates}, from 0 to {model.num_coordinates - 1}")
    if _on_circle(model, coordinate):
        # From -ln p: ln g' = plain - turned.
        scale = (1 - _RADIUS**2) / (2 * _RADIUS)
        offset = (1 + _RADIUS**2) / (2 * _RADIUS)
        result = openmm.CustomCVForce("0.5 + atan2(s, c)/(2*pi);"
                                      "c = offset - scale*exp(half - plain); s = offset - scale*exp(threequarters - plain);"
                                      f"offset = {offset!r}; scale = {scale!r}; pi = {np.pi!r}")
        parts = {"plain": model, "half": _with_turn(model, coordinate, 0.5), "threequarters": _with_turn(model, coordinate, 0.75)}
    else:
        result = openmm.CustomCVForce("0.5 + low - high")
        parts = {"low": _with_base(model, coordinate, 0.0), "high": _with_base(model, coordinate, 1.0)}
    result.setName(f"Latent{coordinate}")
    for name, part in parts.items():
        result.addCollectiveVariable(name, negative_log_prob(part, particles, periodic=periodic))
    return result


def _on_circle(model: FlowModel, coordinate: int) -> bool:
    return model_summary.stages(*model_file.unpack(model.to_bytes()))[-1].domains[coordinate] == "circle"


def _with_turn(model: FlowModel, coordinate: int, centre: float) -> FlowModel:
    """The model with a Möbius transformation of one latent more, of the radius _RADIUS, about a centre in turns."""
    architecture, tensors = model_file.unpack(model.to_bytes())
    network = f"layers.{len(architecture['layers'])}.networks.0.0"
    architecture["layers"].append({
        "type": "coupling", "transformed": [coordinate], "conditionedOn": [],
        # A head that makes (a, b) of length 1 a centre at R/√2.
        "transformer": {"type": "moebius", "closedForm": "density", "components": 1, "radiusBound": np.sqrt(2) * _RADIUS},
        "conditioner": {"activation": "silu", "networks": [[]]}})
    tensors[f"{network}.weight"] = np.zeros((3, 0))
    tensors[f"{network}.bias"] = np.array([0.0, np.cos(2 * np.pi * centre), np.sin(2 * np.pi * centre)])
    architecture["version"] = max(architecture["version"], 2)
    return FlowModel.from_bytes(model_file.pack(architecture, tensors))


def _with_base(model: FlowModel, coordinate: int, mean: float) -> FlowModel:
    """The model whose base density in one coordinate is normal, of variance 1."""
    architecture, tensors = model_file.unpack(model.to_bytes())
    entries, weights = [], []
    for index, entry in enumerate(architecture["base"]):
        own = {name: tensors.pop(f"base.{index}.{name}") for name in ("mean", "std") if f"base.{index}.{name}" in tensors}
        keep = [place for place, c in enumerate(entry["coordinates"]) if c != coordinate]
        if len(keep) < len(entry["coordinates"]):
            kind = "normal" if entry["distribution"] == "normal" else "truncatedNormal"
            entries.append({"distribution": kind, "coordinates": [coordinate]})
            weights.append({"mean": np.array([mean]), "std": np.array([1.0])})
        if keep:
            entries.append({**entry, "coordinates": [entry["coordinates"][place] for place in keep]})
            weights.append({name: array[keep] for name, array in own.items()})
    architecture["base"] = entries
    tensors.update({f"base.{index}.{name}": array for index, own in enumerate(weights) for name, array in own.items()})
    return FlowModel.from_bytes(model_file.pack(architecture, tensors))
