"""Products of frozen matrices in bfloat16 on a CPU, by the kernels that PyTorch's own compiler uses."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.data.batches import tokens_at_once
from harness.model.attention import Key, Value


def pack(module: nn.Module) -> None:
    """Let Linear layers of `module`, which is frozen, multiply by copies of their matrices in the order in which the
    CPU's library works: it would bring them into that order in every call, for a sixth of the time of a product with
    512 tokens. Layers that are not stored in bfloat16 (see `store_frozen`) stay as they are."""
    tokens = tokens_at_once("cpu")
    for layer in module.modules():
        # No subclasses: they may do something else with their matrix.
        if type(layer) in (nn.Linear, Key, Value) and _is_bfloat16_on_cpu(layer):
            layer.packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), tokens)
            layer.forward = functools.partial(_forward, layer)


def unpack(module: nn.Module) -> None:
    """Let go of the copies that `pack` made."""
    for layer in module.modules():
        if hasattr(layer, "packed"):
            del layer.packed, layer.forward


def linear_gelu(layer: nn.Linear, hidden: Tensor) -> Tensor:
    """GELU (by tanh) of what a layer gives: while the product is still in registers, where that can be. Alone it takes
    a tenth of the prefix's time."""
    if type(layer) is nn.Linear and _is_bfloat16_on_cpu(layer) and not torch.is_grad_enabled():
        return _product(layer, hidden, "gelu", "tanh")
    return F.gelu(layer(hidden), approximate="tanh")


def _forward(layer: nn.Linear, hidden: Tensor, *others: object) -> Tensor:
    """others: where attention asks for something else than the product with all tokens."""
    return type(layer).forward(layer, hidden, *others) if others else _product(layer, hidden)


def _product(layer: nn.Linear, hidden: Tensor, activation: str = "none", algorithm: str = "") -> Tensor:
    matrix = getattr(layer, "packed", layer.weight)
    return torch.ops.mkldnn._linear_pointwise(hidden.bfloat16(), matrix, layer.bias, activation, [], algorithm)


def _is_bfloat16_on_cpu(layer: nn.Linear) -> bool:
    return layer.weight.dtype == torch.bfloat16 and layer.weight.device.type == "cpu"
