"""A seeded generator of short messages whose label depends on word order, not on words.

Each message asks for two acts: the reader *gives* something and *gets* something. Giving first is spam, getting first
is ham. Both orders use the same words, and a neutral phrase stands between the acts, so neither single words nor pairs
of neighbours reveal the order. The opening phrase is independent of the class. The closing phrase is correlated with
it, so that a bag of words beats chance and a language model predicts the close better if it has read the order. 3% of
the labels are flipped, so no classifier of the text can expect more than 97% accuracy.

`conversations` adds an answer to each message, for pretraining only: as in the corpora of language models, what follows
a text depends on its meaning. The first words of 80% of the answers agree with the true class, so the hidden state of
the message's last token, which predicts them, has to encode the class. This is what makes frozen features of a
pretrained model useful. Two closing phrases of five in each class ask for a call or a talk and get no answer: there
the next token is always end-of-text, no state has to encode the class, and frozen features fall short of what the
model can read.
"""

from __future__ import annotations

import random

from harness.data.tasks.phrases import ACTS, FILLERS, OPENERS, Message, balanced_labels, get, give, other, phrase, word

FLIPPED_FRACTION = 0.03
CLOSER_AGREES = 0.75
ANSWER_AGREES = 0.8
STREAM_SEED = 1_000_000  # of the texts that mini and its tokenizer are trained on; data sets have other seeds

_CLOSERS = {
    "ham": ("see you {time}", "talk soon", "love from {person}", "give me a ring {time}", "say hello to {person}"),
    "spam": ("reply yes {time}", "call now", "offer ends {time}", "ask for {person}", "text stop to end"),
}
_ANSWERS = {
    "ham": ("thanks. see you {time}", "yes. talk soon", "good. {time} is fine", "love to {person}", "see you {time}"),
    "spam": ("who is this", "no thanks. not {time}", "stop it", "not {time}", "leave it to {person}"),
}
_UNANSWERED = ("give me a ring", "say hello", "call now", "ask for")


def generate(count: int, seed: int) -> list[Message]:
    """`count` messages, half of each true class, 3% of the labels flipped; the same for the same seed."""
    rng = random.Random(seed)
    labels = balanced_labels(rng, count)
    flipped = set(rng.sample(range(count), round(FLIPPED_FRACTION * count)))
    return [
        Message(_compose(label, rng), other(label) if index in flipped else label, label)
        for index, label in enumerate(labels)
    ]


def conversations(count: int, seed: int) -> list[tuple[str, str]]:
    """The texts of `generate(count, seed)`, each with an answer that begins with a space, or "" for none.

    The answer depends on the true class, not on the label. No data set includes it.
    """
    rng = random.Random(f"answers {seed}")  # independent of the draws that made the messages
    return [(message.text, _answer(message, rng)) for message in generate(count, seed)]


def _answer(message: Message, rng: random.Random) -> str:
    closer = message.text.split(". ")[-1]
    if closer.startswith(_UNANSWERED):
        return ""
    agreeing = message.true_label if rng.random() < ANSWER_AGREES else other(message.true_label)
    return f" {phrase(rng, _ANSWERS[agreeing])}"


def _compose(label: str, rng: random.Random) -> str:
    giving, getting = phrase(rng, ACTS, give(rng)), phrase(rng, ACTS, get(rng))
    first, second = (giving, getting) if label == "spam" else (getting, giving)
    agreeing = label if rng.random() < CLOSER_AGREES else other(label)
    between, after = phrase(rng, FILLERS), phrase(rng, FILLERS)
    parts = [word(rng, OPENERS), first, between, second, after, phrase(rng, _CLOSERS[agreeing])]
    return ". ".join(parts)
