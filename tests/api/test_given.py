"""Texts that a person has in memory: read back as they were, or refused with the rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.api.given import GivenTexts, from_frame
from harness.config.schema import DataConfig
from harness.data.reading.own_data import load_own_data
from harness.errors import UserError

TEXTS = ["good", "bad", "so so"]
# Anything but lone surrogates, which have no UTF-8, and blank texts.
any_text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


def _read(path: Path) -> pd.DataFrame:
    config = DataConfig(name=str(path), text_column="text", label_column="label")
    return load_own_data(config).texts


@settings(max_examples=60)
@given(texts=st.lists(any_text, min_size=2, max_size=8))
def test_every_text_is_read_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    labels = [number % 2 for number in range(len(texts))]
    read = _read(GivenTexts.of(texts, labels).write(tmp_path_factory.mktemp("given")))
    assert read["text"].tolist() == texts
    assert read["label"].tolist() == list(map(str, labels))


@pytest.mark.parametrize(
    "text", ['"quoted", with a comma', "two\nlines\r\nand\ra return", "a\0b", "a\u2028b\x85c", " blanks ", "{}", "NA"]
)
def test_texts_that_files_often_spoil_are_kept(tmp_path: Path, text: str) -> None:
    assert _read(GivenTexts.of([text, "other"], ["a", "b"]).write(tmp_path))["text"].tolist() == [text, "other"]


def test_the_same_texts_are_the_same_file_and_others_another(tmp_path: Path) -> None:
    lists = GivenTexts.of(TEXTS, [0, 1, 1]).write(tmp_path)
    frame = pd.DataFrame({"when": [1, 2, 3], "text": TEXTS, "label": np.array([0, 1, 1])}, index=[7, 8, 9])
    assert from_frame(frame, "text", "label").write(tmp_path) == lists
    assert GivenTexts.of(np.array(TEXTS), pd.Series([0, 1, 1])).write(tmp_path) == lists
    assert GivenTexts.of(TEXTS, [0, 1, 0]).write(tmp_path) != lists


def test_a_split_column_is_the_official_split(tmp_path: Path) -> None:
    parts = ["train", "train", "test"]
    frame = pd.DataFrame({"review": TEXTS, "stars": [1, 2, 1], "split": parts})
    own = load_own_data(DataConfig(name=str(from_frame(frame, "review", "stars").write(tmp_path))))
    assert own.part is not None
    assert own.part.tolist() == parts


@pytest.mark.parametrize("labels", [["a", "b", "b"], [0, 1, 0], [True, False, True], [0.0, 1.0, 1.0]])
def test_labels_keep_their_type(labels: list[Any]) -> None:
    for form in (labels, np.array(labels), pd.Series(labels), pd.Series(labels, dtype="category")):
        found = GivenTexts.of(TEXTS, form).label_of
        assert {name: type(label) for name, label in found.items()} == {str(one): type(one) for one in labels}


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        (TEXTS, ["a", "b"], "3 texts and 2 labels: give one label for each text."),
        ([], [], "no text is given"),
        ("good", ["a"], "expected a list of texts, not str ('good')"),
        (7, ["a"], "expected a list of texts, not int ('7')"),
        (np.array([TEXTS]), ["a"], "texts have 2 dimensions"),
        (["x", None, np.nan], ["a", "b", "a"], "2 of 3 texts are missing (None, NaN), counted from 0 in row(s) 1, 2"),
        (["x", pd.NA, "y"], ["a", "b", "a"], "1 of 3 texts are missing"),
        (["x", 5, "y"], ["a", "b", "a"], "texts are no strings, counted from 0 in row(s) 1; the first is int ('5')"),
        (["x", b"y", "z"], ["a", "b", "a"], "1 of 3 texts are no strings"),
        (["x", " \n", ""], ["a", "b", "a"], "2 of 3 texts are empty, counted from 0 in row(s) 1, 2"),
        (["x", "\ud83d", "z"], ["a", "b", "a"], "1 of 3 texts hold half of a character (a lone surrogate)"),
        (TEXTS, ["a", None, "b"], "1 of 3 labels are missing (None, NaN), counted from 0 in row(s) 1"),
        (TEXTS, [0.0, np.nan, 1.0], "1 of 3 labels are missing (None, NaN), counted from 0 in row(s) 1"),
        (TEXTS, ["a", 1, True], "labels of mixed types: bool ('True'), int ('1'), str ('a')"),
        (TEXTS, [["a"], ["b"], ["a"]], "3 of 3 labels are no classes"),
        (TEXTS, [0.0, 1.5, float("inf")], "2 of 3 labels are no whole numbers (Unknown label type: continuous)"),
        (TEXTS, None, "expected a list of labels, not NoneType ('None')"),
        (TEXTS, 3, "expected a list of labels, not int ('3')"),
        (TEXTS, np.array(["a"] * 3)[:, None], "labels have 2 dimensions"),
        (set(TEXTS), ["a", "b", "b"], "expected a list of texts, not set"),
        (TEXTS, ["a", "b", " "], "1 of 3 labels are empty"),
        (TEXTS, ["a", "b", "\udc80"], "1 of 3 labels hold half of a character"),
        (TEXTS, ["a", "b", "a "], "the labels 'a' and 'a ' differ in blanks only"),
        (TEXTS, [1, 1, 1], "the labels have one class only, 1: a classifier needs two or more different labels."),
    ],
)  # fmt: skip
def test_what_can_not_be_used_is_refused_with_its_rows(texts: Any, labels: Any, message: str) -> None:
    with pytest.raises(UserError) as refused:
        GivenTexts.of(texts, labels)
    assert message in str(refused.value)


def test_only_the_first_rows_of_many_are_named() -> None:
    with pytest.raises(UserError, match=r"30 of 30 texts are empty, .* row\(s\) 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, \.\.\.;"):
        GivenTexts.of([""] * 30, [0, 1] * 15)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("txet", "label"), "'txet': did you mean 'Text'? Its columns are 'Text', 'label', 7; name one with text="),
        (("Text", "gold"), "no column 'gold': Its columns are 'Text', 'label', 7; name one with label=\"...\"."),
        (("Text", "Text"), "'Text' can't be both the text and the label"),
        (("Text,body", "label"), "no column 'body': "),
        ((["Text", "label"], "label"), "'label' can't be both the text and the label"),
        (([], "label"), "no column []: "),
        (("Text", ["label"]), "no column ['label']: "),
        ((0, "label"), "no column 0: "),
    ],
)  # fmt: skip
def test_a_column_that_is_missing_is_refused_with_those_that_there_are(
    arguments: tuple[Any, Any], message: str
) -> None:
    with pytest.raises(UserError) as refused:
        from_frame(pd.DataFrame({"Text": TEXTS, "label": [0, 1, 1], 7: [0, 0, 0]}), *arguments)
    assert message in str(refused.value)


def test_a_column_that_is_there_twice_is_refused() -> None:
    frame = pd.DataFrame([["a", "b", 0], ["c", "d", 1]], columns=["text", "text", "label"])
    with pytest.raises(UserError, match="the DataFrame has 2 columns 'text': rename all but one"):
        from_frame(frame, "text", "label")


@pytest.mark.parametrize(
    ("columns", "text", "is_pair"),
    [
        (["premise", "hypothesis"], None, True),
        (["premise", "hypothesis"], "premise, hypothesis", True),
        (["premise", "hypothesis"], ["hypothesis", "premise"], False),
        (["title", "body"], ("title", "body"), False),
        ([5, 0], [0, 5], False),
    ],
)
def test_several_columns_are_read_as_of_a_file(tmp_path: Path, columns: list[Any], text: Any, is_pair: bool) -> None:
    frame = pd.DataFrame({columns[0]: TEXTS, columns[1]: [f"{one}?" for one in TEXTS], "gold": [0, 1, 1]})
    written = from_frame(frame, text, "gold")
    config = DataConfig(text_column=written.text_columns, label_column=written.label_column)
    path = tmp_path / "own.csv"
    frame.to_csv(path, index=False)
    of_file = load_own_data(config.model_copy(update={"name": str(path)}))
    of_frame = load_own_data(config.model_copy(update={"name": str(written.write(tmp_path))}))
    pd.testing.assert_frame_equal(of_frame.texts, of_file.texts)
    assert of_frame.config.pair is is_pair


def test_a_column_may_have_a_number_or_levels(tmp_path: Path) -> None:
    frame = pd.DataFrame({0: [0, 1, 1], 1: TEXTS})
    assert _read(from_frame(frame, 1, 0).write(tmp_path))["text"].tolist() == TEXTS
    levels = pd.concat({"a": frame}, axis=1)
    assert _read(from_frame(levels, ("a", 1), ("a", 0)).write(tmp_path))["text"].tolist() == TEXTS
