"""What a computation consists of: the operations that PyTorch dispatches, each with the shapes it works on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

OPTIMIZER = "_fused_adamw_"
_PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "_linear_pointwise"}
_ATTENTION = "scaled_dot_product"
# What takes a name only, and no time of the device: memory without content, questions.
_FREE = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach", "lift_fresh", "alias"}


@dataclass(frozen=True)
class Shaped:
    """What is known of a tensor without its content."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Call:
    """Arguments are positional and by keyword, with `Shaped` for tensors without content."""

    overload: Any
    arguments: tuple[tuple, dict[str, Any]]


@dataclass(frozen=True)
class Operation:
    """A call of a PyTorch operator.

    name: without overload. signature: equal for calls that take equally long: operator, shapes, other arguments. bytes:
    of all tensors that it reads and writes. flops: two for each multiplication and addition of a product or of
    attention; 0 for what memory bounds. precision: the type of its numbers. updated: parameters that an optimizer's
    step changes, else 0. call: None for an operation that was read from a file.
    """

    name: str
    signature: str
    bytes: int
    flops: int
    precision: torch.dtype
    updated: int = 0
    call: Call | None = field(default=None, compare=False, repr=False)


def operation_of(overload: Any, args: tuple, kwargs: dict[str, Any], result: Any, is_fake: Any) -> Operation | None:
    """None for views and for what computes nothing. is_fake: tells tensors without content from real ones."""
    name = overload.name().split("::")[1].split(".")[0]
    if name in _FREE or overload.is_view:
        return None

    def shaped(tensor: Tensor) -> Any:
        return Shaped(tuple(tensor.shape), tensor.stride(), tensor.dtype) if is_fake(tensor) else tensor

    arguments = tree_map_only(Tensor, shaped, (args, kwargs))
    tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
    floating = next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)
    return Operation(
        name=name,
        signature=f"{overload.name()} {' '.join(_described(arguments))}",
        bytes=sum(tensor.nbytes for tensor in tensors),
        flops=_flops(name, args, result),
        precision=floating,
        updated=sum(parameter.numel() for parameter in args[0]) if name == OPTIMIZER else 0,
        call=Call(overload, arguments),
    )


def _described(arguments: Any) -> Iterator[str]:
    for leaf in tree_leaves(arguments):
        if isinstance(leaf, (Tensor, Shaped)):
            stride = leaf.stride() if isinstance(leaf, Tensor) else leaf.stride
            yield f"{tuple(leaf.shape)}{tuple(stride)}{leaf.dtype}".replace(" ", "").replace("torch.", "")
        else:
            yield str(leaf)


def _flops(name: str, args: tuple, result: Any) -> int:
    """Of an attention call the products of all pairs: what a causal mask hides is not left out, as most kernels do."""
    if name in _PRODUCTS:
        matrix = next(leaf for leaf in args if isinstance(leaf, Tensor) and leaf.ndim >= 2)
        inner = args[1].shape[-1] if name in ("addmm", "baddbmm") else matrix.shape[-1]
        return 2 * result.numel() * inner
    if name.startswith("_" + _ATTENTION) or name.startswith(_ATTENTION):
        backward = "backward" in name
        query, key = args[1:3] if backward else args[:2]
        return (5 if backward else 2) * 2 * query.numel() * key.shape[-2]
    return 0
