# SPDX-License-Identifier: MIT
"""Dense networks of live PyTorch modules, as conditioners of docs/model_format.md."""
from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np

_ACTIVATIONS = {"SiLU": "silu", "Tanh": "tanh", "Sin": "sin", "Sine": "sin", "GELU": "gelu", "Softplus": "softplus"}


class Dense(NamedTuple):
    """Weights (outputs, inputs) and biases (outputs,) of all layers, and the activation between them; None if there is one layer."""

    layers: list[tuple[np.ndarray, np.ndarray]]
    activation: str | None

    @property
    def outputs(self) -> int:
        return len(self.layers[-1][1])

    def with_inputs(self, order: list[int]) -> Dense:
        """The network that reads its features in another order: feature i is what was feature order[i]."""
        (weight, bias), *rest = self.layers
        return Dense([(np.ascontiguousarray(weight[:, order]), bias), *rest], self.activation)


def zeros(inputs: int, outputs: int) -> Dense:
    """A network without hidden layers whose outputs are all 0."""
    return Dense([(np.zeros((outputs, inputs), np.float32), np.zeros(outputs, np.float32))], None)


def to_array(tensor, what: str) -> np.ndarray:
    """A tensor in its own precision (half precision becomes single). Raises ValueError for NaN and infinite values."""
    import torch

    tensor = torch.as_tensor(tensor).detach().cpu()
    if tensor.dtype in (torch.float16, torch.bfloat16):
        tensor = tensor.float()
    if tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.double()
    array = tensor.numpy().copy()
    if not np.isfinite(array).all():
        raise ValueError(f"{what} holds values that are not finite: did the training fail?")
    return array


def dense(module, circular: list[bool], where: str) -> Dense:
    """The dense network of a conditioner whose features are in our order: non-circular inputs, cosines, then sines of circular ones.

    Parameters
    ----------
    module : linear layers and activations in a Sequential, or in a module with one in ``_layers`` (DenseNet), possibly within a WrapPeriodic.
    circular : which of its inputs are on circles.
    where : what it belongs to, for messages.

    Raises
    ------
    ValueError : another kind of network or activation; a circular input that is not read through cosine and sine.
    """
    network, features = _features(module, len(circular), where)
    kinds = [("x", i) for i, c in enumerate(circular) if not c]
    kinds += [(kind, i) for kind in ("cos", "sin") for i, c in enumerate(circular) if c]
    missing = [kind for kind in kinds if kind not in features]
    if missing or len(features) != len(kinds):
        wrong = [i for i, c in enumerate(circular) if c and ("cos", i) not in features]
        raise ValueError(f"{where}: " + (
            f"input {wrong[0]} of its conditioner is a torsion, which must enter as cosine and sine to stay periodic (WrapPeriodic)" if wrong
            else "its conditioner reads something else than its inputs, and cosine and sine of torsions"))
    return _linear_layers(network, where).with_inputs([features.index(kind) for kind in kinds])


def _features(module, count: int, where: str):
    """The dense network within a module, and what each of its features is: ("x" | "cos" | "sin", input)."""
    import torch

    if type(module).__name__ != "WrapPeriodic":
        return module, [("x", i) for i in range(count)]
    network = module.net
    # Versions of bgflow order the features differently, so the wrapper itself is asked, with nothing within.
    wrapper = copy.copy(module)
    wrapper.__dict__["_modules"] = {**module._modules, "net": torch.nn.Identity()}
    x = torch.linspace(0.05, 0.45, 3 * count, dtype=torch.float64).reshape(3, count)
    with torch.no_grad():
        found = wrapper(x)
    known = {("x", i): x[:, i] for i in range(count)}
    known |= {(name, i): function(2 * np.pi * x[:, i]) for name, function in (("cos", torch.cos), ("sin", torch.sin)) for i in range(count)}
    features = []
    for column in found.T:
        kind = next((kind for kind, values in known.items() if torch.allclose(column, values, rtol=0, atol=1e-9)), None)
        if kind is None:
            raise ValueError(f"{where}: WrapPeriodic computes something else than inputs, cos 2πx and sin 2πx; torsions must have the period 1")
        features.append(kind)
    return network, features


