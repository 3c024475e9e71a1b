"""Floating-point operations that a computation needs, by arithmetic: what utilisation is measured against.

Counted are the matrix products of blocks and of attention, two operations for each multiplication and addition, over
real tokens: padding, recomputation and everything else a program does counts as loss. The head's products are left out
(a millionth of a block's).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.model.named.shapes import Shape


def forward_flops(shape: Shape, stages: Sequence[str], lengths: np.ndarray, reads_one_token: bool) -> int:
    """Of one forward pass of the named stages over rows of `lengths` tokens, causal attention.

    reads_one_token: the topmost of the blocks is needed at the last token of each row only, which each head looks for
    among the hidden states themselves (harness/model/attention.py).
    """
    hidden, tokens, rows = shape.hidden, int(lengths.sum()), len(lengths)
    blocks = sum(name.startswith("block.") for name in stages)
    pairs = int((lengths * (lengths + 1) // 2).sum())  # of a query and a key it sees
    full_block = 24 * hidden**2 * tokens + 4 * hidden * pairs
    if not (blocks and reads_one_token):
        return blocks * full_block
    top = 24 * hidden**2 * rows + 4 * hidden * shape.heads * tokens
    return (blocks - 1) * full_block + top


def training_flops(shape: Shape, stages: Sequence[str], lengths: np.ndarray, reads_one_token: bool) -> int:
    """Of a forward and a backward pass of stages that are all trained: a product has two in its backward pass; but what
    a frozen prefix gives needs no gradient where the one query of each row is all that attends to it."""
    flops = 3 * forward_flops(shape, stages, lengths, reads_one_token)
    blocks = sum(name.startswith("block.") for name in stages)
    if reads_one_token and blocks == 1 and "embeddings" not in stages:
        flops -= 4 * shape.hidden * shape.heads * int(lengths.sum())
    return flops
