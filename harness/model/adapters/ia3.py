"""(IA)³: what some layers take or give is multiplied by trained factors (Liu et al., arXiv:2205.05638, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.model.adapters.adapted import AdaptedLinear


class RescaledOutputs(AdaptedLinear):
    """`(x W' + b) * l`, with l of shape [outputs], which starts at one."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer)
        self.factors = nn.Parameter(torch.ones(layer.out_features))

    def forward(self, input: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        outputs = super().forward(input)
        return outputs * self.factors.to(outputs.dtype)

    def merged(self) -> tuple[Tensor, Tensor | None]:
        return self.weight * self.factors[:, None], None if self.bias is None else self.bias * self.factors


class RescaledInputs(AdaptedLinear):
    """`(x * l) W' + b`, with l of shape [inputs], which starts at one."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer)
        self.factors = nn.Parameter(torch.ones(layer.in_features))

    def forward(self, input: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        return super().forward(input * self.factors.to(input.dtype))

    def merged(self) -> tuple[Tensor, Tensor | None]:
        return self.weight * self.factors, self.bias
