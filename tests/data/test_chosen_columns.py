"""Columns that are asked for: text, label and pair of a data file, where they are not found or others are meant."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from harness.errors import UserError
from tests.data.test_data_files import load, rows_in
from tests.support.data_files import Form, rows_of, write


def test_class_title_and_description_without_a_header(tmp_path: Path, rows: list) -> None:
    path = tmp_path / "news.csv"
    with path.open("w", newline="") as file:
        lines = [(label[-1], f"title {number}", text) for number, (text, label) in enumerate(rows)]
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(lines)
    with pytest.raises(UserError) as refused:
        load(path)
    assert 'SET="data.header=false data.label_column=1 data.text_column=2,3"' in str(refused.value)
    dataset = load(path, header=False, label_column=1, text_column="2,3")
    assert rows_in(dataset)[5] == (f"title 5\n{rows[5][0]}", rows[5][1][-1])
    assert len(dataset.source.texts) == len(rows)


def test_a_missing_header_is_named_with_columns_that_can_be_used(tmp_path: Path, rows: list) -> None:
    """Tweets: polarity, number, date, a constant, user, text. The first line has the same value twice."""
    path = tmp_path / "tweets.csv"
    lines = [
        f"{label[-1]},{0 if number == 0 else number},Mon Apr 6,NO_QUERY,user{number % 30},{text}"
        for number, (text, label) in enumerate(rows)
    ]
    path.write_text("\n".join(lines))
    with pytest.raises(UserError) as refused:
        load(path)
    assert "its first line is data, not names ('1' ('0'), '2' ('0'), '3' ('Mon Apr 6')" in str(refused.value)
    assert 'SET="data.header=false data.label_column=1 data.text_column=6"' in str(refused.value)
    assert rows_in(load(path, header=False, label_column=1, text_column=6)) == [
        (text, label[-1]) for text, label in rows
    ]


def test_a_label_column_with_the_name_of_a_class_is_a_header(tmp_path: Path, rows: list) -> None:
    """Its line would else be a row of data."""
    path = write(
        tmp_path,
        [(text, {"kind0": "fine"}.get(label, "toxic")) for text, label in rows],
        Form(names=("comment", "toxic")),
    )
    with pytest.raises(UserError, match=r"its columns are 'comment' .*, 'toxic' "):
        load(path)
    assert len(load(path, label_column="toxic").source.texts) == len(rows)


@pytest.mark.parametrize(
    ("names", "options", "is_pair"),
    [
        (("premise", "hypothesis"), {}, True),
        (("premise", "hypothesis"), {"text_column": "premise,hypothesis"}, True),
        (("title", "body"), {"text_column": ["title", "body"]}, False),
        (("title", "body"), {"text_column": "title,body", "pair": True}, True),
        (("sentence1", "sentence2"), {"pair": False}, False),
    ],
    ids=str,
)
def test_two_texts_are_a_pair_or_joined(tmp_path: Path, names: tuple, options: dict, is_pair: bool) -> None:
    path = tmp_path / "two.jsonl"
    lines = [{names[0]: f"first {number}", names[1]: f"second {number}", "label": number % 2} for number in range(20)]
    path.write_text("\n".join(map(json.dumps, lines)))
    dataset = load(path, **options)
    texts = dataset.source.texts
    assert texts["text"][3] == "first 3\nsecond 3"
    assert ("second_at" in texts) == dataset.config.pair == is_pair
    if is_pair:
        assert [text[start:] for text, start in zip(texts["text"], texts["second_at"], strict=True)][3] == "second 3"


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"encoding": "utf-99"}, "no such text encoding"),
        ({"encoding": "utf-16"}, "not utf-16"),
        ({"text_column": "body"}, "no column 'body'"),
        ({"text_column": "label", "label_column": "label"}, "both the text and the label"),
        ({"pair": True}, "a pair has two texts"),
        ({"split": "official"}, "no split of its own"),
    ],
    ids=str,
)
def test_options_that_do_not_fit_the_file(tmp_path: Path, rows: list, options: dict, part: str) -> None:
    with pytest.raises(UserError, match=part):
        load(write(tmp_path, rows_of(np.random.default_rng(0), 20, ascii_only=True), Form()), **options)
