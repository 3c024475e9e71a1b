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
        if _only_multiplies(layer):
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
    if _only_multiplies(layer) and not torch.is_grad_enabled():
        return _product(layer, hidden, "gelu", "tanh")
    return F.gelu(layer(hidden), approximate="tanh")


def _forward(layer: nn.Linear, hidden: Tensor, *others: object) -> Tensor:
    """others: where attention asks for something else than the product with all tokens."""
    return type(layer).forward(layer, hidden, *others) if others else _product(layer, hidden)


def _product(layer: nn.Linear, hidden: Tensor, activation: str = "none", algorithm: str = "") -> Tensor:
    matrix = getattr(layer, "packed", layer.weight)
    return torch.ops.mkldnn._linear_pointwise(hidden.bfloat16(), matrix, layer.bias, activation, [], algorithm)


def _only_multiplies(layer: nn.Module) -> bool:
    """Whether a layer is a matrix in bfloat16 on a CPU that can multiply by it, and nothing else is done in its name.

    A subclass, a hook (DeepSpeed's ZeRO 3 brings the matrix in one) or a `forward` of its own may do more.
    """
    if type(layer) not in (nn.Linear, Key, Value) or layer._forward_hooks or layer._forward_pre_hooks:
        return False
    replaced = "forward" in vars(layer) and not hasattr(layer, "packed")
    return not replaced and layer.weight.dtype == torch.bfloat16 and layer.weight.device.type == "cpu" and can_pack()


@functools.cache
def can_pack() -> bool:
    """Whether these kernels run on this processor: on one without AVX-512 they do not, and PyTorch's own must."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
