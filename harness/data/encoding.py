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
    """Encoded texts: the ids of row i are `token_ids[offsets[i]:offsets[i + 1]]`, attended padding included.

    real_lengths counts the text's own tokens; cut_texts the texts that were longer than a row may be.
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
        """Attended tokens of each row."""
        return np.diff(self.offsets)


def encode_split(
    split: dict[str, pd.DataFrame],
    tokenizer: Tokenizer,
    classes: list[str],
    rule: Input,
    context: int,
    special_tokens: bool = True,
) -> dict[str, Examples]:
    """Encode all parts by the strategy's input rule; "longest" is the longest training text, at most the context.

    special_tokens: whether a row begins and ends as the model expects; else it is the text's own tokens.
    """
    encoded = {name: tokenizer.encode_rows(part["text"].tolist(), special_tokens) for name, part in split.items()}
    longest = min(max(map(len, encoded["train"])), context)
    pad_to = longest if rule.pad_to == "longest" else rule.pad_to
    return {
        name: _examples(encoded[name], part, tokenizer, classes, pad_to, context, special_tokens)
        for name, part in split.items()
    }


def _examples(
    encoded: list[list[int]],
    part: pd.DataFrame,
    tokenizer: Tokenizer,
    classes: list[str],
    pad_to: int | None,
    context: int,
    special_tokens: bool,
) -> Examples:
    limit = pad_to or context
    pad_token = tokenizer.pad_token
    rows = [tokenizer.cut(ids, limit, special_tokens) for ids in encoded]
    real_lengths = np.array([len(row) for row in rows])
    if not real_lengths.all():
        text = part["text"].iloc[int(real_lengths.argmin())]
        raise UserError(
            f"the text {text!r} has no token of this model's tokenizer: remove it, or choose another MODEL."
        )
    if pad_to:
        rows = [row + [pad_token] * (pad_to - len(row)) for row in rows]
    return Examples(
        token_ids=np.concatenate([np.array(row, dtype=np.int32) for row in rows]),
        offsets=np.concatenate([[0], np.cumsum([len(row) for row in rows])]),
        real_lengths=real_lengths,
        labels=np.array([classes.index(label) for label in part["label"]]),
        index=part.index.to_numpy(),
        cut_texts=sum(len(ids) > limit for ids in encoded),
        pad_token=pad_token,
    )


def longest_row(examples: dict[str, Examples]) -> int:
    """Of all parts: what the plain path pads to."""
    return max(int(part.lengths.max()) for part in examples.values())
