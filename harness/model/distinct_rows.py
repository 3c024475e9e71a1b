"""The distinct token rows of a data set, in the order in which their features are computed and stored."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from itertools import pairwise, takewhile

import numpy as np

from harness.data.batches import Examples


@dataclass(frozen=True)
class DistinctRows:
    """Every row once, whichever parts of the data it stands in.

    rows: their bytes (int32). numbers: for each part the distinct row of each example. token_lengths,
    feature_lengths: how many tokens each row has, and how many vectors are stored of it. shared: how many tokens, from
    the first, it has in common with the row before it, so that their features need not be computed again.
    """

    rows: list[bytes]
    numbers: dict[str, np.ndarray]
    token_lengths: np.ndarray
    feature_lengths: np.ndarray
    shared: np.ndarray

    @classmethod
    def of(cls, examples: dict[str, Examples], one_token: bool, causal: bool) -> DistinctRows:
        """one_token: one vector is stored of each row. causal: rows that begin alike have the same features there;
        they stand side by side then. Else rows of like length do."""
        of_part = {name: _row_bytes(part) for name, part in examples.items()}
        rows = sorted({row for part in of_part.values() for row in part})
        if not causal:
            rows.sort(key=len)
        place = {row: number for number, row in enumerate(rows)}
        lengths, shared = np.array([len(row) // 4 for row in rows]), np.zeros(len(rows), dtype=np.int64)
        if causal:
            shared[1:] = [_common_tokens(*pair) for pair in pairwise(rows)]
        numbers = {name: np.array([place[row] for row in part]) for name, part in of_part.items()}
        return cls(rows, numbers, lengths, np.ones_like(lengths) if one_token else lengths, shared)

    def chunks(self, tokens: int) -> list[slice]:
        """Runs of rows, of which each has about `tokens` tokens to compute: the first row of a run shares none."""
        starts, held = [0], 0
        for number, (length, shared) in enumerate(zip(self.token_lengths, self.shared, strict=True)):
            if held and held + length - shared > tokens:
                starts.append(number)
                held = 0
            held += length - shared if held else length
        return [slice(start, end) for start, end in pairwise([*starts, len(self.rows)])]

    def shared_within(self, chunk: slice) -> np.ndarray:
        """`shared` of the rows of a run, the first of which has none before it."""
        shared = self.shared[chunk].copy()
        shared[0] = 0
        return shared

    def computed_tokens(self, tokens: int) -> int:
        """How many tokens all `chunks` have to compute."""
        shared = sum(int(self.shared_within(chunk).sum()) for chunk in self.chunks(tokens))
        return int(self.token_lengths.sum()) - shared

    @functools.cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.token_lengths.tobytes() + b"".join(self.rows)).hexdigest()

    @functools.cached_property
    def token_starts(self) -> np.ndarray:
        return np.cumsum(self.token_lengths) - self.token_lengths

    @functools.cached_property
    def feature_starts(self) -> np.ndarray:
        return np.cumsum(self.feature_lengths) - self.feature_lengths


def _row_bytes(part: Examples) -> list[bytes]:
    content = part.token_ids.astype(np.int32).tobytes()
    return [content[4 * start : 4 * end] for start, end in zip(part.offsets[:-1], part.offsets[1:], strict=True)]


def _common_tokens(one: bytes, other: bytes) -> int:
    """How many tokens two rows have in common from the first."""
    pairs = zip(memoryview(one).cast("i"), memoryview(other).cast("i"), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
