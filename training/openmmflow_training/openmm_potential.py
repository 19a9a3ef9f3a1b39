# SPDX-License-Identifier: MIT
"""The reduced energy of any OpenMM System as a differentiable function of a batch of positions."""
from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openmm
import torch

from .data import MOLAR_GAS_CONSTANT


class OpenMMPotential:
    """u(x) = U(x)/k_BT of conformations, with its gradient from the System's forces.

    Several Contexts work on a batch in parallel, one thread each. Extreme energies, which the overlapping atoms of an untrained flow
    have, are regularized as is usual for Boltzmann generators: beyond a cut c the energy grows as its logarithm, u -> c + ln(1 + u - c),
    and the gradient is that of the regularized energy, i.e. the force divided by 1 + u - c. Where OpenMM has no finite energy or forces, u is
    c + ln(largest float64) and the gradient zero: such a conformation counts, but does not say where to go.

    Parameters
    ----------
    system : an openmm.System. Its Forces may be anything; its constraints and virtual sites are not applied.
    temperature : K.
    energy_cut : c, k_BT; None: no regularization of finite energies.
    workers : Contexts and threads; None: as many as the process has processors.
    platform : name of an OpenMM platform. Reference is the fastest for one small molecule.
    properties : of the platform.

    Raises
    ------
    ValueError : a temperature or number of workers that is not positive.
    openmm.OpenMMException : OpenMM cannot make a Context of the System there.
    """

    def __init__(self, system: openmm.System, temperature: float, *, energy_cut: float | None = None, workers: int | None = None,
                 platform: str = "Reference", properties: dict[str, str] | None = None):
        if not temperature > 0:
            raise ValueError(f"the temperature must be positive, got {temperature} K")
        if workers is not None and workers < 1:
            raise ValueError(f"at least one worker has to evaluate the potential, got {workers}")
        self.num_particles = system.getNumParticles()
        self.energy_cut = energy_cut
        self._scale = 1 / (MOLAR_GAS_CONSTANT * temperature)
        count = workers or len(os.sched_getaffinity(0))
        self._contexts = [
            openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName(platform), properties or {})
            for _ in range(count)]
        self._pool = ThreadPoolExecutor(count)

    def __call__(self, positions: torch.Tensor) -> torch.Tensor:
        """Regularized reduced energies (N), float64, of positions (N, particles, 3) in nm; differentiable once."""
        return _ReducedEnergy.apply(positions, self)

    def energies_and_forces(self, positions) -> tuple[np.ndarray, np.ndarray]:
        """Reduced energies (N) and forces (N, particles, 3) per nm as OpenMM has them, not regularized; NaN where it has none."""
        positions = np.ascontiguousarray(positions, dtype=np.float64)
        if positions.ndim != 3 or positions.shape[1:] != (self.num_particles, 3):
            raise ValueError(f"positions must have shape (batch, {self.num_particles}, 3), got {positions.shape}")
        energies, forces = np.empty(len(positions)), np.empty(positions.shape)
        parts = np.array_split(np.arange(len(positions)), len(self._contexts))

        def work(context, part):
            for frame in part:
                if not np.isfinite(positions[frame]).all():
                    energies[frame], forces[frame] = np.nan, np.nan
                    continue
                context.setPositions(positions[frame])
                try:
                    state = context.getState(energy=True, forces=True)
                except openmm.OpenMMException:    # "Particle coordinate is NaN", forces that overflow
                    energies[frame], forces[frame] = np.nan, np.nan
                    continue
                energies[frame] = state.getPotentialEnergy()._value
                forces[frame] = state.getForces(asNumpy=True)._value

        list(self._pool.map(work, self._contexts, parts))
        return energies * self._scale, forces * self._scale

    def regularized(self, positions) -> tuple[np.ndarray, np.ndarray]:
        """Regularized reduced energies (N) and their negative gradients (N, particles, 3) per nm."""
        energies, forces = self.energies_and_forces(positions)
        wild = ~(np.isfinite(energies) & np.isfinite(forces).all(axis=(1, 2)))
        largest = np.log(np.finfo(float).max) + (self.energy_cut or 0.0)
        energies[wild], forces[wild] = largest, 0.0
        if self.energy_cut is not None:
            excess = np.where(wild, 0.0, np.maximum(energies - self.energy_cut, 0.0))
            energies = np.where(excess > 0, self.energy_cut + np.log1p(excess), energies)
            forces /= (1 + excess)[:, None, None]
        return energies, forces


class _ReducedEnergy(torch.autograd.Function):
    @staticmethod
    def forward(context, positions, potential):
        energies, forces = potential.regularized(positions.detach().numpy(force=True))
        context.save_for_backward(torch.from_numpy(forces))
        return torch.from_numpy(energies)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context, cotangent):
        forces, = context.saved_tensors
        return -cotangent[:, None, None] * forces, None
