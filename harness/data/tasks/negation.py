"""Which act does the negation reach?

A message asks for one act, giving or getting, and against the other: "not" stands once, at one of two acts, and words
stand between it and its verb. Giving that is asked for is spam. Words, their number and the order of the acts are the
same in both classes, so that only what "not" belongs to tells them apart.
"""

from __future__ import annotations

import random

from harness.data.tasks.phrases import FILLERS, OPENERS, Message, balanced_labels, get, give, phrase, word

_ASKED = ("you can {time} {act}", "please, as {person} said, {act}", "and {person} says you should {time} {act}")
_REFUSED = (
    "you can not {time} {act}",
    "please, not as {person} said, {act}",
    "and {person} says you should not {time} {act}",
)


def generate(count: int, seed: int) -> list[Message]:
    """`count` messages, half of each class; the same for the same seed."""
    rng = random.Random(f"negation {seed}")
    return [Message(_compose(label, rng), label, label) for label in balanced_labels(rng, count)]


def _compose(label: str, rng: random.Random) -> str:
    giving, getting = (_ASKED, _REFUSED) if label == "spam" else (_REFUSED, _ASKED)
    acts = [phrase(rng, giving, give(rng)), phrase(rng, getting, get(rng))]
    rng.shuffle(acts)
    between, after = phrase(rng, FILLERS), phrase(rng, FILLERS)
    return ". ".join([word(rng, OPENERS), acts[0], between, acts[1], after])
