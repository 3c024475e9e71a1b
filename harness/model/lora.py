"""Adapters: small trained parts added to frozen Linear layers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from harness.config.strategy import Adapter


class LoRALinear(nn.Linear):
    """A Linear with a low-rank update: `x W' + b + alpha * (x A) B` (Hu et al., arXiv:2106.09685, section 4.1).

    B starts at zero, so that the adapted layer first computes what the layer did. Takes over the layer's own
    parameters, with their `requires_grad`; A and B are float32 on the default device, wherever those are.
    """

    def __init__(self, layer: nn.Linear, adapter: Adapter) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias, self.alpha = layer.weight, layer.bias, adapter.alpha
        self.down = nn.Parameter(torch.empty(adapter.rank, layer.in_features))
        self.up = nn.Parameter(torch.zeros(layer.out_features, adapter.rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, input: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        outputs, low_rank = super().forward(input), nn.functional.linear(input, self.down)
        # One product that adds what it makes: no pass over all outputs to scale it, and none to add it.
        added = torch.addmm(outputs.flatten(0, -2), low_rank.flatten(0, -2), self.up.t(), alpha=self.alpha)
        return added.view_as(outputs)


def adapt(module: nn.Module, adapter: Adapter) -> None:
    """Replace every Linear below `module`, in order of definition, by its adapted form."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, LoRALinear(child, adapter))
        else:
            adapt(child, adapter)
