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
        self._density_direction = self._compile()
        for name in self._density_direction.tensor_names():
            self._register(name, torch.from_numpy(np.array(tensors[name])))

    def _compile(self):
        return operators.DensityDirection(json.dumps(self.architecture))

    def _register(self, name: str, tensor: torch.Tensor):
        """Put a tensor at the place in a tree of submodules that gives it its name in the state_dict."""
        *folders, leaf = name.split(".")
        module = self
        for folder in folders:
            if folder not in module._modules:
                module.add_module(folder, nn.Module())
            module = module._modules[folder]
        if ".networks." in name:
            module.register_parameter(leaf, nn.Parameter(tensor))
        else:
            module.register_buffer(leaf, tensor)

    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items() if name != "_density_direction"}

    def __setstate__(self, state):
        super().__setstate__(state)
        self._density_direction = self._compile()

    @property
    def num_particles(self) -> int:
        """Particles of the molecule."""
        return self.architecture["numParticles"]

    @property
    def temperature(self) -> float:
        """Temperature of the training data, K."""
        return self.architecture["temperature"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same as :meth:`log_prob`."""
        return self.log_prob(x)

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
        with torch.enable_grad():
            x = torch.as_tensor(x, dtype=torch.float64)
            if not x.requires_grad:
                x = x.detach().requires_grad_()
            log_prob = self.log_prob(x)
            gradient, = torch.autograd.grad(log_prob.sum(), x, create_graph=create_graph)
        gradient = gradient.masked_fill(log_prob.detach().isinf()[:, None, None], math.nan)
        return (log_prob if create_graph else log_prob.detach()), gradient

    def _evaluate(self, x) -> tuple[torch.Tensor, torch.Tensor]:
        tensors = dict(self.named_parameters()) | dict(self.named_buffers())
        names = self._density_direction.tensor_names()
        return self._density_direction.evaluate(torch.as_tensor(x), [tensors[name] for name in names])

    def tensors(self) -> dict[str, np.ndarray]:
        """Copies of the tensors of the model file, by name."""
        state = self.state_dict()
        return {name: state[name].numpy(force=True).copy() for name in self._density_direction.tensor_names()}

    def to_bytes(self) -> bytes:
        """The contents of a model file with the present weights."""
        return model_file.pack(self.architecture, self.tensors())

    def save(self, path) -> None:
        """Write a model file with the present weights; it appears complete or not at all."""
        model_file.write(path, copy.deepcopy(self.architecture), self.tensors())
