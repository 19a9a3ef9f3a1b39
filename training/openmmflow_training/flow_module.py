# SPDX-License-Identifier: MIT
"""A FlowModel as a torch.nn.Module: the same density, differentiable in positions and weights."""
from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import numpy as np
import torch
from openmmflow import model_file
from torch import nn

from . import operators
from .sampling_direction import SamplingDirection

EVALUATIONS = ("log_prob", "log_prob_and_gradient", "to_latent", "to_positions")


class FlowModule(nn.Module):
    """The normalizing flow of a model file.

    Parameters and buffers carry the names of the file's tensors (``layers.2.networks.0.1.weight``): weights and biases of
    conditioners are parameters, marginals and base densities are buffers. ``state_dict``, ``copy.deepcopy``, ``pickle`` and
    ``DistributedDataParallel`` work as for any module. Positions and their internal coordinates are always float64; the
    couplings run in the type of the parameters (``module.float()``, ``module.double()``). Everything runs on the CPU.

    Parameters
    ----------
    model : path of a model file, its contents as bytes, or a pair (architecture, tensors).

    Raises
    ------
    ValueError : no valid model; the message says what is wrong with it.
    """

    def __init__(self, model):
        super().__init__()
        if isinstance(model, (bytes, bytearray, memoryview)):
            contents = bytes(model)
        elif isinstance(model, tuple):
            contents = model_file.pack(*model)
        else:
            contents = Path(model).read_bytes()
        operators.check_model(torch.frombuffer(bytearray(contents or b"\0"), dtype=torch.uint8))
        self.architecture, tensors = model_file.unpack(contents)
        self._compile()
        self._places = []    # submodule and name there of each tensor: named_parameters() takes longer than a layer
        for name in self._tensor_names:
            self._register(name, torch.from_numpy(np.array(tensors[name])))

    def _compile(self):
        self._density_direction = operators.DensityDirection(json.dumps(self.architecture))
        self._tensor_names = self._density_direction.tensor_names()
        self._sampling_direction = SamplingDirection(self.architecture)

    def _register(self, name: str, tensor: torch.Tensor):
        """Put a tensor at the place in a tree of submodules that gives it its name in the state_dict."""
        *folders, leaf = name.split(".")
        module = self
        for folder in folders:
            if folder not in module._modules:
                module.add_module(folder, nn.Module())
            module = module._modules[folder]
        self._places.append((module, leaf))
        if ".networks." in name:
            module.register_parameter(leaf, nn.Parameter(tensor))
        else:
            module.register_buffer(leaf, tensor)

    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items() if name not in ("_density_direction", "_sampling_direction")}

    def __setstate__(self, state):
        super().__setstate__(state)
        self._compile()

    @property
    def num_particles(self) -> int:
        """Particles of the molecule."""
        return self.architecture["numParticles"]

    @property
    def temperature(self) -> float:
        """Temperature of the training data, K."""
        return self.architecture["temperature"]

    @property
    def constraints(self) -> list:
        """Constraints of the training data: [particle, particle, distance in nm]."""
        return self.architecture["constraints"]

    def forward(self, x: torch.Tensor, evaluation: str = "log_prob", **options):
        """The evaluation of that name: log_prob, log_prob_and_gradient, to_latent or to_positions.

        Wrappers such as ``DistributedDataParallel`` see nothing but calls of forward; with this, every loss can go through them:
        ``parallel(x, "log_prob_and_gradient", create_graph=True)``.
        """
        if evaluation not in EVALUATIONS:
            raise ValueError(f"there is no evaluation {evaluation!r}; there are {', '.join(EVALUATIONS)}")
        return getattr(self, evaluation)(x, **options)

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """ln p of positions of shape (batch, particles, 3) in nm; -inf outside of the support. float64, (batch,)."""
        return self._evaluate(x)[1]

    def to_latent(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents (batch, coordinates), in the type of the parameters, and ln p (batch,) of positions (batch, particles, 3) in nm."""
        return self._evaluate(x)

    def log_prob_and_gradient(self, x: torch.Tensor, create_graph: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """ln p (batch,) and d ln p/dx (batch, particles, 3) per nm of positions of that shape in nm; NaN where ln p is -inf.

        With ``create_graph`` the gradient can itself be differentiated with respect to the weights: force matching.
        """
        with torch.set_grad_enabled(create_graph):
            return self._density_direction.log_prob_and_gradient(*self._arguments(x))

    def _evaluate(self, x) -> tuple[torch.Tensor, torch.Tensor]:
        return self._density_direction.evaluate(*self._arguments(x))

    def _arguments(self, x) -> tuple[torch.Tensor, list[torch.Tensor]]:
        return torch.as_tensor(x), [getattr(module, leaf) for module, leaf in self._places]

    def _named_tensors(self) -> dict[str, torch.Tensor]:
        return dict(self.named_parameters()) | dict(self.named_buffers())

    def to_positions(self, latent: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The sampling direction: positions (batch, particles, 3) in nm and ln p (batch,) of latents (batch, coordinates).

        The inverse of :meth:`to_latent` up to place and orientation, differentiable twice in latents and weights: a loss of the
        positions of random latents trains the flow by reparametrization. The first frame atom of the Z-matrix is at the origin,
        the second on the positive x axis, the third in the xy plane; mixed coordinates stand where the reference of their block does.
        """
        return self._sampling_direction(latent, self._named_tensors())

    def sample_latents(self, count: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """Independent latents (count, coordinates) of the base density, float64."""
        return self._sampling_direction.sample_latents(count, self._named_tensors(), generator)

    def tensors(self) -> dict[str, np.ndarray]:
        """Copies of the tensors of the model file, by name."""
        state = self.state_dict()
        return {name: state[name].numpy(force=True).copy() for name in self._tensor_names}

    def to_bytes(self) -> bytes:
        """The contents of a model file with the present weights."""
        return model_file.pack(self.architecture, self.tensors())

    def save(self, path) -> None:
        """Write a model file with the present weights; it appears complete or not at all."""
        model_file.write(path, copy.deepcopy(self.architecture), self.tensors())
