"""A rare class: messages of `word_order`, of which one in twenty is spam.

Whoever always says ham is right about 95%, so that accuracy hardly tells strategies apart; macro F1 does.
"""

from __future__ import annotations

from harness.data.tasks import word_order
from harness.data.tasks.phrases import Message

RARE = 20  # one message in so many is spam


def generate(count: int, seed: int) -> list[Message]:
    """`count` messages without flipped labels; the same for the same seed."""
    spam = count // RARE
    # Drawn from as many of each class as are needed, with a seed apart from those of word_order's own sets.
    drawn = word_order.generate(2 * count, seed + 1)
    wanted = {"spam": spam, "ham": count - spam}
    chosen = []
    for message in drawn:
        if wanted[message.true_label]:
            wanted[message.true_label] -= 1
            chosen.append(Message(message.text, message.true_label, message.true_label))
    return chosen
