"""The top block where one token of each row is read: of the others only what attention to them needs is computed.

One query of a row needs no keys and values either. A head's key of hidden state h is K h + b, so that its product with
query q is (K' q) . h + q . b: each query goes through K once, instead of every token. And the weighted mean of the
values V h + c is V applied to the weighted mean of the h, plus c. In the same way the norm before them scales and
shifts queries and means instead of each token, so that above a frozen prefix no token needs a gradient: that saves
memory. The same numbers but for rounding.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.kernels.cpu.attention import widened
from harness.kernels.replacing import Kernel, is_as_built
from harness.model.attention import DotProductAttention, by_head, visible
from harness.model.backbone import Block
from harness.model.gpt2 import GPT2Block, SelfAttention
from harness.model.packing import PackedBatch
from harness.model.readout import Position, read_indices


class ReadingBlock(Kernel, Block):
    """A block with the readout above it: [tokens, hidden] -> [rows, hidden] at the tokens read."""

    position: Position

    @classmethod
    def reading(cls, block: nn.Module, position: Position) -> Self:
        reading = cls.of(block)
        reading.position = position
        return reading


class OneQueryBlock(ReadingBlock):
    replaces = GPT2Block
    attention_norm: nn.Module
    attention: OneQueryAttention
    mlp_norm: nn.Module
    mlp: nn.Module

    @classmethod
    def of(cls, module: nn.Module) -> Self:
        assert isinstance(module, GPT2Block)
        block = super().of(module)
        block.attention = one_query_attention(module.attention, module.attention_norm)
        return block

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        hidden, batch = batch.unshared(hidden)
        read_at = read_indices(batch, self.position)
        residual = hidden.index_select(0, read_at) + self.attention(hidden, self.attention_norm, batch, read_at)
        return residual + self.mlp(self.mlp_norm(residual))


def one_query_attention(attention: SelfAttention, norm: nn.Module) -> OneQueryAttention:
    """Without keys and values where they are plain matrices behind a plain norm; an adapter, or a strategy that builds,
    may have put something else in their place."""
    plain = is_as_built(norm, nn.LayerNorm) and norm.bias is not None
    plain = plain and all(_is_square(layer) for layer in (attention.key, attention.value))
    return (KeylessAttention if plain else OneQueryAttention).of(attention)


def _is_square(layer: nn.Module) -> bool:
    """Whether it is a plain matrix with a bias, that gives as many values as it takes."""
    if not is_as_built(layer, nn.Linear) or layer.bias is None:
        return False
    return layer.in_features == layer.out_features


class OneQueryAttention(Kernel):
    """Self-attention of one query of each row."""

    replaces = SelfAttention
    heads: int
    query: nn.Module
    key: nn.Module
    value: nn.Module
    output: nn.Module
    attend: DotProductAttention

    def forward(self, hidden: Tensor, norm: nn.Module, batch: PackedBatch, read_at: Tensor) -> Tensor:
        """hidden: [tokens, hidden], before `norm` -> [rows, hidden] at the tokens `read_at` ([rows], one of each)."""
        normalized = norm(hidden)
        query = self.query(normalized.index_select(0, read_at))
        key, value = self.key(normalized), self.value(normalized)
        return self.output(attend_at(read_at, query, key, value, self.heads, batch, self.attend.causal))


class KeylessAttention(OneQueryAttention):
    """The same, where the query goes through the key's matrix and the weighted mean through the value's."""

    @classmethod
    def of(cls, module: nn.Module) -> Self:
        attention = super().of(module)
        attention.key = QueryThroughKey.of(attention.key)
        attention.value = MeansThroughValue.of(attention.value)
        return attention

    def forward(self, hidden: Tensor, norm: nn.Module, batch: PackedBatch, read_at: Tensor) -> Tensor:
        assert isinstance(norm, nn.LayerNorm), "`one_query_attention` asks for it"
        query = self.query(norm(hidden.index_select(0, read_at))).to(hidden.dtype).unflatten(1, (self.heads, -1))
        # So little needs no bfloat16.
        with torch.autocast(hidden.device.type, enabled=False):
            rectangle = batch.rectangle(F.layer_norm(hidden, norm.normalized_shape, eps=norm.eps))
            through, constant = self.key(query)
            constant = constant + (through * norm.bias).sum(dim=-1, keepdim=True)
            products = (through * norm.weight) @ rectangle.transpose(1, 2) + constant
            seen = visible(batch, (read_at - batch.starts)[:, None, None], self.attend.causal, window=None)
            weights = (products / math.sqrt(query.shape[-1])).masked_fill(~seen, -math.inf).softmax(dim=-1)
            means = self.value(weights @ rectangle * norm.weight + norm.bias)
        return self.output(means)


class QueryThroughKey(Kernel):
    """The keys' matrix, for queries instead of hidden states."""

    replaces = nn.Linear
    weight: nn.Parameter
    bias: nn.Parameter

    def forward(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """query: [rows, heads, head] -> what hidden states are multiplied by to give its products with their keys,
        [rows, heads, hidden], and what is added to each, [rows, heads, 1]."""
        weight, bias = (part.to(query.dtype).unflatten(0, query.shape[1:]) for part in (self.weight, self.bias))
        return (query.transpose(0, 1) @ weight).transpose(0, 1), (query * bias).sum(dim=-1, keepdim=True)


class MeansThroughValue(Kernel):
    """The values' matrix, for weighted means of hidden states, which differ from head to head."""

    replaces = nn.Linear
    weight: nn.Parameter
    bias: nn.Parameter

    def forward(self, means: Tensor) -> Tensor:
        """[rows, heads, hidden] -> [rows, heads * head]."""
        weight = self.weight.to(means.dtype).unflatten(0, (means.shape[1], -1))
        of_heads = (means.transpose(0, 1) @ weight.transpose(1, 2)).transpose(0, 1)
        return of_heads.flatten(1) + self.bias.to(means.dtype)


def attend_at(
    read_at: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: int,
    batch: PackedBatch,
    causal: bool,
    window: int | None = None,
    scale: float | None = None,
) -> Tensor:
    """Attention of one query of each row, [rows, heads * head], to the keys of its row, [tokens, heads * head] ->
    as the query; trained in float32 on a CPU, as `CPUAttention` is. window, scale: as in `DotProductAttention`."""
    trained_on_cpu = query.device.type == "cpu" and torch.is_grad_enabled()
    if trained_on_cpu:
        query, key, value = widened(query, key, value)
    with torch.autocast("cpu", enabled=False) if trained_on_cpu else nullcontext():
        mask = visible(batch, (read_at - batch.starts)[:, None, None], causal, window)[:, None]
        parts = by_head(query[:, None], batch.rectangle(key), batch.rectangle(value), heads)
        mixed = F.scaled_dot_product_attention(*parts, attn_mask=mask, scale=scale)
        return mixed.transpose(1, 2).flatten(1)
