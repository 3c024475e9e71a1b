"""Splits that come with the data: files, archives, a column, and data sets of the hub."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest

from harness.config.schema import DataConfig
from harness.data.dataset import Dataset, load_dataset
from harness.errors import UserError
from harness.results.store import Store
from tests.support.data_files import Form, rows_of, write

Parts = dict[str, list[tuple[str, str]]]


def load(path: Path | str, cache: Path, **options: object) -> Dataset:
    return load_dataset(DataConfig.model_validate({"name": str(path), **options}), cache)


def texts_by_part(dataset: Dataset) -> Parts:
    return {name: list(zip(part["text"], part["label"], strict=True)) for name, part in dataset.split.items()}


@pytest.fixture
def parts() -> Parts:
    rows = rows_of(np.random.default_rng(0), 60)
    return {"train": rows[:40], "validation": rows[40:46], "test": [*rows[46:58], rows[0]]}


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


# Of the hub


def hub_data(parts: Parts, hidden: bool = False) -> datasets.DatasetDict:
    """With names of labels in its features."""
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )

    def of(rows: list[tuple[str, str]], hide: bool) -> datasets.Dataset:
        labels = [-1 if hide else int(label == "kind1") for _, label in rows]
        return datasets.Dataset.from_dict({"sentence": [text for text, _ in rows], "label": labels}, features)

    return datasets.DatasetDict({name: of(rows, hidden and name == "test") for name, rows in parts.items()})


def save_as_on_the_hub(data: datasets.DatasetDict, folder: Path) -> Path:
    (folder / "data").mkdir(parents=True)
    for name, part in data.items():
        part.to_parquet(folder / "data" / f"{name}-00000-of-00001.parquet")
    return folder


def named(parts: Parts) -> Parts:
    return {
        name: [(text, {"kind0": "no", "kind1": "yes"}[label]) for text, label in rows] for name, rows in parts.items()
    }


@pytest.mark.parametrize("layout", ["hub", "saved"])
def test_a_data_set_in_the_hubs_layout(tmp_path: Path, parts: Parts, layout: str) -> None:
    folder, data = tmp_path / "folder", hub_data(parts)
    save_as_on_the_hub(data, folder) if layout == "hub" else data.save_to_disk(folder)
    dataset = load(f"hf:{folder}", tmp_path)
    assert texts_by_part(dataset) == named(parts)
    assert dataset.source.classes == ["no", "yes"]
    assert (dataset.config.text_column, dataset.config.label_column) == ("sentence", "label")


def test_hidden_labels_of_the_hub(run_here: Callable, tmp_path: Path, parts: Parts) -> None:
    folder = save_as_on_the_hub(hub_data(parts, hidden=True), tmp_path / "folder")
    (record,) = run_here(data__name=f"hf:{folder}", strategy=["head_only"], training__epochs=1)
    assert record.data.sizes == {"train": 35, "validation": 5, "test": 6}
    assert record.data.classes == ["no", "yes"]
    assert any("test texts are hidden" in note for note in record.data.notes)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path: Path, parts: Parts) -> Iterator[str]:
    """What the library asks of the hub, for one data set; its address."""
    files = save_as_on_the_hub(hub_data(parts), tmp_path / "published")
    names = [path.relative_to(files).as_posix() for path in sorted(files.rglob("*.parquet"))]

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            _, _, file = self.path.partition("/resolve/")
            name = file.partition("/")[2]
            if "/tree/" in self.path:
                sizes = {name: (files / name).stat().st_size for name in names}
                tree = [{"type": "file", "path": name, "size": size, "oid": name} for name, size in sizes.items()]
                self.answer(200, json.dumps(tree).encode(), "application/json")
            elif "/api/datasets/own/texts" in self.path:
                self.answer(200, json.dumps({"id": "own/texts", "sha": COMMIT}).encode(), "application/json")
            elif name in names:
                self.answer(200, (files / name).read_bytes(), "application/octet-stream")
            else:
                self.answer(404, b"", "text/plain")

        def answer(self, status: int, content: bytes, kind: str) -> None:
            self.send_response(status)
            headers = {
                "Content-Type": kind,
                "Content-Length": len(content),
                "X-Repo-Commit": COMMIT,
                "ETag": f'"{len(content)}"',
            }
            for name, value in headers.items():
                self.send_header(name, str(value))
            if status == 404:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def survey(endpoint: str, cache: Path, **options: str) -> dict:
    """What `ftbench data` says of the data set, in a process of its own: the library reads its settings on import."""
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    command = [sys.executable, "-m", "harness", "data", "hf:own/texts", "--model", "mini", "--json"]
    done = subprocess.run(
        [*command, "--cache", str(cache)], env=environment | {"HF_ENDPOINT": endpoint} | options, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def test_a_data_set_of_the_hub_and_offline_what_is_cached(hub: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    online = survey(hub, cache)
    assert online["sizes"] == {"train": 40, "validation": 6, "test": 13}
    assert f"revision {COMMIT[:12]}" in online["notes"]
    offline = survey("http://127.0.0.1:9", cache)
    assert offline["sha256"] == online["sha256"]
    assert any("as it is in the cache" in note for note in offline["notes"])


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
