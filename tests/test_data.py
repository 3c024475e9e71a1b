"""Texts from their source to batches: the textbook's split, files of one's own, and the one global order."""

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

from harness import UserError
from harness.config import DataConfig
from harness.data.batches import (
    batches_by_length,
    batches_in_order,
    encode_split,
    gather_rows,
    global_batches,
    micro_batches,
)
from harness.data.dataset import Dataset, load_dataset
from harness.data.sources import load_file
from harness.data.splits import cut, near_duplicate_key
from harness.data.tokenizer import END_OF_TEXT, load_tokenizer
from harness.declare import Input

few = settings(max_examples=60, deadline=None, derandomize=True)


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
    source = load_file(str(write_rows(tmp_path, suffix, ROWS, prefix, newline)), "text", "label")
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
    assert load_file(str(path), "text", "label").texts["text"].tolist() == texts


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
    texts = load_file(str(tmp_path / name), "body", "kind").texts
    assert texts.to_dict("list") == {"label": ["x", "y"], "text": ["hello", "there"]}


def test_numbers_as_labels_are_classes(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x", "label": 0}\n{"text": "y", "label": 1}\n')
    assert load_file(str(tmp_path / "a.jsonl"), "text", "label").classes == ["0", "1"]


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


# Rows of token ids


def encode(texts: list[str], rule: Input, context: int) -> dict:
    part = pd.DataFrame({"label": ["a", "b"] * len(texts), "text": [text for text in texts for _ in "ab"]})
    part.index = range(100, 100 + len(part))
    tokenizer = load_tokenizer("mini", Path(), None)
    return encode_split({"train": part, "test": part[::-1]}, tokenizer, ["a", "b"], rule, context)


@given(st.lists(st.text("abc de.!\n", min_size=1, max_size=40), min_size=1, max_size=5), st.integers(1, 12))
@few
@pytest.mark.parametrize("pad_to", [None, "longest", 7])
def test_rows_hold_the_texts_own_tokens(pad_to: int | str | None, texts: list[str], context: int) -> None:
    tokenizer = load_tokenizer("mini", Path(), None)
    pad_to = min(pad_to, context) if isinstance(pad_to, int) else pad_to
    examples = encode(texts, Input(pad_to), context)["train"]
    ids = [tokenizer.encode_ordinary(text) for text in texts for _ in "ab"]
    limit = {None: context, "longest": min(context, max(map(len, ids)))}.get(pad_to, pad_to)
    assert examples.real_lengths.tolist() == [min(len(row), limit) for row in ids]
    assert examples.cut_texts == sum(len(row) > limit for row in ids)
    for number, row in enumerate(ids):
        held = examples.token_ids[examples.offsets[number] : examples.offsets[number + 1]].tolist()
        padding = [tokenizer.encode_single_token(END_OF_TEXT)] * (limit - len(row)) if pad_to else []
        assert held == row[:limit] + padding
    assert examples.labels.tolist() == [0, 1] * len(texts)
    assert examples.index.tolist() == list(range(100, 100 + 2 * len(texts)))


def test_the_end_of_text_mark_in_a_text_is_plain_text() -> None:
    examples = encode([f"no {END_OF_TEXT} here"], Input(), 256)["train"]
    assert examples.pad_token not in examples.token_ids


# The one global order

counts, sizes = st.integers(1, 200), st.integers(1, 40)


@given(counts, sizes, st.integers(0, 9), st.integers(0, 9), st.booleans())
@few
def test_an_epoch_is_a_permutation_that_seed_and_epoch_decide(
    count: int, batch_size: int, seed: int, epoch: int, drop_last: bool
) -> None:
    batches = global_batches(count, batch_size, seed, epoch, drop_last)
    again = global_batches(count, batch_size, seed, epoch, drop_last)
    assert [batch.tolist() for batch in batches] == [batch.tolist() for batch in again]
    numbers = [number for batch in batches for number in batch]
    kept = count // batch_size * batch_size if drop_last else count
    assert len(numbers) == len(set(numbers)) == kept
    assert set(numbers) <= set(range(count))
    assert all(len(batch) == batch_size for batch in batches[: None if drop_last else -1])
    whole = np.concatenate(global_batches(count, 1, seed, epoch, False))
    assert numbers == whole[:kept].tolist(), "the size of a batch cuts the order, it does not change it"


@given(st.integers(20, 200), st.integers(0, 9), st.integers(0, 9))
@few
def test_another_seed_or_epoch_is_another_order(count: int, seed: int, epoch: int) -> None:
    orders = {(s, e): global_batches(count, count, s, e, False)[0].tolist() for s in (seed, 77) for e in (epoch, 78)}
    assert len({tuple(order) for order in orders.values()}) == 4


@given(st.integers(1, 64), st.integers(1, 12), st.integers(1, 70))
@few
def test_micro_batches_count_each_example_once(size: int, world_size: int, micro_batch_size: int) -> None:
    batch = np.random.default_rng(size).permutation(1000)[:size]
    ranks = [micro_batches(batch, micro_batch_size, rank, world_size) for rank in range(world_size)]
    counted = [number for parts in ranks for part, counts in parts if counts for number in part]
    assert sorted(counted) == sorted(batch)
    assert len({len(parts) for parts in ranks}) == 1, "as many exchanges of gradients on every rank"
    assert all(0 < len(part) <= micro_batch_size for parts in ranks for part, _ in parts)
    shares = [sum(len(part) for part, counts in parts if counts) for parts in ranks]
    assert max(shares) - min(shares) <= 1


@given(st.lists(st.integers(1, 256), min_size=1, max_size=80), st.integers(1, 2000))
@few
def test_batches_by_length_hold_each_row_once(lengths: list[int], tokens: int) -> None:
    lengths = np.array(lengths)
    batches = batches_by_length(lengths, tokens)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * lengths[batch].max() <= tokens for batch in batches)
    assert np.concatenate([lengths[batch] for batch in batches]).tolist() == sorted(lengths)


@given(counts, sizes)
@few
def test_batches_in_order(count: int, batch_size: int) -> None:
    batches = batches_in_order(count, batch_size)
    assert np.concatenate(batches).tolist() == list(range(count))
    assert {len(batch) for batch in batches[:-1]} <= {batch_size}
    assert 0 < len(batches[-1]) <= batch_size


@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=9), min_size=1, max_size=20), st.data())
@few
def test_gathered_rows_are_the_rows(rows: list[list[int]], data: st.DataObject) -> None:
    flat, lengths = np.concatenate(rows), np.array([len(row) for row in rows])
    starts = np.cumsum(lengths) - lengths
    chosen = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1)))
    gathered = gather_rows(flat, starts[chosen], lengths[chosen])
    assert gathered.tolist() == [value for number in chosen for value in rows[number]]
