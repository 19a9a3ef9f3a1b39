# SPDX-License-Identifier: MIT
"""FlowModel: a trained flow as a Python object."""
from __future__ import annotations

import json
import math
import operator
import os

import numpy as np
from numpy.typing import ArrayLike
from openmm import unit

from . import bindings
from ._errors import FlowModelError
from ._units import array_in


class FlowModel:
    """A normalizing flow of the conformations of one molecule: architecture, weights and what its density is of.

    Make one with :meth:`load` (a model file) or :meth:`from_bytes`; there is no other way, and every way checks all of the
    model. A FlowModel is an immutable value: copies are the same object, two models are equal if their bytes are, and pickles
    hold the whole model.

    Positions are arrays of shape (batch, particles, 3), or (particles, 3) for one conformation, in nm, of any real type, or a
    Quantity of such. Molecules must be whole: not torn apart by periodic boundaries. Results are float64; for one
    conformation they have no batch dimension. Evaluations let other Python threads run.

    >>> model = FlowModel.load("alanine_dipeptide.safetensors")
    >>> model.num_particles, model.temperature
    (22, 300.0)
    >>> log_prob, gradient = model.log_prob_and_gradient(positions)

    Raises :class:`FlowModelError`, a ValueError, whose message says what was expected, for files that hold no valid model,
    positions of another shape, and values that are not finite; TypeError for things that are no positions at all.
    """

    __slots__ = ("_handle", "_architecture")

    def __init__(self, *args: object, **kwargs: object):
        raise TypeError("a FlowModel is made by FlowModel.load(path) or FlowModel.from_bytes(contents); "
                        "openmmflow.model_file.pack(architecture, tensors) makes such contents from plain arrays")

    # Making and storing

    @classmethod
    def load(cls, path: str | os.PathLike) -> FlowModel:
        """Read a model file (docs/model_format.md). Raises FlowModelError if there is none or it is not valid."""
        return cls._of(bindings.FlowModel.load(os.fsencode(path)))

    @classmethod
    def from_bytes(cls, contents: bytes) -> FlowModel:
        """The model of a model file's contents. Raises FlowModelError if they are not valid."""
        if not isinstance(contents, (bytes, bytearray, memoryview)):
            raise TypeError(f"expected the contents of a model file as bytes, got {type(contents).__name__}; "
                            "FlowModel.load reads files")
        return cls._of(bindings.FlowModel.fromBytes(bytes(contents)))

    @classmethod
    def _of(cls, handle: bindings.FlowModel) -> FlowModel:
        model = cls.__new__(cls)
        model._handle = handle
        model._architecture = None
        return model

    def save(self, path: str | os.PathLike) -> None:
        """Write a model file. It appears complete or not at all. Raises FlowModelError if it cannot be written."""
        self._handle.save(os.fsencode(path))

    def to_bytes(self) -> bytes:
        """The contents of a model file. Weights keep their stored type."""
        return self._handle.toBytes()

    # What it is

    @property
    def num_particles(self) -> int:
        """Number of particles of the molecule."""
        return self._handle.getNumParticles()

    @property
    def num_coordinates(self) -> int:
        """Number of internal coordinates and latents: 3*num_particles - 6, but for mixed coordinates in measure "frame"."""
        return self._handle.getNumCoordinates()

    @property
    def num_parameters(self) -> int:
        """Number of trained weights: all weights and biases of conditioners."""
        return self._handle.getNumParameters()

    @property
    def num_continuous_derivatives(self) -> float:
        """How many continuous derivatives the least smooth transformer has: 1, 2, or ``math.inf`` if all are C-infinity.

        With less than 2 the forces of a FlowForce are not differentiable, and dynamics does not conserve energy.
        """
        number = self._handle.getNumContinuousDerivatives()
        return number if number <= 2 else math.inf

    @property
    def temperature(self) -> float:
        """Temperature of the training data, K."""
        return self._handle.getTemperature()

    @property
    def measure(self) -> str:
        """What ln p is a density in: "cartesian" (what dynamics samples) or "frame" (bgflow's convention)."""
        return self._json["measure"]

    @property
    def bonds(self) -> list[tuple[int, int]]:
        """The bond graph: pairs of particles."""
        return [tuple(bond) for bond in self._json["bonds"]]

    @property
    def constraints(self) -> list[tuple[int, int, float]]:
        """Constraints of the training data: (particle, particle, distance in nm)."""
        return [tuple(constraint) for constraint in self._json["constraints"]]

    @property
    def data(self) -> dict:
        """What is known about the training data; free-form, with forceField, environment and method where they were given."""
        return json.loads(json.dumps(self._json.get("data", {})))

    @property
    def architecture(self) -> dict:
        """The architecture, as docs/model_format.md describes it; a copy."""
        return json.loads(self._handle.getArchitectureJson())

    @property
    def checksum(self) -> str:
        """CRC-32 of architecture and weights: eight hexadecimal digits, as in the file."""
        return self._handle.getChecksum()

    def has_same_architecture(self, other: FlowModel) -> bool:
        """Whether the weights of one can replace those of the other in a Context: equal but for weights, temperature, data."""
        return self._handle.hasSameArchitecture(other._handle)

    @property
    def _json(self) -> dict:
        if self._architecture is None:
            self._architecture = self.architecture
        return self._architecture

    # Evaluation

    def log_prob(self, positions: ArrayLike | unit.Quantity) -> np.ndarray:
        """ln p: the logarithm of a density per nm³ of the molecule's origin; -inf outside of the support.

        Parameters
        ----------
        positions : (batch, particles, 3) or (particles, 3), nm

        Returns
        -------
        (batch,), or a number
        """
        positions, batch = self._positions(positions)
        log_prob = np.empty(len(positions))
        self._handle.logProb(_address(positions), len(positions), _address(log_prob))
        return log_prob.reshape(batch)[()]

    def log_prob_and_gradient(self, positions: ArrayLike | unit.Quantity) -> tuple[np.ndarray, np.ndarray]:
        """ln p and its gradient; where ln p is -inf, the gradient is NaN.

        Parameters
        ----------
        positions : (batch, particles, 3) or (particles, 3), nm

        Returns
        -------
        ln p : (batch,), or a number
        d ln p/dx : of the shape of the positions, per nm
        """
        positions, batch = self._positions(positions)
        log_prob = np.empty(len(positions))
        gradient = np.empty_like(positions)
        self._handle.logProbAndGradient(_address(positions), len(positions), _address(log_prob), _address(gradient))
        return log_prob.reshape(batch)[()], gradient.reshape(*batch, self.num_particles, 3)

    def to_latent(self, positions: ArrayLike | unit.Quantity, log_prob: bool = False) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """The latents z of positions; NaN outside of the support.

        Parameters
        ----------
        positions : (batch, particles, 3) or (particles, 3), nm
        log_prob : whether to return ln p, too

        Returns
        -------
        z : (batch, num_coordinates), or (num_coordinates,)
        ln p : only with log_prob; (batch,), or a number
        """
        positions, batch = self._positions(positions)
        latent = np.empty((len(positions), self.num_coordinates))
        density = np.empty(len(positions)) if log_prob else None
        self._handle.toLatent(_address(positions), len(positions), _address(latent), _address(density))
        latent = latent.reshape(*batch, self.num_coordinates)
        return (latent, density.reshape(batch)[()]) if log_prob else latent

    def to_positions(self, latent: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Positions of latents: the sampling direction, the inverse of :meth:`to_latent` up to place and orientation.

        The first frame atom of the Z-matrix is at the origin, the second on the positive x axis, the third in the xy plane.

        Parameters
        ----------
        latent : (batch, num_coordinates) or (num_coordinates,), within the domain of the base density ([0,1] if it is uniform)

        Returns
        -------
        positions : (batch, particles, 3) or (particles, 3), nm
        ln p of the positions : (batch,), or a number
        """
        array = np.ascontiguousarray(latent, dtype=np.float64)
        if array.ndim not in (1, 2) or array.shape[-1] != self.num_coordinates:
            raise FlowModelError(f"latents have shape {array.shape}, expected (batch, {self.num_coordinates}) or "
                                 f"({self.num_coordinates},)")
        batch = array.shape[:-1]
        count = array.size // self.num_coordinates
        positions, log_prob = np.empty((count, self.num_particles, 3)), np.empty(count)
        self._handle.toPositions(_address(array), count, _address(positions), _address(log_prob))
        return positions.reshape(*batch, self.num_particles, 3), log_prob.reshape(batch)[()]

    def sample(self, count: int, seed: int = 0, *, first: int = 0, gradient: bool = False) -> tuple[np.ndarray, ...]:
        """Independent samples of the flow's density, each centred at the origin and randomly oriented.

        Sample i depends on the seed and on i alone, whatever the count and the number of threads.

        Parameters
        ----------
        count : number of samples, >= 0
        seed : from 0 to 2^64 - 1
        first : index of the first sample; ``sample(5, seed, first=10)`` is what ``sample(15, seed)`` ends with
        gradient : whether to return d ln p/dx, too

        Returns
        -------
        positions : (count, particles, 3), nm
        ln p : (count,)
        d ln p/dx : only with gradient; (count, particles, 3) per nm
        """
        count, seed, first = operator.index(count), operator.index(seed), operator.index(first)
        if count < 0 or not 0 <= seed < 2**64 or not 0 <= first < 2**62:
            raise ValueError(f"expected a count >= 0, a seed from 0 to 2^64 - 1 and a first index >= 0, got count {count}, seed {seed} and "
                             f"first {first}")
        positions, log_prob = np.empty((count, self.num_particles, 3)), np.empty(count)
        slope = np.empty_like(positions) if gradient else None
        self._handle.sample(count, seed, _address(positions), _address(log_prob), _address(slope), first)
        return (positions, log_prob, slope) if gradient else (positions, log_prob)

    def _positions(self, positions) -> tuple[np.ndarray, tuple[int, ...]]:
        """Positions as (count, particles, 3) in nm, and the shape of the batch: (count,) or ()."""
        array = array_in(positions, unit.nanometer, "positions")
        shape = (self.num_particles, 3)
        if array.ndim not in (2, 3) or array.shape[-2:] != shape:
            raise FlowModelError(f"positions have shape {array.shape}, expected (batch, {shape[0]}, 3) or {shape}: "
                                 f"the model is of a molecule of {shape[0]} particles")
        if not np.isfinite(array).all():
            first = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
            raise FlowModelError(f"positions must be finite, but positions[{', '.join(map(str, first))}] is {array[first]}")
        return array.reshape(-1, *shape), array.shape[:-2]

    # Being a value

    def __repr__(self) -> str:
        return (f"<openmmflow.FlowModel of {self.num_particles} particles at {self.temperature:g} K: "
                f"{len(self._json['layers'])} layers, {self.num_parameters:,} parameters, measure {self.measure!r}, "
                f"checksum {self.checksum}>")

    def __str__(self) -> str:
        """What the model is of, and a table of its layers."""
        from . import model_summary    # Only those who look wait for what it imports.

        return model_summary.text(self)

    def _repr_html_(self) -> str:
        """What Jupyter shows: a diagram of the layers with sizes and domains."""
        from . import model_summary

        return model_summary.diagram(self)

    def __eq__(self, other) -> bool:
        if not isinstance(other, FlowModel):
            return NotImplemented
        return self.checksum == other.checksum and self.to_bytes() == other.to_bytes()

    def __hash__(self) -> int:
        return hash(self.checksum)

    def __copy__(self) -> FlowModel:
        return self

    def __deepcopy__(self, memo) -> FlowModel:
        return self

    def __reduce__(self):
        return FlowModel.from_bytes, (self.to_bytes(),)


FlowModel.__module__ = "openmmflow"


def _address(array: np.ndarray | None) -> int:
    """Address of the first element of a C-contiguous float64 array; 0 for None."""
    return 0 if array is None else array.ctypes.data
