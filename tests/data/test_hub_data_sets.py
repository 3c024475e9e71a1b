"""Data sets of the hub: in its layout, with hidden labels, and from its cache."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import pytest

from tests.data.test_official_splits import load, texts_by_part
from tests.support.data_files import Parts


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
