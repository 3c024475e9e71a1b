"""Few shapes for the batches of a run: each is filled up to the next of a handful of token counts.

On a GPU a step is captured for each shape; a batch of a shape that was never met before can't be replayed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from harness.model.packing import TOKENS_MULTIPLE, BatchShape

# For batches of as many rows: more shapes leave less filler, and take longer to capture.
MOST_SHAPES = 8
# Fewer batches than this are not worth a shape of their own.
FEWEST_BATCHES = 8


@dataclass(frozen=True)
class Buckets:
    """by_rows: for batches of as many rows the shapes that they are filled up to, fewest tokens first."""

    by_rows: dict[int, list[BatchShape]]

    @classmethod
    def of(cls, batches: Iterable[np.ndarray]) -> Buckets:
        """The shapes that need the least filler for `batches`, each given by the lengths of its rows."""
        sizes: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for lengths in batches:
            sizes[len(lengths)].append((int(lengths.sum()), int(lengths.max())))
        return cls({rows: _shapes(rows, np.array(of_rows)) for rows, of_rows in sizes.items()})

    def shape(self, lengths: np.ndarray) -> BatchShape:
        """The smallest that holds rows of `lengths` tokens, which `of` must have seen."""
        count = lengths.sum()
        return next(shape for shape in self.by_rows[len(lengths)] if shape.tokens >= count)


def _shapes(rows: int, sizes: np.ndarray) -> list[BatchShape]:
    """sizes: tokens and longest row of each batch, [batches, 2]."""
    counts, widths = sizes.T
    if widths.max() == 1:
        return [BatchShape.of(np.ones(rows, dtype=np.int64))]
    rounded = -(-counts // TOKENS_MULTIPLE) * TOKENS_MULTIPLE
    edges = _best_edges(rounded, min(MOST_SHAPES, 1 + len(sizes) // FEWEST_BATCHES))
    shapes = []
    for below, edge in pairwise([0, *edges]):
        inside = (rounded > below) & (rounded <= edge)
        width = int(widths[inside].max())
        filler = edge - int(counts[inside].min())
        shapes.append(BatchShape(rows, edge, width, filler_rows=-(-filler // width)))
    return shapes


def _best_edges(rounded: np.ndarray, most: int) -> list[int]:
    """At most `most` of the values, the largest among them, such that rounding all up to the next of them adds least.

    By dynamic programming over the sorted values: the best cut of the first j values into k groups extends the best cut
    of the first i < j into k - 1.
    """
    values, batches = np.unique(rounded, return_counts=True)
    before = np.concatenate([[0], np.cumsum(batches)])
    # computed[j]: tokens of the first j values in the best cut so far; cut[k][j]: where its last group begins.
    computed = np.concatenate([[0.0], np.full(len(values), np.inf)])
    cuts: list[np.ndarray] = []
    for _ in range(min(most, len(values))):
        totals = computed[:, None] + (before[None, 1:] - before[:, None]) * values[None, :]
        totals[np.arange(len(values) + 1)[:, None] > np.arange(len(values))[None, :]] = np.inf
        cuts.append(totals.argmin(axis=0))
        computed = np.concatenate([[np.inf], totals.min(axis=0)])
    edges, end = [], len(values)
    for cut in reversed(cuts):
        edges.append(int(values[end - 1]))
        end = int(cut[end - 1])
    return edges[::-1]
