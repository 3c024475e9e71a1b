"""The embedded tasks: the label can be read from the text by the rule of its task, and from nothing simpler."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from harness.config.schema import DataConfig
from harness.data.dataset import load_dataset
from harness.data.tasks import TASKS
from harness.data.tasks.phrases import Message
from harness.data.tokenizer import load_tokenizer

TRAIN, TEST = 3000, 1000
GIVING = "send|pay|transfer|hand over|post|bring|leave|drop off|share|forward"
GETTING = "collect|receive|pick up|get|claim|take home|keep|open|enjoy|unpack"
# The phrases between the acts have none of these verbs.
ACT = re.compile(rf"\b(?:(?P<give>{GIVING})|{GETTING})\b")


def _acts(text: str) -> list[bool]:
    """Of each act, in order, whether it gives."""
    return [bool(found["give"]) for found in ACT.finditer(text)]


def _asks_to_give(text: str) -> bool:
    sentences = [sentence for sentence in text.split(". ") if ACT.search(sentence)]
    return next(" not " not in sentence for sentence in sentences if _acts(sentence) == [True])


RULES: dict[str, Callable[[str], bool]] = {
    "negation": _asks_to_give,
    "late_cue": lambda text: _acts(text)[-1],
    "counting": lambda text: sum(_acts(text)) == 2,
    "rare_class": lambda text: _acts(text)[0],
}
BALANCED = [name for name in RULES if name != "rare_class"]


@cache
def messages(task: str) -> list[Message]:
    return TASKS[task].generate(TRAIN + TEST, 5)


@pytest.mark.parametrize("task", RULES)
def test_whoever_knows_the_rule_is_always_right(task: str) -> None:
    assert all(RULES[task](message.text) == (message.label == "spam") for message in messages(task))
    assert TASKS[task].generate(TRAIN + TEST, 5) == messages(task)
    assert TASKS[task].generate(TRAIN + TEST, 6) != messages(task)


@pytest.mark.parametrize("task", BALANCED)
@pytest.mark.parametrize("pairs", [1, 2])
def test_word_counts_say_nearly_nothing(task: str, pairs: int) -> None:
    texts, labels = ([getattr(message, key) for message in messages(task)] for key in ("text", "label"))
    words = TfidfVectorizer(ngram_range=(1, pairs))
    classifier = LogisticRegression(max_iter=1000).fit(words.fit_transform(texts[:TRAIN]), labels[:TRAIN])
    assert classifier.score(words.transform(texts[TRAIN:]), labels[TRAIN:]) < 0.62
    assert labels.count("spam") == len(labels) / 2


@pytest.mark.parametrize("task", BALANCED)
def test_neither_the_first_token_nor_the_length_says_anything(task: str, tmp_path: Path) -> None:
    tokenizer = load_tokenizer("mini", tmp_path, None)
    rows = [tokenizer.encode_ordinary(message.text) for message in messages(task)]
    labels = [message.label for message in messages(task)]
    for clue in ([row[0] for row in rows], [len(row) // 5 for row in rows]):
        seen = Counter(zip(clue[:TRAIN], labels[:TRAIN], strict=True))
        answers = ["spam" if seen[one, "spam"] > seen[one, "ham"] else "ham" for one in clue[TRAIN:]]
        right = sum(answer == label for answer, label in zip(answers, labels[TRAIN:], strict=True))
        assert 0.45 < right / TEST < 0.56
    assert max(map(len, rows)) <= 256, "a row fits into mini's context"


def test_one_message_in_twenty_is_of_the_rare_class_in_each_part(tmp_path: Path) -> None:
    assert Counter(message.label for message in messages("rare_class")) == {"ham": 3800, "spam": 200}
    split = load_dataset(DataConfig(name="rare_class", size=1000), tmp_path).split
    assert {name: (part["label"] == "spam").sum() for name, part in split.items()} == {
        "train": 35,
        "validation": 5,
        "test": 10,
    }
