"""Baselines: what they answer, and that they run, are recorded and shown as strategies are."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import hypothesis.strategies as st
import jsonschema
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from scipy.special import softmax
from transformers import GPT2Config, GPT2LMHeadModel

import strategies
from harness import baselines
from harness.baselines import Part, Task
from harness.config.schema import DataConfig, RunConfig
from harness.data.dataset import load_dataset
from harness.data.encoding import Examples
from harness.data.tokenizer import load_tokenizer
from harness.model.gpt2 import SHAPES
from harness.model.models import GPT2Model
from harness.report.analysis.comparison import compare
from harness.report.analysis.grouping import Group, groups
from harness.report.files import comparison
from harness.report.table.comparison_table import comparison_tables
from harness.report.table.formats import markdown
from harness.report.table.rows import table_rows
from harness.results.record import SCHEMA_FILE, Record
from harness.results.store import Store
from tests.support.runs import predicted_by

ALL = list(baselines.NAMES)
_SMALL = {"data__size": 60, "training__epochs": 0}
_TOKENIZER = load_tokenizer("mini", Path(), None)
_DIFFERS = {"run_id", "finished_at", "seconds", "memory", "environment"}


def _by_name(records: list[Record]) -> dict[str, Record]:
    return {record.strategy: record for record in records}


# What they answer


def test_the_known_figures_of_the_textbooks_split(assets: Path, run_here: Callable, tmp_path: Path) -> None:
    """Published for this split. Its classes are level in training, and the smaller there is the larger in test."""
    data = {"data__name": "sms_spam", "model__name": "gpt2", "model__weights": "random"}
    records = _by_name(run_here(strategy=ALL[:-1], **data))
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
        cut_texts=0,
        pad_token=0,
    )
    part = Part([" ".join(f"word{token}" for token in row) for row in token_rows], examples)
    names = [f"class {number}" for number in range(classes)]
    return Task(part, names, RunConfig(), None, GPT2Model("mini"), _TOKENIZER, torch.device("cpu"))


_texts = st.lists(st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=5), st.integers(0, 2)), min_size=1)


@settings(max_examples=50, deadline=None)
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


# How they run


def test_a_baseline_leaves_a_record_of_what_it_depends_on(run_here: Callable, tmp_path: Path) -> None:
    records = _by_name(run_here(strategy=["head_only", *ALL], seed=[3, 4], **_SMALL))
    assert list(records) == ["head_only", *ALL]
    for name in ALL:
        record = records[name]
        folder = tmp_path / "results" / "runs" / record.run_id
        stored = json.loads((folder / "record.json").read_text())
        jsonschema.validate(stored, json.loads(SCHEMA_FILE.read_text()))
        assert (record.status, record.seed, record.engine.world_size) == ("ok", 0, 1)
        assert set(record.config) == {"strategy", *(key.split(".")[0] for key in baselines.load(name).uses)}
        assert set(record.seconds.model_dump(exclude_none=True)) == {"prepare", "train", "evaluate", "total"}
        frame = pd.read_csv(folder / "predictions.csv")
        assert (frame["label"] == frame["predicted"]).sum() == record.metrics.test.correct
        assert frame["probability_spam"].between(0, 1).all()
    depends = {name: (records[name].model.name, records[name].precision) for name in ALL}
    assert depends["tfidf"] == depends["majority"] == (None, None)
    assert depends["length_rule"] == ("mini", None)
    assert depends["zero_shot"] == ("mini", "fp32")
    trained = {name: records[name].model.trainable_parameters for name in ALL}
    assert (trained["majority"], trained["zero_shot"]) == (None, 0)
    assert trained["tfidf"] > 100


@pytest.mark.long
def test_a_baseline_runs_again_only_where_what_it_depends_on_changes(run_here: Callable, store: Store) -> None:
    first = run_here(strategy=["head_only", *ALL], seed=[0, 1], **_SMALL)
    assert len(first) == 2 + len(ALL), "once, not once a seed"
    assert run_here(strategy=["head_only", *ALL], seed=[0, 1], **_SMALL) == []
    other_rate = run_here(strategy=["head_only", *ALL], optimizer__learning_rate=1e-2, **_SMALL)
    assert [record.strategy for record in other_rate] == ["head_only"]
    other_precision = run_here(strategy=ALL, precision="fp64", **_SMALL)
    assert [record.strategy for record in other_precision] == ["zero_shot"]
    other_data = run_here(strategy=ALL, **{**_SMALL, "data__size": 50})
    assert [record.strategy for record in other_data] == ALL

    tables = comparison(comparison_tables(groups(store.all()), store))
    seen = [[row["name"] for row in table["rows"]] for table in tables]
    assert seen[:2] == [["head_only", *ALL]] * 2, "at the end of each table they belong to"
    assert sorted(seen[2:]) == [ALL, ALL], "of the other precision and the other data"


@pytest.mark.long
def test_two_ranks_leave_the_same_records(run_here: Callable, ftbench: Callable, tmp_path: Path) -> None:
    alone = _by_name(run_here(strategy=ALL, results="alone", **_SMALL))
    options = ["--model", "mini", "--data", "synthetic", "--set", "data.size=60", "--epochs", "0", "--nproc", "2"]
    done = ftbench("run", "--strategy", ",".join([*ALL, "head_only"]), *options)
    assert done.returncode == 0, done.stderr
    together = _by_name(Store(tmp_path / "results").all())
    assert together.pop("head_only").engine.world_size == 2
    for name, record in alone.items():
        assert together[name].model_dump(exclude=_DIFFERS) == record.model_dump(exclude=_DIFFERS)


def test_a_baseline_that_fails_is_a_record_and_the_suite_goes_on(
    run_here: Callable, store: Store, tmp_path: Path
) -> None:
    """More classes than a question in mini's context can name."""
    labels = [f"a class with the number {number}" for number in range(40)]
    pd.DataFrame({"text": [f"text {n}" for n in range(80)], "label": labels * 2}).to_csv(tmp_path / "many.csv")
    failed, finished = run_here(strategy=["zero_shot", "majority"], data__name=str(tmp_path / "many.csv"))
    assert (failed.status, finished.status) == ("failed", "ok")
    assert "40 classes leaves no room" in failed.error
    (table,) = comparison(comparison_tables(groups([failed, finished]), store))
    failures = {row["name"]: list(row["failed_seeds"].values()) for row in table["rows"]}
    assert failures == {"majority": [], "zero_shot": ["failed"]}


