"""Scaled dot-product attention (Vaswani et al., 2017, section 3.2.1) over the rows of a packed batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.model.packing import PackedBatch


class DotProductAttention(nn.Module):
    """softmax(q k' * scale) v of each row and head.

    causal: no token sees those after it. It has no parameters: a faster one of the same arithmetic can take its place.
    """

    def __init__(self, causal: bool = True) -> None:
        super().__init__()
        self.causal = causal

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
        """query: [tokens, heads * head]; key, value: the same, maybe of fewer heads, each shared by several of the
        query -> [tokens, heads * head].

        window: how near a token must be to be seen, itself at 1; None: any. scale: None: 1 / sqrt(head).
        """
        positions = torch.arange(batch.width, device=batch.lengths.device)[:, None]
        mask = None
        if not self.causal or hides(window, batch.width):
            mask = visible(batch, positions, self.causal, window)[:, None]
        parts = by_head(batch.rectangle(query), batch.rectangle(key), batch.rectangle(value), heads)
        mixed = F.scaled_dot_product_attention(*parts, attn_mask=mask, is_causal=mask is None, scale=scale)
        return batch.flatten(mixed.transpose(1, 2).flatten(2))


def hides(window: int | None, width: int) -> bool:
    """Whether a window hides tokens of a row as long as `width`."""
    return window is not None and window < width


def visible(batch: PackedBatch, queries: Tensor, causal: bool, window: int | None) -> Tensor:
    """Which keys each query sees, bool [rows or 1, queries or 1, width].

    queries: positions in the row, [queries, 1] for the same in all rows, or [rows, queries, 1].
    """
    keys = torch.arange(batch.width, device=batch.lengths.device)
    if queries.ndim == 2:
        queries = queries[None]
    seen = keys <= queries if causal else batch.attended()[:, None]
    if window is not None and hides(window, batch.width):
        # Padding sees itself: a row of the mask without a key would give NaN gradients.
        seen = (seen & ((queries - keys).abs() < window)) | (queries == keys)
    return seen


def by_head(query: Tensor, key: Tensor, value: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """[rows, width, heads * head] -> [rows, heads, width, head], with the heads of keys repeated for their queries."""
    groups = query.shape[-1] // key.shape[-1]
    key, value = (part.unflatten(-1, (heads // groups, -1)).transpose(1, 2) for part in (key, value))
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    return query.unflatten(-1, (heads, -1)).transpose(1, 2), key, value
