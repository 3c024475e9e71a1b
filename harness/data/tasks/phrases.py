"""The words that generated messages are made of. `mini` was trained on them, in the messages of `word_order`."""

from __future__ import annotations

import random
from dataclasses import dataclass

CLASSES = ("ham", "spam")
OPENERS = "hi hey hello ok so well morning evening right listen dear sorry thanks quick_note just_a_note by_the_way"
_PEOPLE = "anna ben carla david emma frank grace henry irene jack the_shop the_office the_bank the_school my_sister"
_TIMES = "today tonight tomorrow this_week on_friday on_monday at_noon before_six after_work this_weekend in_june"
_GIVE = "send pay transfer hand_over post bring leave drop_off share forward"
_GIVEN = "the_fee the_deposit the_money ten_pounds fifty_pounds the_cash your_card your_code the_password the_forms"
_GET = "collect receive pick_up get claim take_home keep open enjoy unpack"
_GOT = "the_parcel the_tickets the_phone the_prize the_keys the_refund the_voucher the_photos the_bike the_camera"
FILLERS = (
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
ACTS = ("please {act}", "you can {act}", "you {act} {time}", "then {act}", "just {act} {time}", "remember to {act}")


@dataclass(frozen=True)
class Message:
    """A generated message. `true_label` follows from the text; `label` is the same, or flipped."""

    text: str
    label: str
    true_label: str


def phrase(rng: random.Random, templates: tuple[str, ...], act: str = "") -> str:
    """One of the templates, filled in."""
    template = rng.choice(templates)
    return template.format(act=act, person=word(rng, _PEOPLE), time=word(rng, _TIMES))


def give(rng: random.Random) -> str:
    """An act that gives something, such as "pay the fee"."""
    return f"{word(rng, _GIVE)} {word(rng, _GIVEN)}"


def get(rng: random.Random) -> str:
    """An act that gets something, such as "collect the parcel"."""
    return f"{word(rng, _GET)} {word(rng, _GOT)}"


def word(rng: random.Random, words: str) -> str:
    return rng.choice(words.split()).replace("_", " ")


def balanced_labels(rng: random.Random, count: int) -> list[str]:
    """Half of each class, in a random order."""
    labels = [CLASSES[index % 2] for index in range(count)]
    rng.shuffle(labels)
    return labels


def other(label: str) -> str:
    return CLASSES[1 - CLASSES.index(label)]
