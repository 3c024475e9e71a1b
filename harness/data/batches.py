"""Texts as rows of token ids, and the one global order in which they are trained on.

Everything a rank does is a slice of an order that depends on the seed alone, never on the number of ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness import UserError
from harness.data.tokenizer import Tokenizer
from harness.declare import Input


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


def global_batches(count: int, batch_size: int, seed: int, epoch: int, drop_last: bool) -> list[np.ndarray]:
    """The batches of one epoch as arrays of example numbers, in an order that depends on seed and epoch alone."""
    order = np.random.default_rng([seed, epoch]).permutation(count)
    ends = range(batch_size, count + 1, batch_size) if drop_last else range(batch_size, count + batch_size, batch_size)
    return [order[end - batch_size : end] for end in ends]


def micro_batches(
    batch: np.ndarray, micro_batch_size: int, rank: int, world_size: int
) -> list[tuple[np.ndarray, bool]]:
    """This rank's slice of a global batch, cut into equally many micro-batches on every rank.

    Each comes with whether its examples count: a rank that has none left repeats the batch's first at weight 0, so
    that all ranks take part in every exchange of gradients.
    """
    mine = batch[rank::world_size]
    largest_share = -(-len(batch) // world_size)
    parts = [mine[start : start + micro_batch_size] for start in range(0, largest_share, micro_batch_size)]
    return [(part, True) if len(part) else (batch[:1], False) for part in parts]


def batches_by_length(lengths: np.ndarray, tokens: int) -> list[np.ndarray]:
    """The numbers of all rows once, shortest first, in batches of about `tokens` tokens."""
    batches: list[list[int]] = [[]]
    for number in np.argsort(lengths, kind="stable"):
        if batches[-1] and (len(batches[-1]) + 1) * lengths[number] > tokens:
            batches.append([])
        batches[-1].append(number)
    return [np.array(batch) for batch in batches]


def tokens_at_once(device: str) -> int:
    """How many tokens to compute at once where no gradient is kept, by the device's type.

    On a CPU what keeps its products near their peak (2,048 take a thirteenth less time each than 512), on a GPU what
    keeps it busy between launches.
    """
    return 2_048 if device == "cpu" else 16_384


def batches_in_order(count: int, batch_size: int) -> list[np.ndarray]:
    return np.split(np.arange(count), range(batch_size, count, batch_size))


def gather_rows(flat: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The rows that begin at `starts` of a flat array, one after the other."""
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return flat[np.repeat(starts, lengths) + within]


def longest_row(examples: dict[str, Examples]) -> int:
    """Of all parts: what the plain path pads to."""
    return max(int(part.lengths.max()) for part in examples.values())
