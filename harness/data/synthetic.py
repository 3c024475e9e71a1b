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
from dataclasses import dataclass

FLIPPED_FRACTION = 0.03
CLOSER_AGREES = 0.75
ANSWER_AGREES = 0.8
CLASSES = ("ham", "spam")
STREAM_SEED = 1_000_000  # of the texts that mini and its tokenizer are trained on; data sets have other seeds

_OPENERS = "hi hey hello ok so well morning evening right listen dear sorry thanks quick_note just_a_note by_the_way"
_PEOPLE = "anna ben carla david emma frank grace henry irene jack the_shop the_office the_bank the_school my_sister"
_TIMES = "today tonight tomorrow this_week on_friday on_monday at_noon before_six after_work this_weekend in_june"
_GIVE = "send pay transfer hand_over post bring leave drop_off share forward"
_GIVEN = "the_fee the_deposit the_money ten_pounds fifty_pounds the_cash your_card your_code the_password the_forms"
_GET = "collect receive pick_up get claim take_home keep open enjoy unpack"
_GOT = "the_parcel the_tickets the_phone the_prize the_keys the_refund the_voucher the_photos the_bike the_camera"
_FILLERS = (
    "{person} knows about it",
    "i talked to {person} {time}",
    "it is all arranged {time}",
    "{person} said it is fine",
    "the weather looks good {time}",
    "no rush at all",
    "nothing else has changed",
    "{person} will be around {time}",
    "it should not take long",
    "we can talk about it {time}",
)
_ACTS = ("please {act}", "you can {act}", "you {act} {time}", "then {act}", "just {act} {time}", "remember to {act}")
_CLOSERS = {
    "ham": ("see you {time}", "talk soon", "love from {person}", "give me a ring {time}", "say hello to {person}"),
    "spam": ("reply yes {time}", "call now", "offer ends {time}", "ask for {person}", "text stop to end"),
}
_ANSWERS = {
    "ham": ("thanks. see you {time}", "yes. talk soon", "good. {time} is fine", "love to {person}", "see you {time}"),
    "spam": ("who is this", "no thanks. not {time}", "stop it", "not {time}", "leave it to {person}"),
}
_UNANSWERED = ("give me a ring", "say hello", "call now", "ask for")


@dataclass(frozen=True)
class Message:
    """A generated message. `true_label` follows from the text; `label` is the same, or flipped."""

    text: str
    label: str
    true_label: str


def generate(count: int, seed: int) -> list[Message]:
    """`count` messages, half of each true class, 3% of the labels flipped; the same for the same seed."""
    rng = random.Random(seed)
    labels = [CLASSES[index % 2] for index in range(count)]
    rng.shuffle(labels)
    flipped = set(rng.sample(range(count), round(FLIPPED_FRACTION * count)))
    return [
        Message(_compose(label, rng), _other(label) if index in flipped else label, label)
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
    agreeing = message.true_label if rng.random() < ANSWER_AGREES else _other(message.true_label)
    return f" {_phrase(rng, _ANSWERS[agreeing])}"


def _compose(label: str, rng: random.Random) -> str:
    give = _phrase(rng, _ACTS, f"{_word(rng, _GIVE)} {_word(rng, _GIVEN)}")
    get = _phrase(rng, _ACTS, f"{_word(rng, _GET)} {_word(rng, _GOT)}")
    first, second = (give, get) if label == "spam" else (get, give)
    agreeing = label if rng.random() < CLOSER_AGREES else _other(label)
    between, after = _phrase(rng, _FILLERS), _phrase(rng, _FILLERS)
    parts = [_word(rng, _OPENERS), first, between, second, after, _phrase(rng, _CLOSERS[agreeing])]
    return ". ".join(parts)


def _phrase(rng: random.Random, templates: tuple[str, ...], act: str = "") -> str:
    template = rng.choice(templates)
    return template.format(act=act, person=_word(rng, _PEOPLE), time=_word(rng, _TIMES))


def _word(rng: random.Random, words: str) -> str:
    return rng.choice(words.split()).replace("_", " ")


def _other(label: str) -> str:
    return CLASSES[1 - CLASSES.index(label)]