def _linear_layers(module, where: str) -> Dense:
    steps = getattr(module, "_layers", module)
    if type(steps).__name__ == "Linear":
        steps = [steps]
    if type(module).__name__ not in ("DenseNet", "SirenDenseNet", "Sequential", "Linear") or not hasattr(steps, "__iter__"):
        raise ValueError(f"{where}: its conditioner is a {type(module).__name__}; known are DenseNet, Sequential and Linear")
    layers, activations, expect_linear = [], set(), True
    for step in steps:
        kind = type(step).__name__
        if (kind == "Linear") != expect_linear:
            raise ValueError(f"{where}: a {kind} stands where a dense network has {'a Linear' if expect_linear else 'an activation'}")
        if expect_linear:
            weight = to_array(step.weight, f"{where}: a weight")
            bias = np.zeros(len(weight), weight.dtype) if step.bias is None else to_array(step.bias, f"{where}: a bias")
            layers.append((weight, bias))
        else:
            activations.add(_activation(step, where))
        expect_linear = not expect_linear
    if expect_linear:
        raise ValueError(f"{where}: its conditioner does not end with a Linear")
    if len(activations) > 1:
        raise ValueError(f"{where}: its conditioner has several activations ({', '.join(sorted(activations))}); one coupling has one")
    return Dense(layers, activations.pop() if activations else None)


def _activation(module, where: str) -> str:
    kind = type(module).__name__
    if kind not in _ACTIVATIONS or kind == "GELU" and module.approximate != "none" or kind == "Softplus" and module.beta != 1:
        raise ValueError(f"{where}: the activation {module} is unknown; known are {', '.join(_ACTIVATIONS)} (GELU with the exact error "
                         "function, Softplus with beta 1)")
    return _ACTIVATIONS[kind]


def dense_by_values(module, inputs: int, where: str) -> Dense:
    """The dense network that a module is, whatever it is made of: linear layers in the order in which they stand, found right by its outputs.

    Parameters
    ----------
    module : takes (batch, inputs) and gives (batch, outputs).
    inputs : number of its inputs.

    Raises
    ------
    ValueError : it computes something else than linear layers with one known activation between them.
    """
    import torch

    functions = {"silu": torch.nn.functional.silu, "tanh": torch.tanh, "sin": torch.sin, "gelu": torch.nn.functional.gelu,
                 "softplus": torch.nn.functional.softplus}
    linear = [step for step in module.modules() if type(step).__name__ == "Linear"] if hasattr(module, "modules") else []
    layers = [(to_array(step.weight, where), np.zeros(len(step.weight), np.float32) if step.bias is None else to_array(step.bias, where))
              for step in linear]
    x = torch.linspace(-1.0, 1.5, 5 * inputs, dtype=torch.float64).reshape(5, inputs).sin()
    if layers and layers[0][0].shape[1] == inputs:
        with torch.no_grad():
            expected = copy.deepcopy(module).double()(x)
            for name in functions if len(layers) > 1 else [None]:
                h = x
                for index, (weight, bias) in enumerate(layers):
                    if h.shape[-1] != weight.shape[1]:
                        break
                    h = h @ torch.tensor(weight, dtype=torch.float64).T + torch.tensor(bias, dtype=torch.float64)
                    h = functions[name](h) if index < len(layers) - 1 else h
                if h.shape == expected.shape and torch.allclose(h, expected, rtol=1e-9, atol=1e-9):
                    return Dense(layers, name)
    raise ValueError(f"{where}: the network {getattr(module, 'name', type(module).__name__)} is no chain of linear layers with one activation of {', '.join(functions)} between "
                     "them (residual and normalizing layers, for example, and ReLU are unknown)")
