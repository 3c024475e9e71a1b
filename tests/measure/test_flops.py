"""The arithmetic of floating-point operations agrees with PyTorch's counter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import strategies
from harness import kernels
from harness.measure.flops import forward_flops, training_flops
from harness.model.gpt2 import GPT2
from harness.model.named.shapes import SHAPES
from harness.model.packing import PackedBatch
from harness.model.split import split

LENGTHS = np.array([32, 32])  # tokens that no filler follows
SHAPE = SHAPES["mini"]


@pytest.mark.parametrize("strategy", ["last_block", "full"])
def test_counts_are_those_of_pytorch(strategy: str) -> None:
    torch.manual_seed(0)
    prefix, suffix = split(GPT2(SHAPE), strategies.load(strategy).strategy, classes=2)
    prefix.place(torch.device("cpu"), "fp32")
    kernels.read_in_top_block(suffix)
    rows = PackedBatch.packed(LENGTHS)
    with _counter() as below:
        features = prefix.features(torch.zeros(64, dtype=torch.int64), rows)
    with _counter() as forward:
        logits = suffix(features, rows)
    with _counter() as backward:
        logits.sum().backward()

    head = 2 * len(LENGTHS) * SHAPE.hidden * 2
    assert below.get_total_flops() == _uncausal(forward_flops(SHAPE, prefix.names, LENGTHS, False), prefix.names)
    needed = forward_flops(SHAPE, suffix.names, LENGTHS, True)
    assert forward.get_total_flops() == _uncausal(needed, suffix.names[: suffix.names.index("block.3")]) + head
    trained = training_flops(SHAPE, suffix.names, LENGTHS, True)
    of_tokens = 4 * SHAPE.hidden * SHAPE.heads * int(LENGTHS.sum()) if strategy == "last_block" else 0
    assert backward.get_total_flops() == 2 * forward.get_total_flops() - of_tokens
    assert trained == 3 * needed - of_tokens


@contextmanager
def _counter() -> Iterator[FlopCounterMode]:
    """Counts attention too: only its unfused form is made of products that PyTorch counts on a CPU."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield counter


def _uncausal(flops: int, stages: tuple[str, ...]) -> int:
    """PyTorch counts attention as if every token saw every other."""
    blocks = sum(name.startswith("block.") for name in stages)
    unseen = int((LENGTHS**2 - LENGTHS * (LENGTHS + 1) // 2).sum())
    return flops + blocks * 4 * SHAPE.hidden * unseen
