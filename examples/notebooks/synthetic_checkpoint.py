# SPDX-License-Identifier: MIT
"""A checkpoint as bgflow's users have them, of a chain of six united atoms. Its weights are made up; its names and shapes are real."""
import torch

SPEC = {
    "temperature": 300, "measure": "frame", "frame_atoms": [0, 1, 2],
    "z_matrix": [[0, -1, -1, -1], [1, 0, -1, -1], [2, 1, 0, -1], [3, 2, 1, 0], [4, 3, 2, 1], [5, 4, 3, 2]],
    "fields": {"BONDS": {"size": 5, "circular": False}, "ANGLES": {"size": 4, "circular": False}, "TORSIONS": {"size": 3, "circular": True}},
    "activation": "SiLU",
    "marginal_blocks": {"BONDS": 20, "ANGLES": 21, "TORSIONS": 22},
    "couplings_in_density_direction": [{"block": 9, "transform": "BONDS", "on": ["ANGLES", "TORSIONS"]},
                                       {"block": 5, "transform": "ANGLES", "on": ["TORSIONS"]}],
    "data": {"environment": "vacuum", "method": "made up"},
}
"""What a checkpoint does not say: openmmflow.importers.bgflow documents the fields."""

# block: coordinates, features (a circular one is two), any circular
_COUPLINGS = {9: (5, 4 + 2 * 3), 5: (4, 2 * 3)}
_COMPONENTS, _WIDTH = 5, 16


def state_dict(seed: int = 0) -> dict[str, torch.Tensor]:
    """The weights of all networks, small, so that the density is near that of the marginals."""
    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for block, (size, features) in _COUPLINGS.items():
        transformer = f"_flow._blocks.{block}.transformer._delegate._transformer."
        components = transformer + "_compute_components."
        outputs = size * _COMPONENTS
        for network, rows, bias in ((transformer + "_compute_weights", outputs, 0.0), (components + "_conditional_ramp._compute_alpha", outputs, -2.0),
                                    (components + "_param_net", 3 * outputs, 0.0)):
            for layer, shape in ((0, (_WIDTH, features)), (2, (rows, _WIDTH))):
                tensors[f"{network}.net._layers.{layer}.weight"] = 0.3 * torch.randn(shape, generator=random) / shape[1]**0.5
                tensors[f"{network}.net._layers.{layer}.bias"] = torch.full(shape[:1], bias if layer else 0.0)
        tensors |= {components + "_min_density_lower_bound": torch.tensor(1e-3), components + "_log_sigma_bound": torch.tensor(1.0),
                    components + "_conditional_ramp._max_alpha": torch.tensor(8.0), components + "_conditional_ramp._eps": torch.tensor(1e-8)}
    for block, count, mean, width, low, high in ((20, 5, 0.153, 0.003, 0.12, 0.19), (21, 4, 112 / 180, 4 / 180, 85 / 180, 139 / 180)):
        marginal = f"_flow._blocks.{block}._flow._delegate.distribution."
        tensors |= {marginal + "_mu": torch.full((count,), mean), marginal + "_sigma": torch.full((count,), width),
                    marginal + "_lower_bound": torch.tensor(low), marginal + "_upper_bound": torch.tensor(high),
                    marginal + "_cdf_lower_bound": torch.zeros(count), marginal + "_cdf_upper_bound": torch.ones(count)}
    for name, value in (("low", 0.0), ("high", 1.0)):
        tensors["_flow._blocks.22._flow._delegate.distribution." + name] = torch.full((3,), value)
        tensors["_prior._delegate_energy._components.0.uniform." + name] = torch.full((5,), value)
    return tensors
