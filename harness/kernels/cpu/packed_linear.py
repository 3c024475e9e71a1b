"""Frozen matrices on a CPU with bfloat16, kept in the order in which its matrix library multiplies.

Otherwise the library brings a matrix into that order in every call. GELU is applied while the product is still in
registers. docs/performance.md says what both save.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from harness.data.batching import tokens_at_once
from harness.kernels.cpu.onednn import linear
from harness.kernels.replacing import Kernel, is_as_built, only_multiplies
from harness.model.gpt2 import MLP


class PackedLinear(Kernel, nn.Linear):
    """A frozen bfloat16 Linear that multiplies by a packed copy of its matrix."""

    replaces = nn.Linear
    _packed: Tensor

    @classmethod
    def of(cls, module: nn.Module) -> Self:
        layer = super().of(module)
        layer._packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), tokens_at_once("cpu"))
        return layer

    def forward(self, input: Tensor) -> Tensor:
        return linear(input.bfloat16(), self._packed, self.bias)

    def gelu(self, hidden: Tensor) -> Tensor:
        """GELU (by tanh) of the layer's output."""
        return linear(hidden.bfloat16(), self._packed, self.bias, "gelu", "tanh")


class PackedMLP(Kernel, MLP):
    """A frozen MLP of packed matrices."""

    replaces = MLP
    expand: PackedLinear

    def forward(self, hidden: Tensor) -> Tensor:
        return self.contract(self.expand.gelu(hidden))


def packed(module: nn.Module) -> nn.Module | None:
    """What takes the place of a frozen module; None where nothing does."""
    if only_multiplies(module) and module.weight.dtype == torch.bfloat16 and not module.weight.requires_grad:
        return PackedLinear.of(module)
    if is_as_built(module, MLP) and isinstance(module.expand, PackedLinear):
        return PackedMLP.of(module)
    return None
