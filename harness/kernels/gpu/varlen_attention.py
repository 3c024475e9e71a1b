"""Attention on a GPU by cumulative lengths: rows stay flat, and no padding is computed.

In 16-bit types on cards from the Ampere generation on (PyTorch's FlashAttention); whatever else a row is in takes the
rectangle, with memory-efficient attention.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from harness.kernels.replacing import Kernel
from harness.model.attention import DotProductAttention, hides
from harness.model.packing import PackedBatch

# Its arguments differ between versions of PyTorch: 2.11 takes `is_causal`, later ones `window_size`.
_ARGUMENTS = frozenset(inspect.signature(varlen_attn).parameters)
# What FlashAttention takes.
_DTYPES, _HEAD_MULTIPLE, _LARGEST_HEAD = (torch.bfloat16, torch.float16), 8, 256


class VarlenAttention(Kernel, DotProductAttention):
    replaces = DotProductAttention

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        heads: int,
        batch: PackedBatch,
        window: int | None = None,
        scale: float | None = None,
    ) -> Tensor:
        head, windowed = query.shape[-1] // heads, hides(window, batch.width)
        takes = query.dtype in _DTYPES and head % _HEAD_MULTIPLE == 0 and head <= _LARGEST_HEAD
        if not takes or (windowed and "window_size" not in _ARGUMENTS):
            return super().forward(query, key, value, heads, batch, window, scale)
        if scale is not None and "scale" not in _ARGUMENTS:
            query, scale = query * (scale * head**0.5), None
        query, key, value = (batch.spread(part).unflatten(-1, (-1, head)) for part in (query, key, value))
        groups = heads // key.shape[1]
        if groups > 1 and "enable_gqa" not in _ARGUMENTS:
            key, value, groups = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1), 1
        options = self._visible(window if windowed else None)
        options |= {"scale": scale} if scale is not None else {}
        options |= {"enable_gqa": True} if groups > 1 else {}
        bounds, width = batch.boundaries, batch.width
        mixed: Any = varlen_attn(query, key, value, bounds, bounds, width, width, **options)
        return batch.gathered(mixed.flatten(1))

    def _visible(self, window: int | None) -> dict[str, Any]:
        """How far each token sees to the left and to the right, as `varlen_attn` takes it; -1: to the end."""
        if "window_size" not in _ARGUMENTS:
            return {"is_causal": self.causal}
        reach = -1 if window is None else window - 1
        return {"window_size": (reach, 0 if self.causal else reach)}
