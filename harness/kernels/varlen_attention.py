"""Attention on a GPU by cumulative lengths: rows stay flat, and no padding is computed.

In 16-bit types on cards from the Ampere generation on (PyTorch's FlashAttention); whatever else a row is in takes the
rectangle, with memory-efficient attention.
"""

from __future__ import annotations

import inspect

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from harness.kernels.replacing import Kernel
from harness.model.attention import DotProductAttention
from harness.model.packing import PackedBatch

# Their names differ between versions of PyTorch: 2.11 takes `is_causal`, later ones `window_size`.
_ARGUMENTS = frozenset(inspect.signature(varlen_attn).parameters)
# What FlashAttention takes.
_DTYPES, _HEAD_MULTIPLE, _LARGEST_HEAD = (torch.bfloat16, torch.float16), 8, 256


def is_available(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


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
        head = query.shape[-1] // heads
        hidden_by_window = window is not None and window < batch.width
        if not self._takes(query.dtype, head) or (hidden_by_window and "window_size" not in _ARGUMENTS):
            return super().forward(query, key, value, heads, batch, window, scale)
        if scale is not None and "scale" not in _ARGUMENTS:
            query, scale = query * (scale * head**0.5), None
        query, key, value = (part.unflatten(-1, (-1, head)) for part in (query, key, value))
        grouped = key.shape[1] < heads
        if grouped and "enable_gqa" not in _ARGUMENTS:
            key, value = (part.repeat_interleave(heads // part.shape[1], 1) for part in (key, value))
            grouped = False
        options = {"enable_gqa": True} if grouped else {}
        if scale is not None:
            options["scale"] = scale
        options |= self._visible(window if hidden_by_window else None)
        bounds, width = batch.boundaries, batch.width
        mixed = varlen_attn(query, key, value, bounds, bounds, width, width, **options)
        return mixed.flatten(1)

    def _takes(self, dtype: torch.dtype, head: int) -> bool:
        return dtype in _DTYPES and head % _HEAD_MULTIPLE == 0 and head <= _LARGEST_HEAD

    def _visible(self, window: int | None) -> dict[str, object]:
        """How far each token sees to the left and to the right, as `varlen_attn` takes it; -1: to the end."""
        if "window_size" not in _ARGUMENTS:
            return {"is_causal": self.causal}
        reach = -1 if window is None else window - 1
        return {"window_size": (reach, 0 if self.causal else reach)}