def test_all_means_the_strategies_and_the_baselines(run_cli: Callable, tmp_path: Path) -> None:
    options = [
        "--model",
        "mini",
        "--weights",
        "random",
        "--data",
        "synthetic",
        "--set",
        "data.size=20",
        "--epochs",
        "0",
    ]
    code, out, told = run_cli("run", "--strategy", "all", *options, "--cache", str(tmp_path / "cache"))
    assert (code, told) == (0, "")
    lines = (tmp_path / "results" / "table.md").read_text().splitlines()
    shown = [line.split()[1] for line in lines if line.startswith("| ")]
    assert shown == ["strategy", "---", *strategies.built_in_names(), *ALL]
    assert "With random weights zero_shot knows no language" in out


def test_names(refused: Callable, run_cli: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not set(ALL) & set(strategies.built_in_names())
    assert "did you mean 'tfidf'?" in refused("--strategy", "tf_idf")
    assert "'tfidf' is given twice" in refused("--strategy", "tfidf,tfidf")
    monkeypatch.setattr(strategies, "names", lambda: ["tfidf"])
    assert "plug-in has the name of the baseline 'tfidf'" in refused("--strategy", "tfidf")


# How they are shown


@pytest.fixture
def told_by_length(run_here: Callable, tmp_path: Path) -> list[Record]:
    """A strategy that learnt nothing beside a length rule that is always right."""
    texts = ["word " * (2 if number % 2 else 9) + str(number) for number in range(100)]
    frame = pd.DataFrame({"text": texts, "label": ["short" if number % 2 else "long" for number in range(100)]})
    frame.to_csv(tmp_path / "lengths.csv", index=False)
    data = str(tmp_path / "lengths.csv")
    return run_here(strategy=["length_rule", "head_only", "tfidf"], data__name=data, training__epochs=0)


def test_a_strategy_that_does_not_beat_the_length_rule_is_marked(told_by_length: list[Record], store: Store) -> None:
    rule, strategy, _ = told_by_length
    assert rule.metrics.test.accuracy == 1 > strategy.metrics.test.accuracy
    assert [row.name for row in table_rows(compare(Group(told_by_length), store))] == [
        "length_rule",
        "head_only †",
        "tfidf",
    ]
    assert "†: no better on test than length_rule" in markdown(comparison_tables(groups(told_by_length), store))
    level = strategy.model_copy(update={"metrics": rule.metrics})
    assert "†" in markdown(comparison_tables(groups([level, rule]), store)), "no better, where both are right always"
    worse = rule.model_copy(update={"metrics": strategy.metrics})
    assert "†" not in markdown(comparison_tables(groups([level, worse]), store))
    assert "†" not in markdown(comparison_tables(groups([strategy]), store)), "nothing to compare with"


def test_baselines_stand_last_and_win_nothing(told_by_length: list[Record], store: Store) -> None:
    text = markdown(comparison_tables(groups(told_by_length), store))
    places = [text.index(f"\n| {name} ") for name in ("head_only", "length_rule", "tfidf")]
    assert places == sorted(places)
    assert "Baselines: length_rule, tfidf." in text
    assert [any(row.best) for row in table_rows(compare(Group(told_by_length), store))] == [False, True, False]


def test_a_baseline_stands_beside_every_seed(run_here: Callable, store: Store) -> None:
    run_here(strategy=["head_only", "tfidf"], seed=[0, 1, 2], **_SMALL)
    head_only, tfidf = compare(Group(store.all()), store)
    assert tfidf.evidence.seeds == [0, 1, 2]
    assert tfidf.evidence.difference == pytest.approx(tfidf.accuracy - head_only.accuracy)
    assert tfidf.interval == tfidf.records[0].metrics.test.interval
    assert compare(Group(store.all()), store, "tfidf")[0].evidence.difference == pytest.approx(
        -tfidf.evidence.difference
    )
    assert "| tfidf | - |" in markdown(comparison_tables(groups(store.all()), store))


def test_baselines_are_listed(
    run_cli: Callable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from harness import cli

    monkeypatch.setattr("sys.argv", ["ftbench", "list", "--model", "mini"])
    with pytest.raises(SystemExit):
        cli.main()
    _, section = capsys.readouterr().out.split("Baselines")
    for name in ALL:
        assert name in section
