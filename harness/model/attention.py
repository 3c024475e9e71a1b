"""Scaled dot-product attention over the rows of a flat batch, at all positions or at one of each row."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.model.rows import Rows


@dataclass(frozen=True)
class Attended:
    """Who sees whom. causal: no token sees those after it. read_at: [rows], the one query of each row; None: every
    token is one. window: how near a token must be to be seen, itself at 1; None: any."""

    rows: Rows
    causal: bool
    read_at: Tensor | None = None
    window: int | None = None

    def mask(self) -> Tensor | None:
        """bool [rows or 1, 1, queries, width], true where a key is seen; None where "causal" says it all."""
        rows, read_at = self.rows, self.read_at
        near = self.window and self.window < rows.width
        if read_at is None and self.causal and not near:
            return None
        keys = torch.arange(rows.width, device=rows.lengths.device)
        queries = (keys if read_at is None else (read_at - rows.starts)[:, None])[..., None]  # [(rows,) queries, 1]
        seen = keys <= queries if self.causal else rows.attended()[:, None]
        if near:  # padding sees itself: were it to see nothing, its gradients were no numbers
            seen = (seen & ((queries - keys).abs() < self.window)) | (queries == keys)
        return seen[:, None] if seen.ndim == 3 else seen[None, None]


def attend(
    query: Tensor, key: Tensor, value: Tensor, heads: int, attended: Attended, scale: float | None = None
) -> Tensor:
    """query: [tokens, heads * head], or [rows, heads * head] with `read_at`; key, value: [tokens, heads * head], maybe
    of fewer heads, each of which serves several of the query -> as the query.

    scale: of the products; None: 1 / sqrt(head).
    """
    rows, groups = attended.rows, query.shape[1] // key.shape[1]
    key, value = (_by_head(rows.rectangle(part), heads // groups) for part in (key, value))
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    mask = attended.mask()
    if attended.read_at is not None:
        return _product(_by_head(query[:, None], heads), key, value, mask, scale).flatten(1)
    mixed = _product(_by_head(rows.rectangle(query), heads), key, value, mask, scale)
    return rows.flatten(mixed.transpose(1, 2).flatten(2))


def _by_head(projected: Tensor, heads: int) -> Tensor:
    """[rows, width, heads * head] -> [rows, heads, width, head]."""
    return projected.unflatten(-1, (heads, -1)).transpose(1, 2)


def _product(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    causal = mask is None
    if torch.is_grad_enabled() and query.device.type == "cpu":
        # The backward pass of a CPU's fused attention is 2 to 4 times slower in bfloat16 than in float32.
        with torch.autocast("cpu", enabled=False):
            wide = [part.float() if part.dtype == torch.bfloat16 else part for part in (query, key, value)]
            return F.scaled_dot_product_attention(*wide, attn_mask=mask, is_causal=causal, scale=scale)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal, scale=scale)
