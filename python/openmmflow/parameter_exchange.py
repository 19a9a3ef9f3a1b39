# SPDX-License-Identifier: MIT
"""Replica exchange over Context parameters at one temperature, such as the λ of a FlowForce, with plain Contexts."""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import openmm
from openmm import unit

from ._units import scalar_in

MOLAR_GAS_CONSTANT = unit.MOLAR_GAS_CONSTANT_R.value_in_unit(unit.kilojoule_per_mole / unit.kelvin)


class ParameterExchange:
    """Replicas of one System, each in a state: values of Context parameters. Neighbouring states are exchanged by Metropolis' rule.

    >>> run = ParameterExchange(system, positions, [{"FlowScale": λ} for λ in (1.0, 0.7, 0.4)], temperature=300)
    >>> for _ in range(1000):
    ...     run.advance(500)
    ...     sample(run.context(0))                  # λ = 1

    An exchange swaps the states, not the positions: a replica goes on with its velocities, as the temperature is the same. Its probability is
    min(1, exp(-Δ/k_BT)), Δ = U_i(x_j) + U_j(x_i) - U_i(x_i) - U_j(x_j), with energies that are computed, so parameters may act in any way.

    Parameters
    ----------
    system : the System; its Forces define the parameters.
    positions : start of every replica, a Quantity or an array in nm of shape (particles, 3).
    states : parameters of each state by name, in an order in which neighbours are alike.
    temperature : of all replicas, K.
    step_size : ps.
    friction : 1/ps.
    seed : of everything random.
    platform : name of the platform; None: OpenMM's choice.

    Attributes
    ----------
    attempted, accepted : number of exchanges of the states i and i+1, (states - 1,).
    state_of : the state of each replica, (states,).

    Raises
    ------
    ValueError : no states, or states with different parameters.
    OpenMMException : a parameter that the System does not have.
    """

    def __init__(self, system: openmm.System, positions, states: Sequence[Mapping[str, float]], *, temperature, step_size=0.001, friction=1.0,
                 seed: int = 1, platform: str | None = None):
        self.states = [dict(state) for state in states]
        if not self.states or any(state.keys() != self.states[0].keys() for state in self.states):
            raise ValueError(f"states must be values of the same Context parameters, got {self.states}")
        temperature = scalar_in(temperature, unit.kelvin, "temperature")
        self._thermal_energy = MOLAR_GAS_CONSTANT * temperature
        self._random = np.random.default_rng(seed)
        self._turn = 0
        self.state_of = np.arange(len(self.states))
        self.attempted, self.accepted = (np.zeros(len(self.states) - 1, int) for _ in range(2))
        self._contexts = []
        for replica, state in enumerate(self.states):
            integrator = openmm.LangevinMiddleIntegrator(temperature, scalar_in(friction, unit.picosecond**-1, "friction"),
                                                         scalar_in(step_size, unit.picosecond, "step_size"))
            integrator.setRandomNumberSeed(1000 * seed + replica + 1)
            context = openmm.Context(system, integrator, *([openmm.Platform.getPlatformByName(platform)] if platform else []))
            context.setPositions(positions)
            _set(context, state)
            context.setVelocitiesToTemperature(temperature, 1000 * seed + replica + 1)
            self._contexts.append(context)

    def context(self, state: int) -> openmm.Context:
        """The Context that is in a state now."""
        return self._contexts[int(np.flatnonzero(self.state_of == range(len(self.states))[state])[0])]

    @property
    def acceptance(self) -> np.ndarray:
        """Fraction of accepted exchanges of the states i and i+1, (states - 1,); NaN before the first one."""
        return np.divide(self.accepted, self.attempted, out=np.full(len(self.attempted), np.nan), where=self.attempted > 0)

    def advance(self, steps: int) -> None:
        """Run every replica for a number of steps, then try to exchange neighbours: even pairs and odd pairs in turns."""
        for context in self._contexts:
            context.getIntegrator().step(steps)
        for low in range(self._turn % 2, len(self.states) - 1, 2):
            self._try(low, low + 1)
        self._turn += 1

    def _try(self, low: int, high: int) -> None:
        first, second = self.context(low), self.context(high)
        delta = -_energy(first) - _energy(second)
        _set(first, self.states[high])
        _set(second, self.states[low])
        delta += _energy(first) + _energy(second)
        self.attempted[low] += 1
        if self._random.random() < np.exp(min(0.0, -delta / self._thermal_energy)):
            replicas = [self._contexts.index(first), self._contexts.index(second)]
            self.state_of[replicas] = self.state_of[replicas[::-1]]
            self.accepted[low] += 1
        else:
            _set(first, self.states[low])
            _set(second, self.states[high])


def _set(context, state):
    for name, value in state.items():
        context.setParameter(name, value)


def _energy(context) -> float:
    return context.getState(energy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
