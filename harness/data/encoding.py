"""Texts as rows of token ids."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal

import numpy as np
import pandas as pd

from harness.config.schema import DataConfig
from harness.config.strategy import PadTo
from harness.data.batching import token_indices
from harness.data.dataset import pairs_of
from harness.data.tokenizer import BARE, Template, Tokenizer
from harness.errors import UserError

Cut = Literal["head", "tail", "middle"]
_TEXTS_AT_ONCE = 1_000  # a list of tokens takes ten times the memory of an array


@dataclass(frozen=True)
class Examples:
    """Encoded texts of one part of a split, one row a text.

    token_ids: int32 [tokens], all rows one after the other, padding included.
    offsets: int64 [rows + 1]; row i is `token_ids[offsets[i]:offsets[i + 1]]`.
    real_lengths: int64 [rows], tokens of the text itself.
    labels: int64 [rows], class indices.
    index: int64 [rows], where each text stands in its source.
    is_cut: bool [rows], whether the text was longer than a row may be.
    pad_token: None where the tokenizer has none.
    """

    token_ids: np.ndarray
    offsets: np.ndarray
    real_lengths: np.ndarray
    labels: np.ndarray
    index: np.ndarray
    is_cut: np.ndarray
    pad_token: int | None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """int64 [rows], attended tokens: padding included."""
        return np.diff(self.offsets)

    @property
    def cut_texts(self) -> int:
        return int(self.is_cut.sum())

    def take(self, rows: np.ndarray) -> Examples:
        """These rows only, in this order."""
        lengths = self.lengths[rows]
        return replace(
            self,
            token_ids=self.token_ids[token_indices(self.offsets[:-1][rows], lengths)],
            offsets=np.concatenate([[0], np.cumsum(lengths)]),
            **{name: getattr(self, name)[rows] for name in ("real_lengths", "labels", "index", "is_cut")},
        )


@dataclass(frozen=True)
class RowRule:
    """How texts become rows.

    most_tokens: of a row, special tokens included. cut: what is kept of a text that is longer. pad_to: rows have that
    many tokens; "longest": as many as the longest of the training part.
    """

    most_tokens: int
    cut: Cut = "head"
    pad_to: PadTo | None = None

    @classmethod
    def of(cls, config: DataConfig, context: int, pad_to: PadTo | None = None) -> RowRule:
        """context: the most tokens that the model takes, beside what the strategy puts before them."""
        return cls(config.max_tokens or context, config.cut, pad_to)


@dataclass(frozen=True)
class TokenLists:
    """Lists of tokens one after the other: ids int32 [tokens], offsets int64 [lists + 1]."""

    ids: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, tokenizer: Tokenizer, texts: Sequence[str]) -> TokenLists:
        """The own tokens of each text. Threads share the work: tokenizers compute without Python's lock."""

        def encoded(start: int) -> tuple[np.ndarray, np.ndarray]:
            lists = tokenizer.encode(texts[start : start + _TEXTS_AT_ONCE])
            return np.fromiter(chain.from_iterable(lists), np.int32), np.fromiter(map(len, lists), np.int64)

        with ThreadPoolExecutor(os.cpu_count()) as threads:
            ids, lengths = zip(*threads.map(encoded, range(0, len(texts), _TEXTS_AT_ONCE)), strict=True)
        return cls(np.concatenate(ids), np.concatenate([[0], np.cumsum(np.concatenate(lengths))]))

    @classmethod
    def repeated(cls, ids: list[int], count: int) -> TokenLists:
        """The same list for each of `count` rows."""
        return cls(np.tile(np.array(ids, np.int32), count), np.arange(count + 1) * len(ids))

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)


def encode_split(
    split: dict[str, pd.DataFrame],
    tokenizer: Tokenizer,
    classes: list[str],
    rule: RowRule,
    special_tokens: bool = True,
) -> dict[str, Examples]:
    """Encode all parts of a split, each a frame as a source has them.

    special_tokens: whether a row begins and ends as the model expects it; else it holds the texts' own tokens only.
    Raises UserError for a text without tokens, or a row without room for any.
    """
    pair = any("second_at" in part for part in split.values())
    template = tokenizer.template(pair) if special_tokens else BARE
    encoded = {name: _encoded(part, tokenizer, template, pair) for name, part in split.items()}
    limit, pad_to = rule.most_tokens, rule.pad_to
    if pad_to == "longest":
        pad_to = min(int(np.sum([texts.lengths for texts in encoded["train"]], axis=0).max()) + len(template), limit)
    if pad_to:
        assert tokenizer.pad_token is not None, "a plan that pads is refused where the tokenizer has no pad token"
        limit = min(limit, pad_to)
    if limit <= len(template):
        raise UserError(
            f"rows of {limit} tokens have no room for a text beside this model's {len(template)} special tokens: "
            "expected more (data.max_tokens, pad_to)."
        )
    return {
        name: _examples(part, encoded[name], template, limit, rule.cut, pad_to, classes, tokenizer.pad_token)
        for name, part in split.items()
    }


