"""What fused kernels share: copies of many tensors in one launch, the type of products, hooks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def copy_together(into: Sequence[Tensor], tensors: Sequence[Tensor]) -> None:
    """Copy each tensor into its place, in the type that it has there."""
    torch._foreach_copy_(list(into), list(tensors))  # pyright: ignore[reportPrivateImportUsage]  # it has no other name


def cast_together(tensors: Sequence[Tensor], dtypes: Sequence[torch.dtype]) -> list[Tensor]:
    """Each tensor in its type."""
    cast = [torch.empty_like(tensor, dtype=dtype) for tensor, dtype in zip(tensors, dtypes, strict=True)]
    copy_together(cast, tensors)
    return cast


def product_type(weight: Tensor) -> torch.dtype:
    """In which a layer multiplies: autocast's where that is on, else its own."""
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


def are_hooked(layers: Sequence[nn.Module]) -> bool:
    """Whether hooks bring the matrices of layers when these are called, as DeepSpeed's ZeRO 3 does."""
    return any(layer._forward_pre_hooks for layer in layers)
