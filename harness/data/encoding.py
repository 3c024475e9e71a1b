"""Texts as rows of token ids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.config.strategy import Input
from harness.data.tokenizer import Tokenizer
from harness.errors import UserError


@dataclass(frozen=True)
class Examples:
    """Encoded texts of one part of a split, one row a text.

    token_ids: int32 [tokens], all rows one after the other, padding included.
    offsets: int64 [rows + 1]; row i is `token_ids[offsets[i]:offsets[i + 1]]`.
    real_lengths: int64 [rows], tokens of the text itself.
    labels: int64 [rows], class indices.
    index: int64 [rows], where each text stands in its source.
    cut_texts: how many texts were longer than a row may be.
    pad_token: None where the tokenizer has none.
    """

    token_ids: np.ndarray
    offsets: np.ndarray
    real_lengths: np.ndarray
    labels: np.ndarray
    index: np.ndarray
    cut_texts: int
    pad_token: int | None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """int64 [rows], attended tokens: padding included."""
        return np.diff(self.offsets)


def encode_split(
    split: dict[str, pd.DataFrame],
    tokenizer: Tokenizer,
    classes: list[str],
    input_rule: Input,
    context: int,
    special_tokens: bool = True,
) -> dict[str, Examples]:
    """Encode all parts of a split, each a frame with the columns `label` and `text`, as the strategy's input asks.

    A row has at most `context` tokens; "longest" is the longest row of the training part.
    special_tokens: whether a row begins and ends as the model expects it; else it holds the text's own tokens only.
    Raises UserError for a text without tokens.
    """
    encoded = {name: tokenizer.encode_rows(part["text"].tolist(), special_tokens) for name, part in split.items()}
    longest = min(max(map(len, encoded["train"])), context)
    pad_to = longest if input_rule.pad_to == "longest" else input_rule.pad_to
    limit = pad_to or context
    examples = {}
    for name, part in split.items():
        rows = [tokenizer.cut(ids, limit, special_tokens) for ids in encoded[name]]
        cut_texts = sum(len(ids) > limit for ids in encoded[name])
        examples[name] = _examples(rows, part, classes, pad_to, tokenizer.pad_token, cut_texts)
    return examples


def _examples(
    rows: list[list[int]],
    part: pd.DataFrame,
    classes: list[str],
    pad_to: int | None,
    pad_token: int | None,
    cut_texts: int,
) -> Examples:
    real_lengths = np.array([len(row) for row in rows])
    if not real_lengths.all():
        text = part["text"].iloc[int(real_lengths.argmin())]
        raise UserError(
            f"the text {text!r} has no token of this model's tokenizer: remove it, or choose another MODEL."
        )
    if pad_to:
        assert pad_token is not None, "a plan that pads is refused where the tokenizer has no pad token"
        rows = [row + [pad_token] * (pad_to - len(row)) for row in rows]
    return Examples(
        token_ids=np.concatenate([np.array(row, dtype=np.int32) for row in rows]),
        offsets=np.concatenate([[0], np.cumsum([len(row) for row in rows])]),
        real_lengths=real_lengths,
        labels=np.array([classes.index(label) for label in part["label"]]),
        index=part.index.to_numpy(),
        cut_texts=cut_texts,
        pad_token=pad_token,
    )


def longest_row(examples: dict[str, Examples]) -> int:
    """Tokens of the longest row of all parts, to which the plain path pads."""
    return max(int(part.lengths.max()) for part in examples.values())
