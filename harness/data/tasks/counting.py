"""Exactly as many?

Four acts in any order. If two of them give and two get, the message is spam; if one or three give, ham. No word tells
the classes apart, and no weight for each word does: giving is as frequent in both. A model has to count what is spread
over the text, and to compare.
"""

from __future__ import annotations

import random

from harness.data.tasks.phrases import ACTS, OPENERS, Message, balanced_labels, get, give, phrase, word


def generate(count: int, seed: int) -> list[Message]:
    """`count` messages, half of each class; the same for the same seed."""
    rng = random.Random(f"counting {seed}")
    return [Message(_compose(label, rng), label, label) for label in balanced_labels(rng, count)]


def _compose(label: str, rng: random.Random) -> str:
    giving = 2 if label == "spam" else rng.choice((1, 3))
    kinds = [give] * giving + [get] * (4 - giving)
    rng.shuffle(kinds)
    return ". ".join([word(rng, OPENERS), *(phrase(rng, ACTS, kind(rng)) for kind in kinds)])
