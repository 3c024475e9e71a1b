"""A long text that its last act decides.

Three to five acts of giving and as many of getting stand in any order among other sentences. If the last act of all
gives, the text is spam. Both classes have the same words, as often; what counts stands towards the end of some 150
tokens, so that whoever reads the beginning, or the mean, sees it among much that does not count.
"""

from __future__ import annotations

import random

from harness.data.tasks.phrases import ACTS, FILLERS, OPENERS, Message, balanced_labels, get, give, phrase, word


def generate(count: int, seed: int) -> list[Message]:
    """`count` messages, half of each class; the same for the same seed."""
    rng = random.Random(f"late cue {seed}")
    return [Message(_compose(label, rng), label, label) for label in balanced_labels(rng, count)]


def _compose(label: str, rng: random.Random) -> str:
    of_each = rng.randint(3, 5)
    kinds = [give, get] * of_each
    last = give if label == "spam" else get
    kinds.remove(last)
    rng.shuffle(kinds)
    sentences = [word(rng, OPENERS)]
    for kind in [*kinds, last]:
        sentences += [phrase(rng, ACTS, kind(rng)), *(phrase(rng, FILLERS) for _ in range(rng.randint(0, 2)))]
    return ". ".join(sentences)
