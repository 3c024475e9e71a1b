"""Splits that come with the data: files, archives, a column. (`test_hub_data_sets.py`: those of the hub.)"""

from __future__ import annotations

import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from harness.config.schema import DataConfig
from harness.data.dataset import Dataset, load_dataset
from harness.errors import UserError
from harness.results.store import Store
from tests.support.data_files import Form, Parts, write


def load(path: Path | str, cache: Path, **options: object) -> Dataset:
    return load_dataset(DataConfig.model_validate({"name": str(path), **options}), cache)


def texts_by_part(dataset: Dataset) -> Parts:
    return {name: list(zip(part["text"], part["label"], strict=True)) for name, part in dataset.split.items()}


@pytest.fixture
def folder(tmp_path: Path, parts: Parts) -> Path:
    for name, rows in parts.items():
        write(tmp_path / "data", rows, Form(), stem=name)
    return tmp_path / "data"


def test_a_folder_is_taken_as_it_is(folder: Path, parts: Parts) -> None:
    dataset = load(folder, folder)
    assert texts_by_part(dataset) == parts
    assert dataset.config.split == "official"
    assert "official split: train, validation, test (40 / 6 / 13)" in dataset.notes
    assert dataset.test_seen == [False] * 12 + [True]


@pytest.mark.parametrize("validation", ["dev", "valid", "sms_validation", "val-00000-of-00001"])
def test_parts_go_by_other_names_too(folder: Path, parts: Parts, validation: str) -> None:
    (folder / "validation.csv").rename(folder / f"{validation}.csv")
    assert texts_by_part(load(folder, folder)) == parts


def test_shards_of_a_part_are_one(folder: Path, parts: Parts) -> None:
    (folder / "train.csv").unlink()
    for number, start in enumerate((0, 25)):
        write(folder / "data", parts["train"][start : start + 25], Form(), stem=f"train-0000{number}-of-00002")
    assert texts_by_part(load(folder, folder)) == parts


@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
def test_an_archive_is_as_good_as_a_folder(folder: Path, parts: Parts, ending: str) -> None:
    archive = folder.parent / f"data{ending}"
    if ending == ".zip":
        with zipfile.ZipFile(archive, "w") as opened:
            for file in folder.iterdir():
                opened.write(file, f"reviews/{file.name}")
    else:
        with tarfile.open(archive, "w:gz") as opened:
            opened.add(folder, "reviews")
    assert texts_by_part(load(archive, folder)) == parts


def test_a_split_column_is_a_split(tmp_path: Path, parts: Parts) -> None:
    rows = [(text, label, name) for name in ("test", "train", "validation") for text, label in parts[name]]
    pd.DataFrame(rows, columns=["text", "label", "Split"]).to_csv(tmp_path / "data.csv", index=False)
    dataset = load(tmp_path / "data.csv", tmp_path)
    assert texts_by_part(dataset) == parts
    assert texts_by_part(load(tmp_path / "data.csv", tmp_path, split="stratified")) != parts
    frame = pd.DataFrame(
        [(*row[:2], number % 3) for number, row in enumerate(rows)], columns=["text", "label", "split"]
    )
    frame.to_csv(tmp_path / "folds.csv", index=False)
    folds = load(tmp_path / "folds.csv", tmp_path)
    assert folds.config.split == "stratified"
    assert "its column 'split' is not used: its values are not train, validation and test alone" in folds.notes


def test_validation_is_cut_from_train_where_there_is_none(folder: Path, parts: Parts) -> None:
    (folder / "validation.csv").unlink()
    dataset = load(folder, folder)
    found = texts_by_part(dataset)
    assert found["test"] == parts["test"]
    assert sorted(found["train"] + found["validation"]) == sorted(parts["train"])
    assert Counter(label for _, label in found["validation"]) == {"kind0": 2, "kind1": 3}
    assert "5 of its training texts are taken for validation, stratified by class" in dataset.notes


