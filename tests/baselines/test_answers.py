"""What baselines answer: as their definitions say, and zero-shot as `transformers` does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from scipy.special import softmax
from transformers import GPT2Config, GPT2LMHeadModel

from harness import baselines
from harness.baselines import Part, Task
from harness.config.schema import DataConfig, RunConfig
from harness.data.dataset import load_dataset
from harness.data.encoding import Examples
from harness.data.tokenizer import load_tokenizer
from harness.model.named.models import GPT2Model
from harness.model.named.shapes import SHAPES
from tests.support.runs import predicted_by

ALL = list(baselines.NAMES)
_TOKENIZER = load_tokenizer("mini", Path(), None)


def test_the_known_figures_of_the_textbooks_split(assets: Path, run_here: Callable, tmp_path: Path) -> None:
    """Published for this split. Its classes are level in training, and the smaller there is the larger in test."""
    data = {"data__name": "sms_spam", "model__name": "gpt2", "model__weights": "random"}
    records = {record.strategy: record for record in run_here(strategy=ALL[:-1], **data)}
    percent = {name: round(100 * record.metrics.test.accuracy, 2) for name, record in records.items()}
    assert percent == {"majority": 47.00, "length_rule": 81.67, "first_token_lookup": 80.33, "tfidf": 96.33}
    texts = load_dataset(DataConfig(name="sms_spam"), tmp_path / "cache").split["test"]["text"]
    tokenizer = load_tokenizer("gpt2", tmp_path / "cache", assets)
    longer = [len(ids) > 30 for ids in tokenizer.encode_ordinary_batch(texts.tolist())]
    predicted = predicted_by(tmp_path / "results", records["length_rule"])
    assert [label == "spam" for label in predicted] == longer


def _task(token_rows: list[list[int]], labels: list[int], classes: int) -> Task:
    examples = Examples(
        token_ids=np.concatenate([np.array(row, dtype=np.int32) for row in token_rows]),
        offsets=np.cumsum([0, *map(len, token_rows)]),
        real_lengths=np.array([len(row) for row in token_rows]),
        labels=np.array(labels),
        index=np.arange(len(labels)),
        is_cut=np.zeros(len(labels), dtype=bool),
        pad_token=0,
    )
    part = Part([" ".join(f"word{token}" for token in row) for row in token_rows], examples)
    names = [f"class {number}" for number in range(classes)]
    return Task(part, names, RunConfig(), None, GPT2Model("mini"), _TOKENIZER, torch.device("cpu"))


_texts = st.lists(st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=5), st.integers(0, 2)), min_size=1)


@settings(max_examples=50)
@given(texts=_texts)
def test_rules_answer_as_their_definitions_do(texts: list[tuple[list[int], int]]) -> None:
    token_rows, labels = [list(part) for part in zip(*texts, strict=True)]
    task = _task(token_rows, labels, classes=3)
    answers = {name: baselines.load(name).fit(task).probabilities(task.train) for name in ALL[:3]}
    for shares in answers.values():
        assert shares.sum(axis=1) == pytest.approx(1)
    lengths, truth = np.array([len(row) for row in token_rows]), np.array(labels)
    best = max(
        (np.where(lengths > threshold, above, below) == truth).sum()
        for threshold in range(6)
        for above in range(3)
        for below in range(3)
    )
    assert (answers["length_rule"].argmax(axis=1) == truth).sum() == best
    assert set(answers["majority"].argmax(axis=1)) == {np.bincount(labels).argmax()}
    for row, answer in zip(token_rows, answers["first_token_lookup"].argmax(axis=1), strict=True):
        same = [label for other, label in zip(token_rows, labels, strict=True) if other[0] == row[0]]
        level = [label for label, count in Counter(same).items() if count == max(Counter(same).values())]
        assert answer == (same[0] if same[0] in level else max(sorted(level), key=labels.count))


def test_a_first_token_that_is_not_known_is_the_majoritys() -> None:
    fitted = baselines.load("first_token_lookup").fit(_task([[1], [2], [2]], [0, 1, 1], classes=2))
    assert fitted.probabilities(_task([[9]], [0], classes=2).train).tolist() == [[1 / 3, 2 / 3]]


def test_tfidf_holds_a_class_that_no_training_text_has_to_be_impossible() -> None:
    task = _task([[1, 1], [2, 2], [1, 2, 2]], [0, 2, 2], classes=3)
    fitted = baselines.load("tfidf").fit(task)
    shares = fitted.probabilities(task.train)
    assert (shares[:, 1] == 0).all()
    assert shares.sum(axis=1) == pytest.approx(1)
    assert fitted.trained == 5 + 1, "five words and pairs, and the intercept"


@pytest.fixture
def saved(tmp_path: Path) -> GPT2LMHeadModel:
    """A mini model of `transformers`, saved as `tmp_path / "model.safetensors"`, with opinions of its own."""
    torch.manual_seed(0)
    shape = SHAPES["mini"]
    sizes = {"n_positions": shape.context, "n_embd": shape.hidden, "n_layer": shape.blocks, "n_head": shape.heads}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=shape.vocabulary, bos_token_id=0, eos_token_id=0, **sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path)
    return model


def test_zero_shot_compares_the_likelihoods_of_the_names(
    saved: GPT2LMHeadModel, run_here: Callable, tmp_path: Path
) -> None:
    """Against the logits of `transformers`, for names of one token and of several, one of them the other's beginning;
    the last text is longer than the context, and gives way to the question and the longest answer."""
    names = ["a", "spam", "spams"]
    texts = [f"call {word} now" for word in ("me", "mum", "bob", "us", "her", "the bank", "him", "them", "you")]
    frame = pd.DataFrame({"text": [*texts, "win " * 300], "label": (names * 4)[:10]})
    frame.to_csv(tmp_path / "texts.csv", index=False)
    path = str(tmp_path / "texts.csv")
    options = {"data__split_seed": 2, "training__epochs": 0}
    (record,) = run_here(
        strategy=["zero_shot"], data__name=path, model__weights=str(tmp_path), precision="fp64", **options
    )
    predictions = pd.read_csv(tmp_path / "results" / "runs" / record.run_id / "predictions.csv")
    assert 9 in set(predictions["index"]), "the long text is one of the test texts"

    encode = _TOKENIZER.encode_ordinary
    answers = [encode(f" {name}") for name in names]
    assert len(set(map(len, answers))) > 1
    before, after = encode("Text:\n"), encode("\nIs this text a or spam or spams? It is")
    room = 256 - len(before) - len(after) - max(map(len, answers))
    for _, row in predictions.iterrows():
        prompt = [*before, *encode(frame["text"][row["index"]])[:room], *after]
        with torch.no_grad():
            scores = [_likelihood(saved.double(), prompt, answer) for answer in answers]
        assert row[[f"probability_{name}" for name in names]].tolist() == pytest.approx(softmax(scores), abs=1e-9)


def _likelihood(model: GPT2LMHeadModel, prompt: list[int], answer: list[int]) -> float:
    logits = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    return sum(logits[len(prompt) - 1 + step, token].item() for step, token in enumerate(answer))
