# SPDX-License-Identifier: MIT
"""A model in the making: what importers of live flows have in common.

A flow of another program is walked in density direction. Each of its steps is appended here, as layers of docs/model_format.md with their
tensors, while the domain of every coordinate is followed.
"""
from __future__ import annotations

import numpy as np

from .reading import argument

# What needs version 2 of the model file.
_LAYERS_OF_VERSION_2 = {"mixedCoordinates", "permutation", "affineNormalization", "logit", "logistic", "circularShift"}


class Draft:
    """Layers and tensors so far, and the domain of each coordinate: "real", "interval" or "circle"."""

    def __init__(self):
        self.layers = []
        self.tensors = {}
        self.domains = []
        self.version = 1

    def append(self, layer: dict, weights: dict[str, np.ndarray]) -> None:
        """Append a layer with its tensors by their name within the layer."""
        self.tensors.update({f"layers.{len(self.layers)}.{name}": array for name, array in weights.items()})
        self.layers.append(layer)
        if layer["type"] in _LAYERS_OF_VERSION_2:
            self.version = 2

    def internal_coordinates(self, z_matrix: list[list[int]]) -> None:
        """Begin with internal coordinates of a whole molecule."""
        self.append({"type": "internalCoordinates", "zMatrix": z_matrix}, {})
        particles = len(z_matrix)
        self.domains = ["real"] * (2 * particles - 3) + ["circle"] * (particles - 3)

    def mixed_coordinates(self, block: list[int], z_matrix: list[list[int]], reference: np.ndarray, whitening: np.ndarray) -> None:
        """Begin with a block of particles in Cartesian coordinates, and the rest placed from it."""
        self.append({"type": "mixedCoordinates", "block": block, "blockDimensions": len(whitening), "zMatrix": z_matrix},
                    {"reference": reference, "whitening": whitening})
        rows = len(z_matrix)
        self.domains = ["real"] * (2 * rows) + ["circle"] * rows + ["real"] * len(whitening)

    def domain(self, coordinates) -> str:
        """The domain that all coordinates have; "mixed" if they have several."""
        found = {self.domains[c] for c in coordinates}
        return found.pop() if len(found) == 1 else "mixed"

    def marginal(self, distribution: str, coordinates: list[int], weights: dict[str, np.ndarray]) -> None:
        """Map real coordinates to [0,1] by a cumulative distribution function."""
        self.append({"type": "marginal", "distribution": distribution, "coordinates": coordinates}, weights)
        for coordinate in coordinates:
            self.domains[coordinate] = "interval"

    def take_as_interval(self, coordinates, where: str) -> None:
        """Take real coordinates that other programs use as numbers in [0,1] for such."""
        real = [c for c in coordinates if self.domains[c] == "real"]
        if real:
            self.marginal("uniform", real, {"lower": np.zeros(len(real)), "upper": np.ones(len(real))})
        if not {self.domains[c] for c in coordinates} <= {"interval", "circle"}:
            raise ValueError(f"{where} needs coordinates in [0,1]")

    def normalize(self, coordinates: list[int], shift: np.ndarray, scale: np.ndarray, where: str) -> None:
        """y = (x - shift)/scale of real coordinates."""
        if self.domain(coordinates) != "real":
            raise ValueError(f"{where} scales coordinates on {self.domain(coordinates)} domains; only real ones can be")
        self.append({"type": "affineNormalization", "coordinates": coordinates}, {"shift": shift, "scale": scale})

    def to_real(self, coordinates: list[int], where: str) -> None:
        """y = ln(x/(1-x)) of coordinates in [0,1]."""
        if self.domain(coordinates) != "interval":
            raise ValueError(f"{where}: logit of coordinates on {self.domain(coordinates)} domains; expected interval")
        self.append({"type": "logit", "coordinates": coordinates}, {})
        self._set(coordinates, "real")

    def to_interval(self, coordinates: list[int], where: str) -> None:
        """y = 1/(1+e^-x) of real coordinates."""
        if self.domain(coordinates) != "real":
            raise ValueError(f"{where}: logistic function of coordinates on {self.domain(coordinates)} domains; expected real")
        self.append({"type": "logistic", "coordinates": coordinates}, {})
        self._set(coordinates, "interval")

    def coupling(self, transformed: list[int], conditioned_on: list[int], transformer: dict, networks, where: str) -> None:
        """Append a coupling. ``networks`` are :class:`~openmmflow.importers.dense.Dense` of all raw parameters."""
        activations = {network.activation for network in networks if network.activation is not None}
        if len(activations) > 1:
            raise ValueError(f"{where}: its networks have different activations ({', '.join(sorted(activations))}); one coupling has one")
        conditioner = {"activation": activations.pop() if activations else "silu",
                       "networks": [[len(bias) for _, bias in network.layers[:-1]] for network in networks]}
        weights = {f"networks.{n}.{m}.{name}": array for n, network in enumerate(networks)
                   for m, layer in enumerate(network.layers) for name, array in zip(("weight", "bias"), layer)}
        self.append({"type": "coupling", "transformed": transformed, "conditionedOn": conditioned_on, "transformer": transformer,
                     "conditioner": conditioner}, weights)
        if transformer["type"] != "smoothMixture" or self.domain(transformed) == "real":
            self.version = 2

    def finish(self, base: list[tuple[dict, dict]], *, particles: int, temperature: float, measure: str, bonds, constraints,
               data: dict) -> tuple[dict, dict[str, np.ndarray]]:
        """Architecture and tensors. ``base`` has entries and their tensors by name."""
        temperature = argument("temperature", temperature, "a number, in K", float)
        bonds = argument("bonds", bonds, "pairs of particles", lambda value: [[int(i), int(j)] for i, j in value])
        for index, (_, weights) in enumerate(base):
            self.tensors.update({f"base.{index}.{name}": array for name, array in weights.items()})
        architecture = {
            "format": "openmm-flow", "version": self.version, "numParticles": particles, "temperature": temperature,
            "measure": measure, "bonds": bonds,
            "constraints": [[int(i), int(j), float(d)] for i, j, d in constraints], "data": data, "layers": self.layers,
            "base": [entry for entry, _ in base],
        }
        return architecture, self.tensors

    def _set(self, coordinates, domain):
        for coordinate in coordinates:
            self.domains[coordinate] = domain