def _encoded(part: pd.DataFrame, tokenizer: Tokenizer, template: Template, pair: bool) -> list[TokenLists]:
    """The own tokens of the one text of each row, or of its two."""
    if not pair:
        return [TokenLists.of(tokenizer, part["text"].tolist())]
    first, second = (TokenLists.of(tokenizer, texts) for texts in zip(*pairs_of(part), strict=True))
    return [first, TokenLists(second.ids + np.int32(template.second), second.offsets)]


def _examples(
    part: pd.DataFrame,
    texts: list[TokenLists],
    template: Template,
    limit: int,
    cut: Cut,
    pad_to: int | None,
    classes: list[str],
    pad_token: int | None,
) -> Examples:
    room = limit - len(template)
    lengths = np.stack([one.lengths for one in texts])
    kept = _kept(lengths, room)
    real_lengths = kept.sum(axis=0) + len(template)
    if not real_lengths.all():
        text = part["text"].iloc[int(real_lengths.argmin())]
        raise UserError(
            f"the text {text!r} has no token of this model's tokenizer: remove it, or choose another MODEL."
        )
    row_lengths = np.full(len(part), pad_to) if pad_to else real_lengths
    offsets = np.concatenate([[0], np.cumsum(row_lengths)])
    token_ids = np.full(offsets[-1], pad_token if pad_to else 0, dtype=np.int32)
    cursor = offsets[:-1].copy()
    for lists, starts, counts in _pieces(texts, lengths, kept, template, cut):
        _copy(lists.ids, starts, token_ids, cursor, counts)
        cursor += counts
    return Examples(
        token_ids=token_ids,
        offsets=offsets,
        real_lengths=real_lengths,
        labels=pd.Index(classes).get_indexer(pd.Index(part["label"])),
        index=part.index.to_numpy(),
        is_cut=lengths.sum(axis=0) > room,
        pad_token=pad_token,
    )


def _copy(source: np.ndarray, starts: np.ndarray, target: np.ndarray, at: np.ndarray, counts: np.ndarray) -> None:
    """For each row: `counts` tokens from `starts` of the source to `at` of the target. In blocks of rows, since indices
    take many times the memory of tokens."""
    for first in range(0, len(counts), _TEXTS_AT_ONCE):
        rows = slice(first, first + _TEXTS_AT_ONCE)
        target[token_indices(at[rows], counts[rows])] = source[token_indices(starts[rows], counts[rows])]


def _kept(lengths: np.ndarray, room: int) -> np.ndarray:
    """How many tokens of each text are kept, [texts of a row, rows], so that all fit into `room`.

    Of a pair the longer text is cut first, as `transformers` does (`longest_first`).
    """
    if len(lengths) == 1:
        return np.minimum(lengths, room)
    shorter = np.minimum(lengths.min(axis=0), room // 2)
    longer = np.minimum(lengths.max(axis=0), room - shorter)
    return np.where(lengths[0] <= lengths[1], [shorter, longer], [longer, shorter])


def _pieces(
    texts: list[TokenLists], lengths: np.ndarray, kept: np.ndarray, template: Template, cut: Cut
) -> list[tuple[TokenLists, np.ndarray, np.ndarray]]:
    """What rows are made of, in order: tokens, where each row's begin, [rows], and how many they are, [rows]."""
    count = lengths.shape[1]

    def special(ids: list[int]) -> tuple[TokenLists, np.ndarray, np.ndarray]:
        lists = TokenLists.repeated(ids, count)
        return lists, lists.offsets[:-1], lists.lengths

    pieces = [special(template.beginning)]
    for number, lists in enumerate(texts):
        if number:
            pieces.append(special(template.middle))
        back = {"head": 0 * kept[number], "tail": kept[number], "middle": kept[number] // 2}[cut]
        pieces.append((lists, lists.offsets[:-1], kept[number] - back))
        pieces.append((lists, lists.offsets[1:] - back, back))
    return [*pieces, special(template.ending)]


def longest_row(examples: dict[str, Examples]) -> int:
    """Tokens of the longest row of all parts, to which the plain path pads."""
    return max(int(part.lengths.max()) for part in examples.values())
