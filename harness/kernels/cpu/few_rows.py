"""A trained matrix that is applied only to the tokens read: in float32, even under bfloat16.

Casting the matrix, and its gradient back, costs more than a few rows gain. By oneDNN, whose float32
products are faster than PyTorch's default on some processors. docs/performance.md says what it saves.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from harness.kernels.cpu.onednn import linear
from harness.kernels.replacing import Kernel, only_multiplies

# Above so many rows the product gains more than the casts cost.
FEW_ROWS = 16


class FewRowsLinear(Kernel, nn.Linear):
    replaces = nn.Linear

    def forward(self, input: Tensor) -> Tensor:
        # DeepSpeed's ZeRO 3 brings the matrix in a hook, and takes it away before the backward pass.
        hooked = self._forward_hooks or self._forward_pre_hooks
        if hooked or len(input) > FEW_ROWS or not torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        return _InFloat32.apply(input.float(), self.weight, self.bias)


class _InFloat32(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        context.save_for_backward(hidden, weight)
        return linear(hidden, weight, bias)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride] (its arguments are the outputs' gradients)
        hidden, weight = context.saved_tensors
        return linear(gradient, weight.t()), linear(gradient.t(), hidden.t()), gradient.sum(dim=0)


def few_rows(module: nn.Module) -> nn.Module | None:
    """What takes the place of a trained module; None where nothing does."""
    if only_multiplies(module) and module.weight.dtype == torch.float32 and module.weight.requires_grad:
        return FewRowsLinear.of(module)
    return None
