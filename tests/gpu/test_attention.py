"""Attention by cumulative lengths gives what the rectangle gives: values and gradients, filler included."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from harness import kernels
from harness.kernels.gpu import varlen_attention
from harness.kernels.gpu.varlen_attention import VarlenAttention
from harness.model.attention import DotProductAttention
from harness.model.packing import BatchShape, PackedBatch
from tests.support.attention_by_rows import attention_by_rows

pytestmark = pytest.mark.gpu

HEADS, HEAD = 4, 32
LENGTHS = {
    "short": [3, 40, 1, 9],
    "equal": [16, 16],
    "one token each": [1, 1, 1],
    "one token and a full context": [1, 256, 2, 1, 100],
}


@pytest.fixture(autouse=True)
def kernel(device: torch.device) -> Iterator[None]:
    """Whatever attends here is the kernel, not the rectangle that it falls back on."""
    with pytest.MonkeyPatch.context() as patch:
        if device.type == "cpu":
            patch.setattr(varlen_attention, "varlen_attn", attention_by_rows)
        elif not kernels.has_attention_by_lengths(device):
            pytest.skip("this card is older than Ampere, which attention by cumulative lengths needs")
        yield


def _batch(lengths: list[int], filler: int, device: torch.device) -> PackedBatch:
    """filler: tokens behind the rows, cut into rows of at most the width."""
    rows = np.array(lengths)
    width = int(rows.max())
    shape = BatchShape(len(rows), int(rows.sum()) + filler, width, filler_rows=-(-filler // width))
    return PackedBatch.packed(rows, shape).to(device)


def _attended(
    attend: DotProductAttention, parts: list[Tensor], batch: PackedBatch, window: int | None = None
) -> list[Tensor]:
    """Values of the rows' tokens, and gradients of query, key and value, float32."""
    leaves = [part.detach().clone().requires_grad_(True) for part in parts]
    mixed = attend(*leaves, HEADS, batch, window)
    real = batch.unpack(mixed)
    gradients = torch.autograd.grad(real.float().square().sum(), leaves)
    assert all(torch.isfinite(found).all() for found in (mixed, *gradients)), "filler included"
    return [found.float() for found in (real, *gradients)]


def _far(found: Tensor, exact: Tensor) -> float:
    """Relative to what is exact, or to elements of 0.01: a row of one token gives its query no gradient at all."""
    found, exact = found.detach(), exact.detach()
    return float((found - exact).norm() / exact.norm().clamp(min=0.01 * exact.numel() ** 0.5))


@pytest.mark.parametrize("filler", [0, 1, 75])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("causal", "window"), [(True, None), (False, None), (True, 4), (False, 4)])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_by_lengths_and_by_rectangle(
    device: torch.device, lengths: list[int], causal: bool, window: int | None, groups: int, filler: int
) -> None:
    batch, generator = _batch(lengths, filler, device), torch.Generator().manual_seed(0)
    tokens = int(batch.boundaries[-1])
    sizes = (HEADS * HEAD, HEADS // groups * HEAD, HEADS // groups * HEAD)
    parts = [torch.randn(tokens, size, generator=generator).to(device).bfloat16() for size in sizes]
    plain = DotProductAttention(causal)
    exact = _attended(plain, [part.float() for part in parts], batch, window)
    rounded = _attended(plain, parts, batch, window)
    found = _attended(VarlenAttention.of(plain), parts, batch, window)
    for name, ours, theirs, right in zip(("mixed", "query", "key", "value"), found, rounded, exact, strict=True):
        assert _far(ours, right) < 3 * _far(theirs, right) + 5e-3, name


def test_what_filler_holds_does_not_matter(device: torch.device) -> None:
    batch = _batch(LENGTHS["short"], 75, device)
    tokens = int(batch.boundaries[-1])
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(tokens, HEADS * HEAD, generator=generator).to(device).bfloat16() for _ in range(3)]
    attend = VarlenAttention.of(DotProductAttention())
    values, *_ = _attended(attend, parts, batch)
    for part in parts:
        part[-75:] = 100.0
    assert torch.equal(_attended(attend, parts, batch)[0], values)


def test_float32_takes_the_rectangle(device: torch.device) -> None:
    batch = _batch(LENGTHS["short"], 11, device)
    parts = [torch.randn(int(batch.boundaries[-1]), HEADS * HEAD, device=device) for _ in range(3)]
    plain = DotProductAttention()
    found, expected = (_attended(attend, parts, batch) for attend in (VarlenAttention.of(plain), plain))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_a_batch_can_be_captured(device: torch.device) -> None:
    """One graph serves other rows of the same shape: boundaries are read on the device."""
    if device.type == "cpu":
        pytest.skip("a CPU has no graphs")
    first, second = _batch([3, 40, 1, 9], 11, device), _batch([20, 20, 10, 3], 11, device)
    second = replace(second, width=first.width)
    parts = [torch.randn(64, HEADS * HEAD, device=device).bfloat16() for _ in range(3)]
    attend = VarlenAttention.of(DotProductAttention())
    expected = attend(*parts, HEADS, second)[:53]
    bounds = first.boundaries.clone()
    static = replace(first, boundaries=bounds)
    attend(*parts, HEADS, static)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        mixed = attend(*parts, HEADS, static)
    bounds.copy_(second.boundaries)
    graph.replay()
    torch.testing.assert_close(mixed[:53], expected)
