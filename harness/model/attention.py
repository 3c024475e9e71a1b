"""Scaled dot-product attention over the rows of a flat batch, at all positions or at one of each row.

One query of a row needs no keys and values. A head's key of hidden state h is K h + b, so that its product with query
q is (Kᵀ q) · h + q · b: each query goes through K once, instead of every token. And the weighted mean of the values
V h + c is V applied to the weighted mean of the h, plus c. The same numbers but for rounding, for a sixtieth of the
work.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


class Key(nn.Linear):
    """The keys of all heads: [tokens, hidden] -> [tokens, heads * head]."""

    def forward(self, hidden: Tensor, query: Tensor | None = None) -> Tensor:
        """With `query`, [rows, heads, head], one of each row, and `hidden` [rows, width, hidden]: the products of
        queries and keys instead, [rows, heads, width]."""
        if query is None:
            return super().forward(hidden)
        weight, bias = (part.to(query.dtype).unflatten(0, query.shape[1:]) for part in (self.weight, self.bias))
        through = (query.transpose(0, 1) @ weight).transpose(0, 1)
        return through @ hidden.transpose(1, 2) + (query * bias).sum(dim=-1, keepdim=True)


class Value(nn.Linear):
    """The values of all heads: [tokens, hidden] -> [tokens, heads * head]."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Of hidden states that differ from head to head, [rows, heads, hidden] -> [rows, heads * head]."""
        if hidden.ndim == 2:
            return super().forward(hidden)
        weight, bias = self.weight.to(hidden.dtype).unflatten(0, (hidden.shape[1], -1)), self.bias.to(hidden.dtype)
        # The matrix stands on the left, so that its gradient comes in its own layout.
        return (weight @ hidden.permute(1, 2, 0)).permute(2, 0, 1).flatten(1) + bias


def attend_once(query: Tensor, hidden: Tensor, key: Key, value: Value, heads: int, attended: Attended) -> Tensor:
    """What `attend` gives for one query of each row, [rows, heads * head], without keys and values of the tokens.

    hidden: [tokens, hidden], what these would be made of. Computed in its type: so little needs no bfloat16.
    """
    rectangle, mask = attended.rows.rectangle(hidden), attended.mask()
    assert mask is not None, "one token of each row is read"
    query = query.to(hidden.dtype).unflatten(1, (heads, -1))
    with torch.autocast(hidden.device.type, enabled=False):
        scores = key(rectangle, query) / math.sqrt(query.shape[-1])
        weights = scores.masked_fill(~mask.squeeze(1), -math.inf).softmax(dim=-1)
        return value(weights @ rectangle)


def attend(
    query: Tensor, key: Tensor, value: Tensor, heads: int, attended: Attended, scale: float | None = None
) -> Tensor:
    """query: [tokens, heads * head], or [rows, heads * head] with `read_at`; key, value: [tokens, heads * head], maybe
    of fewer heads, each of which serves several of the query -> as the query.

    scale: of the products; None: 1 / sqrt(head).
    """
    rows = attended.rows
    if not (torch.is_grad_enabled() and query.device.type == "cpu"):
        return _attend(query, key, value, heads, attended, scale)
    # The backward pass of a CPU's fused attention is 2 to 4 times slower in bfloat16 than in float32, and a call for
    # each row takes half the time that a rectangle with its padding does.
    with torch.autocast("cpu", enabled=False):
        wide = [part.float() if part.dtype == torch.bfloat16 else part for part in (query, key, value)]
        if attended.read_at is not None or rows.cells is None:
            return _attend(*wide, heads, attended, scale)
        cut = (part[: len(rows.cells)].split(rows.lengths.tolist()) for part in wide)
        each = [
            _attend(*parts, heads, replace(attended, rows=row), scale)
            for row, *parts in zip(rows.each(), *cut, strict=True)
        ]
        return rows.fill(torch.cat(each))


def _attend(query: Tensor, key: Tensor, value: Tensor, heads: int, attended: Attended, scale: float | None) -> Tensor:
    rows, groups = attended.rows, query.shape[1] // key.shape[1]
    key, value = (_by_head(rows.rectangle(part), heads // groups) for part in (key, value))
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    mask, once = attended.mask(), attended.read_at is not None
    query = _by_head(query[:, None] if once else rows.rectangle(query), heads)
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None, scale=scale)
    mixed = mixed.transpose(1, 2).flatten(2)
    return mixed[:, 0] if once else rows.flatten(mixed)


def _by_head(projected: Tensor, heads: int) -> Tensor:
    """[rows, width, heads * head] -> [rows, heads, width, head]."""
    return projected.unflatten(-1, (heads, -1)).transpose(1, 2)
