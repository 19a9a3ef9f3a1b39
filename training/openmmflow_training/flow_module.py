# SPDX-License-Identifier: MIT
"""A FlowModel as a torch.nn.Module: the same density, differentiable in positions and weights."""
from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import torch
from openmmflow import model_file
from torch import nn

from . import operators

BLOCKS = 5  # of raw parameters of a smooth mixture: [w | alpha | mu | ln sigma | m]


class FlowModule(nn.Module):
    """The normalizing flow of a model file.

    Parameters and buffers carry the names of the file's tensors (``layers.2.networks.0.1.weight``): weights and biases of
    conditioners are parameters, marginals and base densities are buffers. ``state_dict``, ``copy.deepcopy``, ``pickle`` and
    ``DistributedDataParallel`` work as for any module. Positions and their internal coordinates are always float64; the
    couplings run in the type of the parameters (``module.float()``, ``module.double()``).

    Parameters
    ----------
    model : path of a model file, its contents as bytes, or a pair (architecture, tensors).

    Raises
    ------
    ValueError : no model file.
    NotImplementedError : a coupling has its closed form in sampling direction.
    """

    def __init__(self, model):
        super().__init__()
        if isinstance(model, (bytes, bytearray, memoryview)):
            architecture, tensors = model_file.unpack(bytes(model))
        elif isinstance(model, tuple):
            architecture, tensors = model
        else:
            architecture, tensors = model_file.read(model)
        self.architecture = copy.deepcopy(architecture)
        self._names = sorted(tensors)
        for name in self._names:
            self._register(name, torch.from_numpy(np.array(tensors[name])))
        self._compile()

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

    def _compile(self):
        """Turn the architecture into stages: what happens to which rows, and which are circular."""
        a = self.architecture
        self.num_particles = a["numParticles"]
        self.num_coordinates = 3 * self.num_particles - 6
        self.temperature = a["temperature"]
        torsions = 2 * self.num_particles - 3
        circular = [i >= torsions for i in range(self.num_coordinates)]
        self._z_matrix = [entry for row in a["layers"][0]["zMatrix"] for entry in row]
        self._frame_measure = a["measure"] == "frame"
        self._marginals, self._couplings = [], []
        for index, layer in enumerate(a["layers"][1:], start=1):
            if layer["type"] == "marginal":
                self._marginals.append((f"layers.{index}", layer["distribution"], layer["coordinates"]))
            elif layer["type"] == "coupling":
                self._couplings.append(_Coupling(f"layers.{index}", layer, circular))
            else:
                raise ValueError(f"layer {index} is of type {layer['type']!r}; known are internalCoordinates, marginal and coupling")
        self._bases = [(f"base.{index}", base["distribution"], base["coordinates"]) for index, base in enumerate(a["base"])]
        # Coordinates whose density ends at the edges of the interval.
        self._bounded = sorted(c for _, distribution, coordinates in self._marginals for c in coordinates if distribution != "normal")

    def _distribution(self, prefix: str, name: str) -> torch.Tensor | None:
        module = self
        for folder in prefix.split("."):
            module = module._modules.get(folder)
            if module is None:
                return None
        return module._buffers.get(name)

    def _marginal(self, x, prefix, distribution):
        names = ("lower", "upper", "mean", "std")
        return operators.marginal(x, distribution, *(self._distribution(prefix, name) for name in names))

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters, and hence of the couplings."""
        return next(self.parameters()).dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same as :meth:`log_prob`."""
        return self.log_prob(x)

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """ln p of positions of shape (batch, particles, 3) in nm; -inf outside of the support. float64, (batch,)."""
        return self._density_direction(x)[1]

    def to_latent(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The latents (batch, coordinates) of positions (batch, particles, 3) in nm, and ln p (batch,)."""
        z, log_prob = self._density_direction(x)
        return z.t(), log_prob

    def log_prob_and_gradient(self, x: torch.Tensor, create_graph: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """ln p (batch,) and d ln p/dx (batch, particles, 3) per nm, at positions (batch, particles, 3) in nm.

        With ``create_graph`` the gradient can itself be differentiated with respect to the weights: force matching.
        """
        with torch.enable_grad():
            x = torch.as_tensor(x, dtype=torch.float64)
            if not x.requires_grad:
                x = x.detach().requires_grad_()
            log_prob = self.log_prob(x)
            gradient, = torch.autograd.grad(log_prob.sum(), x, create_graph=create_graph)
        if not create_graph:
            log_prob = log_prob.detach()
        return log_prob, gradient

    def _density_direction(self, x):
        """Latents (coordinates, batch) and ln p (batch,). Coordinates stand in rows: see operators/Lanes.h."""
        x = torch.as_tensor(x)
        if x.dim() != 3 or x.shape[1:] != (self.num_particles, 3):
            raise ValueError(f"positions must have shape (batch, {self.num_particles}, 3), got {tuple(x.shape)}")
        y, log_prob = operators.internal_coordinates(x.double(), self._z_matrix, self._frame_measure)
        inside = None
        for prefix, distribution, coordinates in self._marginals:
            rows = torch.tensor(coordinates)
            value, log_density = self._marginal(y.index_select(0, rows), prefix, distribution)
            y = y.index_copy(0, rows, value)
            log_prob = log_prob + log_density.sum(0)
        if self._bounded:
            bounded = y.detach()[self._bounded]
            inside = ((bounded >= 0) & (bounded <= 1)).all(0)
            if inside.all():
                inside = None
        y = y.to(self.dtype)
        for coupling in self._couplings:
            y, log_density = coupling(y, self._modules)
            log_prob = log_prob + log_density.sum(0)
        for prefix, distribution, coordinates in self._bases:
            if distribution == "uniform":
                continue
            z = y[coordinates].double()
            zero_one = (torch.zeros(len(coordinates)), torch.ones(len(coordinates)))
            log_density = operators.marginal(z, distribution, *zero_one, self._distribution(prefix, "mean"),
                                             self._distribution(prefix, "std"))[1]
            log_prob = log_prob + log_density.sum(0)
        if inside is not None:
            log_prob = torch.where(inside, log_prob, -math.inf)
        return y, log_prob

    def tensors(self) -> dict[str, np.ndarray]:
        """The tensors of the model file, by name."""
        state = self.state_dict()
        return {name: state[name].detach().cpu().numpy() for name in self._names}

    def to_bytes(self) -> bytes:
        """The contents of a model file with the present weights."""
        return model_file.pack(self.architecture, self.tensors())

    def save(self, path) -> None:
        """Write a model file with the present weights; it appears complete or not at all."""
        model_file.write(Path(path), self.architecture, self.tensors())


class _Coupling:
    """One coupling: which rows it reads and changes, and the settings of its transformer. It holds no weights."""

    def __init__(self, prefix: str, layer: dict, circular: list[bool]):
        t = layer["transformer"]
        if t["type"] != "smoothMixture":
            raise ValueError(f"{prefix}: unknown transformer {t['type']!r}; known is smoothMixture")
        if t["closedForm"] != "density":
            raise NotImplementedError(f"{prefix} has its closed form in sampling direction; the training module evaluates "
                                      "closed forms in density direction only")
        self.prefix = prefix
        self.transformed = torch.tensor(layer["transformed"])
        self.plain = torch.tensor([c for c in layer["conditionedOn"] if not circular[c]], dtype=torch.long)
        self.angular = torch.tensor([c for c in layer["conditionedOn"] if circular[c]], dtype=torch.long)
        self.circular = [int(circular[c]) for c in layer["transformed"]]
        self.components = t["components"]
        self.settings = (t["head"] == "published", t["exponent"], t["alphaOffset"], t["alphaRange"], t["logSteepnessBound"],
                         t["minimumFloor"])
        self.activation = layer["conditioner"]["activation"]
        self.depths = [len(hidden) + 1 for hidden in layer["conditioner"]["networks"]]

    def __call__(self, y: torch.Tensor, modules) -> tuple[torch.Tensor, torch.Tensor]:
        """y (coordinates, batch) after the coupling, and ln of the derivatives (transformed, batch)."""
        turns = (2 * math.pi) * y.index_select(0, self.angular)
        features = torch.cat([y.index_select(0, self.plain), torch.cos(turns), torch.sin(turns)])
        root, index = self.prefix.split(".")
        networks = modules[root]._modules[index]._modules["networks"]
        raw = torch.cat([self._network(networks._modules[str(n)], depth, features) for n, depth in enumerate(self.depths)])
        raw = raw.reshape(BLOCKS, len(self.circular), self.components, y.shape[1])
        value, log_density = operators.smooth_mixture(y.index_select(0, self.transformed), raw, self.circular, *self.settings)
        return y.index_copy(0, self.transformed, value), log_density

    def _network(self, network, depth: int, h: torch.Tensor) -> torch.Tensor:
        for level in range(depth):
            layer = network._modules[str(level)]
            if level:
                h = operators.activation(h, self.activation)
            h = torch.addmm(layer.bias.unsqueeze(1), layer.weight, h)
        return h
