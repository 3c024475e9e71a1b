"""Matrix products by oneDNN, the kernels that PyTorch's own compiler calls on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor


def is_available() -> bool:
    """Whether these kernels run on this processor: they need AVX-512."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def linear(
    inputs: Tensor, matrix: Tensor, bias: Tensor | None = None, activation: str = "none", algorithm: str = ""
) -> Tensor:
    """activation(inputs matrix' + bias): [..., inputs] -> [..., outputs]. matrix: [outputs, inputs], packed or not."""
    return torch.ops.mkldnn._linear_pointwise(inputs, matrix, bias, activation, [], algorithm)
