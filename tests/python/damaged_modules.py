# SPDX-License-Identifier: MIT
"""Modules of PyTorch with one thing changed, as importers may meet them: a tensor, or an attribute that tells what a module does."""
import copy

import torch

#: What a tensor becomes.
TENSORS = {
    "nan": lambda tensor: torch.full_like(tensor, torch.nan) if tensor.is_floating_point() else tensor - 1,
    "infinite": lambda tensor: torch.full_like(tensor, torch.inf) if tensor.is_floating_point() else tensor + 1,
    "huge": lambda tensor: tensor * 1e30 if tensor.is_floating_point() else tensor * 2,
    "tiny": lambda tensor: tensor * 1e-30 if tensor.is_floating_point() else tensor * 0,
    "negative": lambda tensor: -1 - tensor,
    "short": lambda tensor: tensor.reshape(-1)[:-1],
    "long": lambda tensor: torch.cat([tensor.reshape(-1), tensor.reshape(-1)]),
    "transposed": lambda tensor: tensor.T.contiguous() if tensor.dim() == 2 else tensor.reshape(-1, 1),
    "scalar": lambda tensor: torch.zeros((), dtype=tensor.dtype),
    "double": lambda tensor: tensor.double(),
    "half": lambda tensor: tensor.half(),
    "complex": lambda tensor: tensor.to(torch.complex64),
}
#: What any attribute becomes.
VALUES = (None, True, False, -1, 0, 1, 2, 5, 1000, 0.5, -1.0, float("nan"), float("inf"), "", "linear", [], [0, 1], [99], {}, ())
_OF_EVERY_MODULE = set(vars(torch.nn.Module()))


def places(module) -> list[tuple[str, str]]:
    """(path of a module, name) of all tensors, parts and attributes."""
    return [(path, name) for path, part in module.named_modules()
            for name in sorted({*part._parameters, *part._buffers, *part._modules, *vars(part)} - _OF_EVERY_MODULE)]


def damaged(module, place: tuple[str, str], change):
    """A copy with what is at a place changed as a name in TENSORS says, or replaced by one of VALUES; None where there is no tensor to change."""
    module = copy.deepcopy(module)
    part = module.get_submodule(place[0])
    name = place[1]
    holder = next(holder for holder in (part._parameters, part._buffers, part._modules, vars(part)) if name in holder)
    if isinstance(change, str) and change in TENSORS:
        if not isinstance(holder[name], torch.Tensor):
            return None
        tensor = TENSORS[change](holder[name].detach())
        holder[name] = torch.nn.Parameter(tensor, requires_grad=False) if holder is part._parameters else tensor
    else:
        del holder[name]
        vars(part)[name] = change
    return module
