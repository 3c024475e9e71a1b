"""Texts from their source to a split: the textbook's, and files of one's own."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.config.schema import DataConfig
from harness.data.dataset import Dataset, load_dataset
from harness.data.reading.own_data import load_own_data
from harness.data.sources import load_source
from harness.data.splits import cut, near_duplicate_key
from harness.errors import UserError

few = settings(max_examples=60)


@pytest.fixture
def sms_spam(assets: Path, tmp_path: Path) -> Callable[..., Dataset]:
    return lambda **options: load_dataset(DataConfig(name="sms_spam", **options), tmp_path)


# The SMS Spam Collection


def textbook_split(path: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The code of the chapter as it is printed there."""
    df = pd.read_csv(path, sep="\t", header=None, names=["Label", "Text"])
    num_spam = df[df["Label"] == "spam"].shape[0]
    ham_subset = df[df["Label"] == "ham"].sample(num_spam, random_state=123)
    balanced_df = pd.concat([ham_subset, df[df["Label"] == "spam"]])
    balanced_df = balanced_df.sample(frac=1, random_state=123).reset_index(drop=True)
    balanced_df = balanced_df.sample(frac=1, random_state=123).reset_index(drop=True)
    train_end = int(len(balanced_df) * 0.7)
    validation_end = train_end + int(len(balanced_df) * 0.1)
    return balanced_df[:train_end], balanced_df[train_end:validation_end], balanced_df[validation_end:]


def test_the_source_is_read_as_the_textbook_reads_it(sms_spam: Callable[..., Dataset]) -> None:
    texts = sms_spam().source.texts
    assert len(texts) == 5572
    assert texts["label"].value_counts().to_dict() == {"ham": 4825, "spam": 747}


def test_the_split_is_the_textbooks(sms_spam: Callable[..., Dataset], assets: Path) -> None:
    dataset = sms_spam()
    parts = list(dataset.split.values())
    assert list(dataset.split) == ["train", "validation", "test"]
    assert [len(part) for part in parts] == [1045, 149, 300]
    for ours, theirs in zip(parts, textbook_split(assets / "sms_spam" / "SMSSpamCollection"), strict=True):
        assert ours["text"].tolist() == theirs["Text"].tolist()
        assert ours["label"].tolist() == theirs["Label"].tolist()
        pd.testing.assert_frame_equal(ours, dataset.source.texts.loc[ours.index])  # the index is the source's row


def test_what_the_split_leaks_is_told(sms_spam: Callable[..., Dataset]) -> None:
    dataset = sms_spam()
    assert sum(dataset.test_seen) == 36
    assert dataset.test_near_train == 54
    train = set(dataset.split["train"]["text"])
    assert dataset.test_seen == [text in train for text in dataset.split["test"]["text"]]


def test_the_whole_collection_without_balancing(sms_spam: Callable[..., Dataset]) -> None:
    split = sms_spam(balance=False).split
    assert [len(part) for part in split.values()] == [3900, 557, 1115]
    assert sorted(index for part in split.values() for index in part.index) == list(range(5572))


@pytest.mark.parametrize("balance", [True, False])
def test_a_grouped_split_keeps_near_duplicates_together(sms_spam: Callable[..., Dataset], balance: bool) -> None:
    dataset, random = sms_spam(split="grouped", balance=balance), sms_spam(balance=balance)
    keys = [set(part["text"].map(near_duplicate_key)) for part in dataset.split.values()]
    assert not keys[0] & keys[1]
    assert not (keys[0] | keys[1]) & keys[2]
    assert dataset.test_near_train == sum(dataset.test_seen) == 0
    for grouped_part, random_part in zip(dataset.split.values(), random.split.values(), strict=True):
        assert abs(len(grouped_part) - len(random_part)) <= 0.02 * len(random.source.texts)
    rows = [sorted(i for part in d.split.values() for i in part.index) for d in (dataset, random)]
    assert rows[0] == rows[1], "the same texts, cut elsewhere"


def test_another_split_seed_gives_another_split_of_as_many(sms_spam: Callable[..., Dataset]) -> None:
    first, second = sms_spam(), sms_spam(split_seed=124)
    assert set(first.split["test"].index) != set(second.split["test"].index)
    assert [len(part) for part in first.split.values()] == [len(part) for part in second.split.values()]


# Cutting


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Call 0800-123 NOW!", "call 0906 456 now", True),
        ("FREE  entry", "free\nentry.", True),
        ("Straße", "STRASSE", True),
        ("see you", "see me", False),
        ("123", "456", False),
        (":-)", ":-(", False),
    ],
)
def test_what_counts_as_a_near_duplicate(one: str, other: str, same: bool) -> None:
    assert (near_duplicate_key(one) == near_duplicate_key(other)) == same


@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 99)), min_size=60, max_size=120),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
@few
def test_a_grouped_split_of_anything_is_a_partition(words: list[tuple[str, int]], seed: int, balanced: bool) -> None:
    labels = [("no", "yes")[number % 2] for number in range(len(words))]
    texts = pd.DataFrame({"label": labels, "text": [f"{letter} {number}" for letter, number in words]})
    try:
        split = cut(texts, "grouped", balanced, seed)
    except UserError as error:
        told = str(error)
    else:
        told = None
    if told:  # one group may be larger than a part
        assert "part of 70/10/20 is empty" in told
        return
    keys = [set(part["text"].map(near_duplicate_key)) for part in split.values()]
    assert sum(map(len, keys)) == len(set.union(*keys))
    rows = [index for part in split.values() for index in part.index]
    assert len(rows) == len(set(rows)) == (2 * min(Counter(labels).values()) if balanced else len(texts))


