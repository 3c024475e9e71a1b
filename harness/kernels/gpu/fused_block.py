"""A GPT-2 block for a GPU, in half the kernels: query, key and value are one product, and where matrices are stored in
another type than they are multiplied in, one pass casts all of a block, and one their gradients.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.kernels.gpu.together import are_hooked, cast_together, copy_together, product_type
from harness.kernels.replacing import Kernel, is_as_built
from harness.model.gpt2 import MLP, GPT2Block, SelfAttention
from harness.model.packing import PackedBatch


class FusedBlock(Kernel, GPT2Block):
    replaces = GPT2Block

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        layers = _layers(self)
        if are_hooked(layers):
            return super().forward(hidden, batch)
        dtype = product_type(layers[0].weight)
        qkv, qkv_bias, output, output_bias, expand, expand_bias, contract, contract_bias = _in_type(dtype, layers)
        normalized = self.attention_norm(hidden).to(dtype)
        query, key, value = F.linear(normalized, qkv, qkv_bias).chunk(3, dim=-1)
        mixed = self.attention.attend(query, key, value, self.attention.heads, batch)
        hidden = hidden + F.linear(mixed.to(dtype), output, output_bias)
        expanded = F.linear(self.mlp_norm(hidden).to(dtype), expand, expand_bias)
        return hidden + F.linear(F.gelu(expanded, approximate="tanh"), contract, contract_bias)


def fused(module: nn.Module) -> nn.Module | None:
    """What takes the place of a block; None where an adapter, or a strategy's code, has put something else in it."""
    if not (is_as_built(module, GPT2Block) and is_as_built(module.attention, SelfAttention)):
        return None
    if not is_as_built(module.mlp, MLP) or not all(is_as_built(layer, nn.Linear) for layer in _layers(module)):
        return None
    return FusedBlock.of(module)


def _layers(block: GPT2Block) -> list[nn.Linear]:
    attention, mlp = block.attention, block.mlp
    return [attention.query, attention.key, attention.value, attention.output, mlp.expand, mlp.contract]


def _in_type(dtype: torch.dtype, layers: list[nn.Linear]) -> tuple[Tensor, ...]:
    """Weight and bias of query, key and value together, [3 hidden, hidden] and [3 hidden], then of each other layer."""
    weights: list[Tensor] = [layer.weight for layer in layers]
    biases: list[Tensor] = [layer.bias for layer in layers]
    others = [part for pair in zip(weights[3:], biases[3:], strict=True) for part in pair]
    if all(part.dtype == dtype for part in (*weights, *biases)):
        return torch.cat(weights[:3]), torch.cat(biases[:3]), *others
    return _CastTogether.apply(dtype, *weights[:3], *biases[:3], *others)


class _CastTogether(torch.autograd.Function):
    """Casts all tensors in one pass, the first three into one, and the next three; and their gradients back."""

    @staticmethod
    def forward(context: Any, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        context.dtypes = [tensor.dtype for tensor in tensors]
        joined = [first.new_empty(3 * len(first), *first.shape[1:], dtype=dtype) for first in (tensors[0], tensors[3])]
        others = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors[6:]]
        copy_together([*joined[0].chunk(3), *joined[1].chunk(3), *others], tensors)
        return *joined, *others

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride] (its arguments are the outputs' gradients)
        given = [*gradients[0].chunk(3), *gradients[1].chunk(3), *gradients[2:]]
        return None, *cast_together(given, context.dtypes)
