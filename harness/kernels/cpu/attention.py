"""Attention on a CPU: short rows one by one, and training in float32."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.kernels.replacing import Kernel
from harness.model.attention import DotProductAttention, by_head, hides, visible
from harness.model.packing import PackedBatch

# Below this density a call for each row is faster than one rectangle.
BY_ROW_BELOW = 0.75


class CPUAttention(Kernel, DotProductAttention):
    """A call for each row where rows differ much in length, so that no padding is computed; and where gradients are
    kept float32, since the backward pass of a CPU's fused attention is 2 to 4 times slower in bfloat16."""

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
        attend = self._by_row if batch.density < BY_ROW_BELOW else super().forward
        if not torch.is_grad_enabled():
            return attend(query, key, value, heads, batch, window, scale)
        with torch.autocast("cpu", enabled=False):
            return attend(*widened(query, key, value), heads, batch, window, scale)

    def _by_row(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        heads: int,
        batch: PackedBatch,
        window: int | None,
        scale: float | None,
    ) -> Tensor:
        lengths = batch.lengths.tolist()
        query, key, value = (batch.unpack(part)[None] for part in (query, key, value))
        of_all = by_head(query, key, value, heads)
        each = []
        for length, *parts in zip(lengths, *(part.split(lengths, dim=2) for part in of_all), strict=True):
            mask = self._mask(length, window)
            causal = self.causal and mask is None
            mixed = F.scaled_dot_product_attention(*parts, attn_mask=mask, is_causal=causal, scale=scale)
            each.append(mixed)
        return batch.pack(torch.cat(each, dim=2)[0].transpose(0, 1).flatten(1))

    def _mask(self, length: int, window: int | None) -> Tensor | None:
        """Alone in its rectangle a row has no padding to hide."""
        if not hides(window, length):
            return None
        alone = PackedBatch.padded(np.array([length]), length)
        return visible(alone, torch.arange(length)[:, None], self.causal, window)[:, None]


def widened(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """In float32 where they are bfloat16."""
    query, key, value = (part.float() if part.dtype == torch.bfloat16 else part for part in (query, key, value))
    return query, key, value
