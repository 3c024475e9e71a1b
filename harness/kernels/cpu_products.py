"""Products on a CPU that has bfloat16, by the kernels that PyTorch's own compiler uses."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from harness.data.batching import tokens_at_once
from harness.model.attention import Key, Value

# Up to so many rows it costs more to bring a trained matrix into bfloat16, and its gradient back, than products gain.
FEW_ROWS = 16


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
    return F.gelu(linear(layer, hidden), approximate="tanh")


def linear(layer: nn.Linear, hidden: Tensor) -> Tensor:
    """What a layer gives. Where bfloat16 is computed in, few rows still go through a trained matrix in float32."""
    few = len(hidden) <= FEW_ROWS and torch.is_autocast_enabled("cpu")
    if few and _only_multiplies(layer, torch.float32):
        return _InFloat32.apply(hidden.float(), layer.weight, layer.bias)
    return layer(hidden)


class _InFloat32(torch.autograd.Function):
    @staticmethod
    def forward(context: FunctionCtx, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        context.save_for_backward(hidden, weight)
        return _multiply(hidden, weight, bias)

    @staticmethod
    def backward(context: FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden, weight = context.saved_tensors
        return _multiply(gradient, weight.t()), _multiply(gradient.t(), hidden.t()), gradient.sum(dim=0)


def _forward(layer: nn.Linear, hidden: Tensor, *others: object) -> Tensor:
    """others: where attention asks for something else than the product with all tokens."""
    return type(layer).forward(layer, hidden, *others) if others else _product(layer, hidden)


def _product(layer: nn.Linear, hidden: Tensor, activation: str = "none", algorithm: str = "") -> Tensor:
    matrix = getattr(layer, "packed", layer.weight)
    return _multiply(hidden.bfloat16(), matrix, layer.bias, activation, algorithm)


def _multiply(
    hidden: Tensor, matrix: Tensor, bias: Tensor | None = None, activation: str = "none", algorithm: str = ""
) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(hidden, matrix, bias, activation, [], algorithm)


def _only_multiplies(layer: nn.Module, dtype: torch.dtype = torch.bfloat16) -> bool:
    """Whether a layer is a matrix in `dtype` on a CPU that can multiply by it, and nothing else is done in its name.

    A subclass, a hook (DeepSpeed's ZeRO 3 brings the matrix in one) or a `forward` of its own may do more.
    """
    if type(layer) not in (nn.Linear, Key, Value) or layer._forward_hooks or layer._forward_pre_hooks:
        return False
    replaced = "forward" in vars(layer) and not hasattr(layer, "packed")
    return not replaced and layer.weight.dtype == dtype and layer.weight.device.type == "cpu" and can_pack()


@functools.cache
def can_pack() -> bool:
    """Whether these kernels run on this processor: on one without AVX-512 they do not, and PyTorch's own must."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
