"""Embedded tasks: seeded generators of labelled messages of different nature, which `mini` knows the words of.

A task tells strategies apart by what it takes to solve it; each module says what that is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.data.tasks import counting, late_cue, negation, rare_class, word_order
from harness.data.tasks.phrases import Message


@dataclass(frozen=True)
class Task:
    """generate: messages by count and seed. best_accuracy: expected, of the best possible classifier."""

    generate: Callable[[int, int], list[Message]]
    best_accuracy: float | None = None


SYNTHETIC_NAME = "synthetic"
TASKS = {
    SYNTHETIC_NAME: Task(word_order.generate, best_accuracy=1 - word_order.FLIPPED_FRACTION),
    "negation": Task(negation.generate),
    "late_cue": Task(late_cue.generate),
    "counting": Task(counting.generate),
    "rare_class": Task(rare_class.generate),
}
