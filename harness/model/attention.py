"""Scaled dot-product attention over the rows of a flat batch, at all positions or at one of each row.

One query of a row needs no keys and values. A head's key of hidden state h is K h + b, so that its product with query
q is (Kᵀ q) · h + q · b: each query goes through K once, instead of every token. And the weighted mean of the values
V h + c is V applied to the weighted mean of the h, plus c. In the same way the norm before them scales and shifts the
queries and the weighted means. The same numbers but for rounding, for a sixtieth of the work.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from harness.model.packing import Rows

# On a CPU a call for each row is faster than one rectangle, of which less than this holds tokens.
BY_ROW_BELOW = 0.75


@dataclass(frozen=True)
class Attended:
    """Who sees whom. causal: no token sees those after it. read_at: [rows], the one query of each row; None: every
    token is one. window: how near a token must be to be seen, itself at 1; None: any."""

    rows: Rows
    causal: bool
    read_at: Tensor | None = None
    window: int | None = None

    def is_near(self, width: int) -> bool:
        """Whether the window hides tokens of a row as long as `width`."""
        return self.window is not None and self.window < width

    def mask(self) -> Tensor | None:
        """bool [rows or 1, 1, queries, width], true where a key is seen; None where "causal" says it all."""
        rows, read_at = self.rows, self.read_at
        near = self.is_near(rows.width)
        if read_at is None and self.causal and not near:
            return None
        keys = torch.arange(rows.width, device=rows.lengths.device)
        queries = (keys if read_at is None else (read_at - rows.starts)[:, None])[..., None]  # [(rows,) queries, 1]
        seen = keys <= queries if self.causal else rows.attended()[:, None]
        if near:  # padding sees itself: were it to see nothing, its gradients were no numbers
            seen = (seen & ((queries - keys).abs() < self.window)) | (queries == keys)
        return seen[:, None] if seen.ndim == 3 else seen[None, None]


class Norm(nn.LayerNorm):
    """What the hidden states go through before they become keys and values."""

    def normalized(self, hidden: Tensor) -> Tensor:
        """Neither scaled nor shifted."""
        return F.layer_norm(hidden, self.normalized_shape, eps=self.eps)


class Key(nn.Linear):
    """The keys of all heads: [tokens, hidden] -> [tokens, heads * head]."""

    def forward(self, hidden: Tensor | None, query: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """With `query`, [rows, heads, head], instead of hidden states: what each is multiplied with, [rows, heads,
        hidden], and what is added, [rows, heads, 1], to give its products with keys."""
        if query is None:
            return super().forward(hidden)
        weight, bias = (part.to(query.dtype).unflatten(0, query.shape[1:]) for part in (self.weight, self.bias))
        return (query.transpose(0, 1) @ weight).transpose(0, 1), (query * bias).sum(dim=-1, keepdim=True)


class Value(nn.Linear):
    """The values of all heads: [tokens, hidden] -> [tokens, heads * head]."""

    def forward(self, hidden: Tensor, heads: int | None = None) -> Tensor:
        """With `heads`: [rows, heads, hidden], hidden states that differ from head to head, -> [rows, heads * head]."""
        if heads is None:
            return super().forward(hidden)
        weight, bias = self.weight.to(hidden.dtype).unflatten(0, (heads, -1)), self.bias.to(hidden.dtype)
        return _OfHeads.apply(hidden, weight).flatten(1) + bias


class _OfHeads(torch.autograd.Function):
    """Each head's matrix, [heads, head, hidden], on each of its hidden states, [rows, heads, hidden] -> [rows, heads,
    head]. The matrix's gradient comes in its own layout, and for no product's sake does anything lie transposed."""

    @staticmethod
    def forward(context: FunctionCtx, hidden: Tensor, weight: Tensor) -> Tensor:
        context.save_for_backward(hidden, weight)
        return (hidden.transpose(0, 1) @ weight.transpose(1, 2)).transpose(0, 1)

    @staticmethod
    def backward(context: FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        hidden, weight = context.saved_tensors
        gradient = gradient.transpose(0, 1)
        return (gradient @ weight).transpose(0, 1), gradient.transpose(1, 2) @ hidden.transpose(0, 1)


def attend_once(
    query: Tensor, hidden: Tensor, norm: Norm, key: Key, value: Value, heads: int, attended: Attended
) -> Tensor:
    """What `attend` gives for one query of each row, [rows, heads * head], without keys and values of the tokens.

    hidden: [tokens, hidden], before `norm`. Its scale and shift are not applied to each token but to queries and to
    weighted means, so that above a frozen prefix no token needs a gradient. Computed in the type of `hidden`: so little
    needs no bfloat16.
    """
    rectangle, mask = attended.rows.rectangle(norm.normalized(hidden)), attended.mask()
    assert mask is not None, "one token of each row is read"
    query = query.to(hidden.dtype).unflatten(1, (heads, -1))
    with torch.autocast(hidden.device.type, enabled=False):
        through, constant = key(None, query)
        constant = constant + (through * norm.bias).sum(dim=-1, keepdim=True)
        products = (through * norm.weight) @ rectangle.transpose(1, 2) + constant
        weights = (products / math.sqrt(query.shape[-1])).masked_fill(~mask.squeeze(1), -math.inf).softmax(dim=-1)
        return value(weights @ rectangle * norm.weight + norm.bias, heads)


def attend(
    query: Tensor, key: Tensor, value: Tensor, heads: int, attended: Attended, scale: float | None = None
) -> Tensor:
    """query: [tokens, heads * head], or [rows, heads * head] with `read_at`; key, value: [tokens, heads * head], maybe
    of fewer heads, each of which serves several of the query -> as the query.

    scale: of the products; None: 1 / sqrt(head).
    """
    on_cpu = query.device.type == "cpu"
    by_row = on_cpu and attended.read_at is None and attended.rows.fullness < BY_ROW_BELOW
    attend_rows = _attend_by_row if by_row else _attend
    if not (on_cpu and torch.is_grad_enabled()):
        return attend_rows(query, key, value, heads, attended, scale)
    # The backward pass of a CPU's fused attention is 2 to 4 times slower in bfloat16 than in float32.
    with torch.autocast("cpu", enabled=False):
        wide = [part.float() if part.dtype == torch.bfloat16 else part for part in (query, key, value)]
        return attend_rows(*wide, heads, attended, scale)


def _attend_by_row(
    query: Tensor, key: Tensor, value: Tensor, heads: int, attended: Attended, scale: float | None
) -> Tensor:
    rows, lengths = attended.rows, attended.rows.lengths.tolist()
    of_all = _by_head(*(rows.unpack(part)[None] for part in (query, key, value)), heads)
    each = []
    for length, *parts in zip(lengths, *(part.split(lengths, dim=2) for part in of_all), strict=True):
        mask = None  # alone in its rectangle, a row has no padding to hide
        if attended.is_near(length):
            mask = replace(attended, rows=Rows.padded(np.array([length]), length)).mask()
        causal = attended.causal and mask is None
        each.append(F.scaled_dot_product_attention(*parts, attn_mask=mask, is_causal=causal, scale=scale))
    return rows.pack(torch.cat(each, dim=2)[0].transpose(0, 1).flatten(1))


def _attend(query: Tensor, key: Tensor, value: Tensor, heads: int, attended: Attended, scale: float | None) -> Tensor:
    rows, mask, once = attended.rows, attended.mask(), attended.read_at is not None
    query = query[:, None] if once else rows.rectangle(query)
    parts = _by_head(query, rows.rectangle(key), rows.rectangle(value), heads)
    mixed = F.scaled_dot_product_attention(*parts, attn_mask=mask, is_causal=mask is None, scale=scale)
    mixed = mixed.transpose(1, 2).flatten(2)
    return mixed[:, 0] if once else rows.flatten(mixed)


def _by_head(query: Tensor, key: Tensor, value: Tensor, heads: int) -> list[Tensor]:
    """[rows, width, heads * head] -> [rows, heads, width, head], each head of keys as often as queries share it."""
    groups = query.shape[-1] // key.shape[-1]
    shared = (part.unflatten(-1, (heads // groups, -1)).transpose(1, 2) for part in (key, value))
    repeated = (part.repeat_interleave(groups, 1) if groups > 1 else part for part in shared)
    return [query.unflatten(-1, (heads, -1)).transpose(1, 2), *repeated]
