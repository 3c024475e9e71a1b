"""The distinct token rows of a data set, in the order in which their features are computed and stored."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from itertools import pairwise, takewhile

import numpy as np

from harness.data.encoding import Examples
from harness.model.split import PrefixFacts


@dataclass(frozen=True)
class DistinctRows:
    """Every row once, whichever parts of the data it stands in.

    rows: their bytes (int32). indices: for each part the distinct row of each example. token_lengths,
    feature_lengths: how many tokens each row has, and how many vectors are stored of it. chunks: runs of rows that are
    computed at once. shared: how many tokens, from the first, a row has in common with the row before it in its chunk,
    so that their features need not be computed again.
    """

    rows: list[bytes]
    indices: dict[str, np.ndarray]
    token_lengths: np.ndarray
    feature_lengths: np.ndarray
    chunks: list[range]
    shared: np.ndarray

    @classmethod
    def of(cls, examples: dict[str, Examples], prefix: PrefixFacts, tokens: int) -> DistinctRows:
        """tokens: roughly how many tokens a chunk computes.

        Under a causal prefix rows that begin alike have the same features there, so they stand side by side; under any
        other rows of like length do. Of a row that the prefix reads one vector is stored.
        """
        of_part = {name: _row_bytes(part) for name, part in examples.items()}
        rows = sorted({row for part in of_part.values() for row in part})
        if not prefix.causal:
            rows.sort(key=len)
        place = {row: number for number, row in enumerate(rows)}
        indices = {name: np.array([place[row] for row in part]) for name, part in of_part.items()}
        lengths, shared = np.array([len(row) // 4 for row in rows]), np.zeros(len(rows), dtype=np.int64)
        if prefix.causal:
            shared[1:] = [_common_tokens(*pair) for pair in pairwise(rows)]
        starts = _chunk_starts(lengths, shared, tokens)
        shared[starts] = 0
        chunks = [range(start, end) for start, end in pairwise([*starts, len(rows)])]
        feature_lengths = np.ones_like(lengths) if prefix.reads else lengths
        return cls(rows, indices, lengths, feature_lengths, chunks, shared)

    @property
    def computed_tokens(self) -> int:
        """How many tokens all chunks have to compute."""
        return int((self.token_lengths - self.shared).sum())

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


def _chunk_starts(lengths: np.ndarray, shared: np.ndarray, tokens: int) -> list[int]:
    """The first row of each chunk, which shares nothing."""
    starts, held = [0], 0
    for number, (length, common) in enumerate(zip(lengths, shared, strict=True)):
        if held and held + length - common > tokens:
            starts.append(number)
            held = 0
        held += length - common if held else length
    return starts


def _common_tokens(one: bytes, other: bytes) -> int:
    """How many tokens two rows have in common from the first."""
    pairs = zip(memoryview(one).cast("i"), memoryview(other).cast("i"), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