def test_balancing_takes_as_many_of_each_class() -> None:
    texts = pd.DataFrame({"label": ["a"] * 50 + ["b"] * 20 + ["c"] * 31, "text": [str(i) for i in range(101)]})
    split = cut(texts, "random", True, 0)
    assert Counter(label for part in split.values() for label in part["label"]) == {"a": 20, "b": 20, "c": 20}


# Files of one's own

ROWS = [
    ("Two\nlines, and a comma", "a"),
    ('She said "no"', "b"),
    ("tab\there", "c"),
    ("line\u2028separator, \x85 and \x0c", "a"),
    ("Grüße 👋", "b"),
    (" spaces stay ", "c"),
    ("'single", "a"),
    ("NaN", "b"),
    ("null", "c"),
    ("1e5", "1"),
]


def write_rows(
    folder: Path,
    suffix: str,
    rows: list[tuple[str, str]],
    prefix: str = "",
    newline: str = "\n",
    quoting: int = csv.QUOTE_MINIMAL,
) -> Path:
    if suffix == ".jsonl":
        objects = [json.dumps({"text": text, "label": label}, ensure_ascii=False) for text, label in rows]
        content = "".join(line + newline for line in objects)
    else:
        buffer = io.StringIO(newline="")
        writer = csv.writer(
            buffer, delimiter="," if suffix == ".csv" else "\t", lineterminator=newline, quoting=quoting
        )
        writer.writerows([("text", "label"), *rows])
        content = buffer.getvalue()
    path = folder / f"own{suffix}"
    path.write_bytes((prefix + content).encode())
    return path


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("prefix", ["", "\ufeff"], ids=["plain", "bom"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_a_file_gives_back_what_was_written(tmp_path: Path, suffix: str, prefix: str, newline: str) -> None:
    source = load_source(DataConfig(name=str(write_rows(tmp_path, suffix, ROWS, prefix, newline))), tmp_path)
    assert list(zip(source.texts["text"], source.texts["label"], strict=True)) == ROWS
    assert source.texts.index.tolist() == list(range(len(ROWS)))
    assert source.classes == ["1", "a", "b", "c"]


printable = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(str.strip)


@given(st.lists(printable, min_size=2, max_size=6), st.sampled_from([".csv", ".tsv", ".jsonl"]))
@few
def test_any_text_survives_its_file(tmp_path_factory: pytest.TempPathFactory, texts: list[str], suffix: str) -> None:
    rows = [(text, "ab"[number % 2]) for number, text in enumerate(texts)]
    # Python's writer leaves a lone carriage return without quotes where it need not, so all are quoted.
    path = write_rows(tmp_path_factory.mktemp("any"), suffix, rows, quoting=csv.QUOTE_ALL)
    assert load_own_data(DataConfig(name=str(path))).texts["text"].tolist() == texts


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "id,kind,body\n\n1,x,hello\n2, y ,there\n\n"),
        ("a.tsv", "body\tkind\nhello\tx\nthere\ty\n"),
        ("a.jsonl", '{"kind": "x", "body": "hello"}\n\n{"body": "there", "kind": "y", "id": 5}'),
    ],
)
def test_named_columns_blank_lines_and_spaces_around_labels(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    texts = load_own_data(DataConfig(name=str(tmp_path / name), text_column="body", label_column="kind")).texts
    assert texts.to_dict("list") == {"label": ["x", "y"], "text": ["hello", "there"]}


def test_numbers_as_labels_are_classes(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x", "label": 0}\n{"text": "y", "label": 1}\n')
    assert load_source(DataConfig(name=str(tmp_path / "a.jsonl")), tmp_path).classes == ["0", "1"]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_predictions_name_the_row_in_the_source_file(run_here: Callable, tmp_path: Path, suffix: str) -> None:
    generator = np.random.default_rng(0)
    labels = generator.choice(["down", "left", "up"], 60).tolist()
    rows = [(f"text {number},\nwith two lines", label) for number, label in enumerate(labels)]
    path = write_rows(tmp_path, suffix, rows, prefix="\ufeff")
    (record,) = run_here(data__name=str(path), strategy=["head_only"], training__epochs=0)
    assert record.data.classes == ["down", "left", "up"]
    assert record.data.sizes == {"train": 42, "validation": 6, "test": 12}
    frame = pd.read_csv(tmp_path / "results" / "runs" / record.run_id / "predictions.csv")
    assert frame["label"].tolist() == [labels[index] for index in frame["index"]]
    expected = load_dataset(DataConfig(name=str(path)), tmp_path).split["test"].index
    assert frame["index"].tolist() == expected.tolist()
    shares = frame[["probability_down", "probability_left", "probability_up"]]
    assert shares.sum(axis=1).to_numpy() == pytest.approx(1)
    assert frame["predicted"].tolist() == [name.removeprefix("probability_") for name in shares.idxmax(axis=1)]
