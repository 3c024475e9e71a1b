"""The pretrained `mini`: a checkpoint like the published ones, and a model small enough to show what those show."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from math import log
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import ttest_1samp
from transformers import GPT2Config, GPT2LMHeadModel

from harness.config.schema import DataConfig
from harness.data.dataset import load_dataset
from harness.data.sources import load_source
from harness.data.tasks import phrases, word_order
from harness.data.tokenizer import load_tokenizer
from harness.files import file_sha256
from harness.model.named.shapes import SHAPES
from harness.model.named.weights import MINI_CHECKPOINT, Checkpoint, RandomWeights, filled_backbone
from harness.model.packing import PackedBatch
from harness.results.record import Record
from tools import pretrain_mini

SIZE = 3000  # the default: 600 test messages
ANSWERED = 3 / 5  # of the closing phrases, in either class
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


@pytest.mark.parametrize("weights", ["auto", "pretrained", "random"])
def test_auto_takes_it_and_random_stays_random(run_here: Callable, weights: str) -> None:
    (record,) = run_here(strategy=["head_only"], model__weights=weights, data__size=50, training__epochs=0)
    expected = ("random", None) if weights == "random" else ("pretrained", file_sha256(MINI_CHECKPOINT))
    assert (record.model.weights, record.model.weights_sha256) == expected


def test_transformers_reads_the_same_model(tmp_path: Path) -> None:
    shape = SHAPES["mini"]
    GPT2Config(
        vocab_size=shape.vocabulary,
        n_positions=shape.context,
        n_embd=shape.hidden,
        n_layer=shape.blocks,
        n_head=shape.heads,
    ).save_pretrained(tmp_path)
    shutil.copy(MINI_CHECKPOINT, tmp_path / "model.safetensors")
    theirs = GPT2LMHeadModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    ours = filled_backbone("mini", Checkpoint(MINI_CHECKPOINT))
    token_ids = torch.randint(0, shape.vocabulary, (64,), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = ours.next_token_logits(ours(token_ids, PackedBatch.packed(np.array([64]))))
        torch.testing.assert_close(logits, theirs(token_ids[None]).logits[0], atol=1e-4, rtol=0)


def test_its_loss_is_near_the_entropy_which_needs_the_order_of_the_acts() -> None:
    """Who forgets which act came first does not know which one is left: log 2 more."""
    loss = pretrain_mini.nats_per_conversation(filled_backbone("mini", Checkpoint(MINI_CHECKPOINT)), 1000)
    assert loss - _entropy_of_a_conversation() == pytest.approx(0, abs=0.25)  # a standard error is about 0.1


def _entropy_of_a_conversation() -> float:
    """Of what follows the opener, in nats: the text tells every choice that the generator made."""
    act = _of_phrases(phrases.ACTS) + 2 * log(10)
    closer = _of_leaning(word_order._CLOSERS, word_order.CLOSER_AGREES)
    answer = ANSWERED * _of_leaning(word_order._ANSWERS, word_order.ANSWER_AGREES)
    return log(2) + 2 * act + 2 * _of_phrases(phrases.FILLERS) + closer + answer


def _of_leaning(phrases: dict[str, tuple[str, ...]], agrees: float) -> float:
    return _entropy(agrees) + sum(_of_phrases(templates) for templates in phrases.values()) / len(phrases)


def _of_phrases(templates: tuple[str, ...]) -> float:
    words = {"{person}": log(len(phrases._PEOPLE.split())), "{time}": log(len(phrases._TIMES.split()))}
    inside = sum(entropy for template in templates for name, entropy in words.items() if name in template)
    return log(len(templates)) + inside / len(templates)


def _entropy(share: float) -> float:
    return -share * log(share) - (1 - share) * log(1 - share)


def test_the_stream_is_the_messages_with_answers_that_lean_towards_the_true_class() -> None:
    messages, drawn = word_order.generate(5000, seed=5), word_order.conversations(5000, seed=5)
    assert [text for text, _ in drawn] == [message.text for message in messages]
    first_words = {label: {_first_word(phrase) for phrase in phrases} for label, phrases in word_order._ANSWERS.items()}
    assert not first_words["ham"] & first_words["spam"]
    answered = [(message, answer) for message, (_, answer) in zip(messages, drawn, strict=True) if answer]
    assert len(answered) / len(drawn) == pytest.approx(ANSWERED, abs=0.03)
    agrees = [_first_word(answer) in first_words[message.true_label] for message, answer in answered]
    assert np.mean(agrees) == pytest.approx(word_order.ANSWER_AGREES, abs=0.03)


def _first_word(text: str) -> str:
    return re.search(r"\w+", text)[0]


def test_a_row_begins_as_the_classifier_sees_the_message() -> None:
    """And the answer follows at once: a separator would be certain, and so nothing to keep the class for."""
    tokenizer = load_tokenizer("mini", Path(), None)
    (rows,) = pretrain_mini.conversations_in_batches(50, seed=5)
    for row, (message, answer) in zip(rows, word_order.conversations(50, seed=5), strict=True):
        alone = tokenizer.encode_ordinary(message)
        assert row[: len(alone)] == alone
        assert tokenizer.decode(row[len(alone) :]) == answer
        assert row == tokenizer.encode_ordinary(message + answer)


@pytest.mark.long
def test_no_text_of_the_data_set_was_trained_on() -> None:
    stream = word_order.conversations(pretrain_mini.STEPS * pretrain_mini.BATCH_SIZE, word_order.STREAM_SEED)
    assert not {message for message, _ in stream} & set(
        load_source(DataConfig(name="synthetic", size=SIZE), Path()).texts["text"]
    )


def test_the_same_pretraining_twice_gives_the_same_weights(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrain_mini, "HELD_OUT", 64)
    first, second = (pretrain_mini.pretrain(steps=3) for _ in range(2))
    start = filled_backbone("mini", RandomWeights("gpt2", 123))
    for name, parameter in first.named_parameters():
        assert torch.equal(parameter, second.get_parameter(name))
        assert not torch.equal(parameter, start.get_parameter(name))
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2
    assert told[0] == told[1]


@pytest.fixture
def correct(run_here: Callable, tmp_path: Path) -> Callable[..., np.ndarray]:
    """Which test messages a strategy gets right: the share of `seeds`, [messages]; and the records."""

    def run(strategy: str, weights: str, seeds: int = 1, **options: object) -> tuple[np.ndarray, list[Record]]:
        common = {"strategy": [strategy], "model__weights": weights, "data__size": SIZE, "seed": list(range(seeds))}
        records = run_here(**common, **options)
        frames = [pd.read_csv(tmp_path / "results" / "runs" / r.run_id / "predictions.csv") for r in records]
        return np.mean([frame["label"] == frame["predicted"] for frame in frames], axis=0), records

    return run


def _gain(better: np.ndarray, worse: np.ndarray) -> tuple[float, float]:
    """The 95% interval of the mean difference, paired over the test messages."""
    return tuple(ttest_1samp(better - worse, 0).confidence_interval())


@pytest.mark.long
def test_frozen_features_of_the_pretrained_model_are_worth_something(correct: Callable) -> None:
    pretrained, _ = correct("head_only", "pretrained")
    random, _ = correct("head_only", "random")
    assert _gain(pretrained, random)[0] >= 0.10


@pytest.mark.long
def test_the_first_token_reads_nothing(correct: Callable) -> None:
    first, (record,) = correct("first_token", "pretrained")
    test = load_dataset(DataConfig(name="synthetic"), Path()).split["test"]
    majority = test["label"].value_counts(normalize=True).max()
    low, high = record.metrics.test.interval
    assert low < majority < high
    assert abs(first.mean() - majority) <= 0.03


@pytest.mark.long
def test_the_last_block_beats_the_head_alone(correct: Callable) -> None:
    """Five seeds, and over the same messages."""
    block, block_records = correct("last_block", "pretrained", seeds=5)
    head, head_records = correct("head_only", "pretrained", seeds=5)
    assert _gain(block, head)[0] > 0
    by_seed = zip(block_records, head_records, strict=True)
    assert all(ours.metrics.test.accuracy > theirs.metrics.test.accuracy for ours, theirs in by_seed)


@pytest.mark.long
def test_pretrained_beats_random_each_at_its_own_rate(correct: Callable) -> None:
    """The rate that is best on the validation texts."""

    def best(weights: str) -> np.ndarray:
        tried = [correct("head_only", weights, optimizer__learning_rate=rate) for rate in RATES]
        return max(tried, key=lambda one: one[1][0].metrics.validation.accuracy)[0]

    assert np.mean(best("pretrained") - best("random")) >= 0.10
