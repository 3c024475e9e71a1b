"""Which examples make a batch, and in which order.

Everything a rank does is a slice of an order that depends on the seed alone, never on the number of ranks.
"""

from __future__ import annotations

import numpy as np


def global_batches(count: int, batch_size: int, seed: int, epoch: int, drop_last: bool) -> list[np.ndarray]:
    """The batches of one epoch as arrays of example indices, in an order that depends on seed and epoch alone."""
    order = np.random.default_rng([seed, epoch]).permutation(count)
    ends = range(batch_size, count + 1, batch_size) if drop_last else range(batch_size, count + batch_size, batch_size)
    return [order[end - batch_size : end] for end in ends]


def micro_batches(
    batch: np.ndarray, micro_batch_size: int, rank: int, world_size: int
) -> list[tuple[np.ndarray, bool]]:
    """This rank's slice of a global batch, cut into micro-batches: equally many on every rank.

    Each comes with whether its examples count. A rank that has none left gets the batch's first example with weight 0,
    since every rank must take part in every all-reduce.
    """
    local = batch[rank::world_size]
    largest_slice = -(-len(batch) // world_size)
    parts = [local[start : start + micro_batch_size] for start in range(0, largest_slice, micro_batch_size)]
    return [(part, True) if len(part) else (batch[:1], False) for part in parts]


def batches_by_length(lengths: np.ndarray, max_tokens: int) -> list[np.ndarray]:
    """The index of every row once, shortest first, in batches of at most `max_tokens` tokens, padding included.

    A row that is longer than that is a batch of its own.
    """
    batches: list[list[int]] = [[]]
    for index in np.argsort(lengths, kind="stable"):
        if batches[-1] and (len(batches[-1]) + 1) * lengths[index] > max_tokens:
            batches.append([])
        batches[-1].append(index)
    return [np.array(batch) for batch in batches]


def batches_in_order(count: int, batch_size: int) -> list[np.ndarray]:
    """The indices 0 to count - 1, cut into batches of `batch_size`; the last one may be smaller."""
    return np.split(np.arange(count), range(batch_size, count, batch_size))


def tokens_at_once(device: str) -> int:
    """How many tokens a pass without gradients computes at once on a device of this type, such as "cpu".

    On a CPU as many as keep matrix products near their peak, on a GPU as many as keep it busy between launches; fewer
    where its memory is short (`features/token_budget.py`). docs/performance.md has the measurements.
    """
    return 2_048 if device == "cpu" else 16_384


def token_indices(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The indices `start` to `start + length - 1` for each pair of `starts` and `lengths`, both of shape [rows]."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(ends[-1])
