"""Attention by cumulative lengths. The GPU's kernel is replaced by one that follows its documentation, row by row: that
the real one gives the same is for `make test-gpu`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.kernels.gpu import varlen_attention
from harness.kernels.gpu.varlen_attention import VarlenAttention
from harness.kernels.shared_beginnings import SharedBeginnings
from harness.model.attention import DotProductAttention
from harness.model.packing import BatchShape, PackedBatch
from tests.support.attention_by_rows import attention_by_rows

LENGTHS = np.array([3, 21, 1, 9])
BATCHES = {
    "filler": PackedBatch.packed(LENGTHS, BatchShape(rows=4, tokens=64, width=21, filler_rows=2)),
    "full": PackedBatch.packed(np.array([8, 8])),
    "shared": SharedBeginnings.of(LENGTHS, np.array([0, 2, 0, 1])),
}


def _of_2_11(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    is_causal: bool = False,
) -> Tensor:
    window = (-1, 0 if is_causal else -1)
    return attention_by_rows(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, window_size=window)


@pytest.mark.parametrize("version", [attention_by_rows, _of_2_11])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("heads_of_keys", "window", "scale"), [(4, None, None), (2, None, 0.3), (4, 4, None)])
@pytest.mark.parametrize("name", BATCHES)
def test_rows_attend_as_in_the_rectangle(
    monkeypatch: pytest.MonkeyPatch,
    version: Callable[..., Tensor],
    causal: bool,
    heads_of_keys: int,
    window: int | None,
    scale: float | None,
    name: str,
) -> None:
    calls: list[Any] = []

    def counted(*arguments: Any, **options: Any) -> Tensor:
        calls.append(options)
        return version(*arguments, **options)

    monkeypatch.setattr(varlen_attention, "varlen_attn", counted)
    monkeypatch.setattr(varlen_attention, "_ARGUMENTS", frozenset(inspect.signature(version).parameters))
    monkeypatch.setattr(varlen_attention, "_DTYPES", (torch.float64,))
    batch, plain = BATCHES[name], DotProductAttention(causal)
    tokens, generator = len(batch.positions()), torch.Generator().manual_seed(0)
    shapes = [(tokens, 32), (tokens, 8 * heads_of_keys), (tokens, 8 * heads_of_keys)]
    inputs = [torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]
    found = []
    for attention in (plain, VarlenAttention.of(plain)):
        mixed = attention(*inputs, 4, batch, window, scale)
        assert mixed.isfinite().all(), "filler, too"
        mixed = batch.unpack(mixed)
        found.append([mixed, *torch.autograd.grad(mixed.square().sum(), inputs)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)
    assert len(calls) == (0 if version is _of_2_11 and window else 1), "2.11 has no windows"


def test_what_the_kernel_does_not_take_goes_by_the_rectangle() -> None:
    """float32, and heads of a width that is no multiple of 8: the real kernel, which no CPU has, is not called."""
    batch = BATCHES["filler"]
    for dtype, width in [(torch.float32, 32), (torch.bfloat16, 12)]:
        inputs = [torch.randn(64, width, dtype=dtype) for _ in range(3)]
        plain = DotProductAttention()
        torch.testing.assert_close(VarlenAttention.of(plain)(*inputs, 2, batch), plain(*inputs, 2, batch))
