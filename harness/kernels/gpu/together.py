"""Copies of many tensors in one launch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def copy_together(into: Sequence[Tensor], tensors: Sequence[Tensor]) -> None:
    """Copy each tensor into its place, in the type that it has there."""
    torch._foreach_copy_(list(into), list(tensors))  # pyright: ignore[reportPrivateImportUsage]  # it has no other name


def cast_together(tensors: Sequence[Tensor], dtypes: Sequence[torch.dtype]) -> list[Tensor]:
    """Each tensor in its type."""
    cast = [torch.empty_like(tensor, dtype=dtype) for tensor, dtype in zip(tensors, dtypes, strict=True)]
    copy_together(cast, tensors)
    return cast