@pytest.mark.parametrize("hidden", ["-1", "", None], ids=["minus one", "empty", "no column"])
def test_hidden_test_labels_are_not_tested_on(folder: Path, parts: Parts, hidden: str | None) -> None:
    columns = {"text": [text for text, _ in parts["test"]]} | ({} if hidden is None else {"label": hidden})
    pd.DataFrame(columns).to_csv(folder / "test.csv", index=False)
    dataset = load(folder, folder)
    found = texts_by_part(dataset)
    assert found["test"] == parts["validation"]
    assert sorted(found["train"] + found["validation"]) == sorted(parts["train"])
    said = "; ".join(dataset.notes)
    assert "the labels of its 13 test texts are hidden" in said
    assert "its validation texts serve as test texts" in said
    assert "taken for validation" in said


def test_what_is_missing_or_unknown_is_said(folder: Path, parts: Parts) -> None:
    write(folder, parts["test"], Form(), stem="unlabelled")
    assert any(note.startswith("not used: ") and "unlabelled.csv" in note for note in load(folder, folder).notes)
    (folder / "train.csv").unlink()
    with pytest.raises(UserError, match="the train part is missing"):
        load(folder, folder)
    for name in ("validation", "test"):
        (folder / f"{name}.csv").unlink()
    write(folder, parts["test"], Form(), stem="more")
    with pytest.raises(UserError, match="2 data files, none of which is named train, validation or test"):
        load(folder, folder)


def test_a_part_without_the_column_of_the_others(folder: Path) -> None:
    (folder / "test.csv").write_text("body,label\nhello,kind0\n")
    with pytest.raises(UserError, match=r"test\.csv' has no column 'text', as the other parts have"):
        load(folder, folder)


def test_several_files_of_a_part_are_refused_unless_they_are_shards(folder: Path, parts: Parts) -> None:
    """They would be read one after the other, so each text twice."""
    write(folder, parts["train"], Form(kind=".jsonl"), stem="train")
    with pytest.raises(UserError, match=r"several files of the part train: .*train\.csv, .*train\.jsonl"):
        load(folder, folder)


def test_a_part_without_a_header_and_with_few_texts(tmp_path: Path, parts: Parts) -> None:
    """In the test file nothing but the training file's form says that there is none."""
    parts["test"] = parts["test"][:3]
    for name, rows in parts.items():
        write(tmp_path, rows, Form(names=None), stem=name)
    assert texts_by_part(load(tmp_path, tmp_path)) == parts


def test_nothing_but_hidden_labels(tmp_path: Path, parts: Parts) -> None:
    for number in (1, 2):
        write(tmp_path, [(text, "-1") for text, _ in parts["test"]], Form(), stem=f"test-{number}")
    with pytest.raises(UserError, match="all labels in 'label' are hidden"):
        load(tmp_path, tmp_path)


def test_a_run_uses_the_split_and_its_record_says_so(run_here: Callable, folder: Path) -> None:
    (record,) = run_here(data__name=str(folder), strategy=["head_only"], training__epochs=1)
    assert record.data.sizes == {"train": 40, "validation": 6, "test": 13}
    assert (record.config["data"]["split"], record.data.test_in_train) == ("official", 1)
    assert "official split: train, validation, test (40 / 6 / 13)" in record.data.notes


@pytest.mark.long
def test_the_record_of_two_ranks_says_what_was_found(ftbench: Callable, tmp_path: Path, parts: Parts) -> None:
    """Workers read the data as planned."""
    path = write(tmp_path, parts["train"], Form(kind=".tsv", delimiter="\t", names=None, encoding="cp1252"))
    options = ["--model", "mini", "--strategy", "head_only", "--epochs", "1", "--nproc", "2", "--data", str(path)]
    done = ftbench("run", *options)
    assert done.returncode == 0, done.stderr
    (record,) = Store(tmp_path / "results").all()
    said = "; ".join(record.data.notes)
    for part in ("text '1', label '2' (by their place)", "no header line", "read as cp1252"):
        assert part in said
        assert part in done.stdout
