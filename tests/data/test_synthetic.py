"""The generated texts: their label can be read from the order of the words, and from nothing simpler."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from scipy.stats import chi2_contingency
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from harness.config.schema import DataConfig
from harness.data.sources import load_source
from harness.data.tasks import phrases
from harness.data.tasks.phrases import Message
from harness.data.tasks.word_order import generate
from harness.data.tokenizer import load_tokenizer

TRAIN, TEST = 4000, 2000
GIVING = "send|pay|transfer|hand over|post|bring|leave|drop off|share|forward"
GETTING = "collect|receive|pick up|get|claim|take home|keep|open|enjoy|unpack"


@pytest.fixture(scope="module")
def messages() -> list[Message]:
    return generate(TRAIN + TEST, seed=5)


def read_order(text: str) -> str:
    """What somebody says who knows the verbs and looks which comes first."""
    first = re.search(rf"\b(?:(?P<giving>{GIVING})|{GETTING})\b", text)
    return "spam" if first["giving"] else "ham"


def test_same_seed_same_messages(messages: list[Message]) -> None:
    assert generate(TRAIN + TEST, seed=5) == messages
    assert generate(TRAIN + TEST, seed=6) != messages
    assert (
        load_source(DataConfig(name="synthetic", size=300), Path()).sha256
        == load_source(DataConfig(name="synthetic", size=300), Path()).sha256
        != load_source(DataConfig(name="synthetic", size=301), Path()).sha256
    )


@pytest.mark.parametrize("count", [100, 1001, 6000])
def test_true_classes_are_balanced_and_3_percent_of_the_labels_flipped(count: int) -> None:
    drawn = generate(count, seed=1)
    of_class = Counter(message.true_label for message in drawn)
    assert abs(of_class["ham"] - of_class["spam"]) == count % 2
    assert sum(message.label != message.true_label for message in drawn) == round(0.03 * count)
    assert {message.label for message in drawn} == {"ham", "spam"}


@pytest.mark.parametrize(
    "vectorizer",
    [TfidfVectorizer(), TfidfVectorizer(ngram_range=(1, 2)), CountVectorizer()],
    ids=["tf-idf of words", "tf-idf of words and pairs", "counts of words"],
)
def test_a_bag_of_words_stays_at_90_percent_at_most(messages: list[Message], vectorizer: CountVectorizer) -> None:
    texts, labels = [message.text for message in messages], [message.label for message in messages]
    classifier = LogisticRegression(max_iter=1000).fit(vectorizer.fit_transform(texts[:TRAIN]), labels[:TRAIN])
    accuracy = classifier.score(vectorizer.transform(texts[TRAIN:]), labels[TRAIN:])
    assert 0.6 < accuracy <= 0.90


def test_the_first_token_says_nothing(messages: list[Message], tmp_path: Path) -> None:
    tokenizer = load_tokenizer("mini", tmp_path, None)
    first_tokens = [tokenizer.encode_ordinary(message.text)[0] for message in messages]
    labels = [message.label for message in messages]
    seen: dict[int, Counter] = defaultdict(Counter)
    for token, label in zip(first_tokens, labels, strict=True):
        seen[token][label] += 1
    assert len(seen) > 5
    assert chi2_contingency([[count["ham"], count["spam"]] for count in seen.values()]).pvalue > 0.01

    table: dict[int, Counter] = defaultdict(Counter)
    for token, label in zip(first_tokens[:TRAIN], labels[:TRAIN], strict=True):
        table[token][label] += 1
    answers = [(table[token] or Counter(["ham"])).most_common(1)[0][0] for token in first_tokens[TRAIN:]]
    right = sum(answer == label for answer, label in zip(answers, labels[TRAIN:], strict=True))
    assert 0.45 < right / TEST < 0.55


def test_the_order_of_the_acts_is_the_label(messages: list[Message]) -> None:
    assert [read_order(message.text) for message in messages] == [message.true_label for message in messages]
    best = sum(read_order(message.text) == message.label for message in messages) / len(messages)
    assert best == pytest.approx(0.97)
    assert load_source(DataConfig(name="synthetic", size=100), Path()).best_accuracy == pytest.approx(0.97)


def test_swapped_acts_are_the_same_bag_of_words_with_the_other_label(messages: list[Message]) -> None:
    for message in messages[:500]:
        sentences = message.text.split(". ")
        acts = [
            number
            for number, part in enumerate(sentences)
            if re.search(rf"\b({GIVING}|{GETTING}) (the|your|\w+ pounds)", part)
        ]
        assert len(acts) == 2
        first, second = acts
        assert second - first > 1, "what stands between the acts keeps pairs of words from telling their order"
        sentences[first], sentences[second] = sentences[second], sentences[first]
        swapped = ". ".join(sentences)
        assert Counter(swapped.replace(".", "").split()) == Counter(message.text.replace(".", "").split())
        assert read_order(swapped) == phrases.CLASSES[1 - phrases.CLASSES.index(message.true_label)]
