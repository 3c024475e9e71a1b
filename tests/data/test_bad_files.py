"""Data files and checkpoints that can't be used: exit code 2, one clear message, nothing loaded that could run code."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from harness.config.schema import DataConfig
from harness.data.reading.own_data import load_own_data
from harness.results.store import Store

# Data files

FILLER = "".join(f"text {number},{'ab'[number % 2]}\n" for number in range(20))
MANY_EMPTY = "text,label\n" + ",a\n" * 15 + FILLER


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("empty.csv", b"", ["is empty"]),
        ("header.csv", b"text,label\n", ["is empty"]),
        ("empty.jsonl", b"\n\n", ["is empty"]),
        ("damaged.csv", "text,label\nécole,a\n".encode() + b"caf\xe9,b\n", ["line 3", "UTF-8", "data.encoding=cp1252"]),
        ("utf16.tsv", "text\tlabel\nhello\ta\n".encode("utf-16-le"), ["line 1", "NUL", "data.encoding=utf-16-le"]),
        ("one.csv", b"text,label\nhello,a\nthere,a\n", ["one class only", "'a'", "two or more"]),
        ("columns.csv", b"body,kind\nhello,a\n", ["the label", "'body' ('hello'), 'kind' ('a')", "data.label_column"]),
        ("label.tsv", b"text\tkind\nhello\ta\n", ["the label", "'text' ('hello'), 'kind' ('a')", "data.label_column"]),
        ("noheader.csv", b"hello,a\nthere,b\n", ["the label", "'hello' ('there'), 'a' ('b')", "data.header=false"]),
        ("keys.jsonl", b'{"text": "x", "kind": "a"}\n', ["the label", "'kind' ('a')", "data.label_column"]),
        ("blank.csv", b"text,label\nhello,a\n   ,b\nthere,a\n,b\n", ["'text' is empty", "2 line(s)", ": 3, 5;"]),
        ("first.csv", b"text,label\n,a\nthere,b\n", ["'text' is empty", "1 line(s)", ": 2;"]),
        ("nolabel.tsv", b'text\tlabel\n"two\nlines"\ta\nthere\t\nyou\n', ["'label' is empty", ": 4, 5;"]),
        ("afterblank.csv", b"text,label\n\nhello,a\n\n,b\n", ["'text' is empty", ": 5;"]),
        ("many.csv", MANY_EMPTY.encode(), ["15 line(s)", ": 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ...;"]),
        ("null.jsonl", b'{"text": "x", "label": "a"}\n\n{"text": "y", "label": null}\n', ["'label' is empty", ": 3;"]),
        ("broken.jsonl", b'{"text": "x", "label": "a"}\n{"text": "y", \n', ["line 2", "no JSON object"]),
        ("digits.jsonl", b'{"text": "x", "label": ' + b"1" * 5000 + b"}\n", ["line 1", "no JSON object"]),
        ("nested.jsonl", b'{"text": ["x"], "label": "a"}\n', ["line 1", "'text' holds several values"]),
        ("half.jsonl", b'{"text": "x", "label": "\\ud83d"}\n', ["line 1", "half of a character"]),
        ("twice.csv", b"text,label,text\nhello,a,there\n", ["two columns 'text'"]),
        ("list.jsonl", b'{"text": "x", "label": "a"}\n["y", "b"]\n', ["line 2", "object"]),
        ("quote.csv", b'text,label\nhello,a\n"there, you,b\nyou,a\n', ["line 3", "quotes"]),
        ("comma.csv", b"text,label\nhello,a\nhello, you,b\n", ["line 3", "3 columns", "quotes"]),
        ("few.csv", b"text,label\nhello,a\nthere,b\n", ["2 texts are too few", "10 or more"]),
        ("small.csv", ("text,label\n" + FILLER[:90]).encode(), ["training.batch_size=8", "training texts"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_unusable_data_file(refused: Callable, tmp_path: Path, name: str, content: bytes, parts: list[str]) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    told = refused(data=str(path))
    for part in parts:
        assert part in told


def test_a_file_that_nobody_may_read(refused: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, so the system's refusal is played."""
    path = tmp_path / "private.csv"
    path.write_text("text,label\n" + FILLER)

    def denied(*_: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
    assert "can't be read (Permission denied)" in refused(data=str(path))


@pytest.mark.parametrize("name", ["LONG.CSV", "long.jsonl"])
def test_a_text_of_any_length_is_read(name: str, tmp_path: Path) -> None:
    long = "a" * 200_000
    path = tmp_path / name
    content = f"text,label\n{long},a\nhello,b\n"
    if path.suffix == ".jsonl":
        content = "".join(
            json.dumps({"text": text, "label": label}) + "\n" for text, label in ((long, "a"), ("b", "b"))
        )
    path.write_text(content)
    assert load_own_data(DataConfig(name=str(path))).texts["text"][0] == long


@pytest.mark.parametrize("name", ["data.csv", "data.txt"])
def test_a_folder_is_no_data_file(refused: Callable, tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    assert name in refused(data=str(tmp_path / name))


def test_a_text_beyond_the_context_is_cut_counted_and_told(run_cli: Callable, tmp_path: Path) -> None:
    rows = [f"text {number},{'ab'[number % 2]}" for number in range(28)]
    rows += [f"{'word ' * 400},a", f"{'other ' * 400},b"]
    path = tmp_path / "long.csv"
    path.write_text("\n".join(["text,label", *rows]))
    code, out, told = run_cli("run", "--model", "mini", "--data", str(path), "--strategy", "head_only", "--epochs", "1")
    assert (code, told) == (0, "")
    assert "2 texts (6.7%) were longer than a row may be, and were cut." in out
    (record,) = Store(tmp_path / "results").all()
    assert (record.status, record.data.cut_texts) == ("ok", 2)


# Checkpoints


def mini_checkpoint() -> dict[str, torch.Tensor]:
    """The published layout in the mini model's sizes."""
    matrices = {"attn.c_attn": (128, 384), "attn.c_proj": (128, 128), "mlp.c_fc": (128, 512), "mlp.c_proj": (512, 128)}
    tensors = {"wte.weight": torch.randn(640, 128) * 0.02, "wpe.weight": torch.randn(256, 128) * 0.02}
    for norm in ("ln_f", *(f"h.{block}.ln_{number}" for block in range(4) for number in (1, 2))):
        tensors |= {f"{norm}.weight": torch.ones(128), f"{norm}.bias": torch.zeros(128)}
    for block in range(4):
        for name, shape in matrices.items():
            tensors[f"h.{block}.{name}.weight"] = torch.randn(shape) * 0.02
            tensors[f"h.{block}.{name}.bias"] = torch.zeros(shape[1])
    return tensors


def test_a_checkpoint_that_fits_runs(run_cli: Callable, tmp_path: Path) -> None:
    save_file(mini_checkpoint(), tmp_path / "model.safetensors")
    options = ["--data", "synthetic", "--set", "data.size=50", "--strategy", "head_only", "--epochs", "0"]
    code, _, told = run_cli("run", "--model", "mini", "--weights", str(tmp_path), *options)
    assert (code, told) == (0, "")
    (record,) = Store(tmp_path / "results").all()
    assert len(record.model.weights_sha256) == 64


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda tensors: tensors.pop("h.3.mlp.c_fc.weight"), ["lacks 'h.3.mlp.c_fc.weight'", "MODEL"]),
        (lambda tensors: tensors.pop("wpe.weight"), ["lacks 'wpe.weight'", "MODEL"]),
        (
            lambda tensors: tensors.update({"wte.weight": torch.zeros(641, 128)}),
            ["'wte.weight'", "[641, 128]", "[640, 128]", "MODEL"],
        ),
        (
            lambda tensors: tensors.update({"h.0.attn.c_attn.weight": torch.zeros(384, 128)}),
            ["'h.0.attn.c_attn.weight'", "[384, 128]", "[128, 384]"],
        ),
        (
            lambda tensors: tensors.update({"ln_f.bias": torch.zeros(128, dtype=torch.int8)}),
            ["'ln_f.bias'", "I8", "F32"],
        ),
        (lambda tensors: tensors.update({"h.4.ln_1.bias": torch.zeros(128)}), ["unknown tensor 'h.4.ln_1.bias'"]),
    ],
    ids=["no matrix", "no positions", "wrong shape", "transposed", "wrong type", "another block"],
)
def test_a_checkpoint_that_does_not_fit(refused: Callable, tmp_path: Path, change: Callable, parts: list[str]) -> None:
    tensors, path = mini_checkpoint(), tmp_path / "own.safetensors"
    change(tensors)
    save_file(tensors, path)
    told = refused("--weights", str(path))
    assert str(path) in told
    for part in parts:
        assert part in told


@pytest.mark.parametrize("kept", [0, 4, 100, 5000, -1])
def test_a_truncated_checkpoint(refused: Callable, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "model.safetensors"
    save_file(mini_checkpoint(), path)
    path.write_bytes(path.read_bytes()[:kept])
    told = refused("--weights", str(path))
    assert "truncated" in told
    assert "again" in told


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.sprung),)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.safetensors", "model"])
def test_a_pickle_is_refused_and_never_loaded(refused: Callable, tmp_path: Path, name: str) -> None:
    path, sprung = tmp_path / name, tmp_path / "sprung"
    path.write_bytes(pickle.dumps(Trap(sprung)))
    told = refused("--weights", str(path))
    assert str(path) in told
    assert ("is a pickle" if path.suffix in (".bin", ".pt", ".pth") else "is no safetensors file") in told
    assert "only safetensors is read" in told
    assert not sprung.exists()


def test_a_saved_state_under_a_safetensors_name(refused: Callable, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    torch.save(mini_checkpoint(), path)
    assert "no safetensors file" in refused("--weights", str(path))


def test_a_folder_without_a_checkpoint(refused: Callable, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(b"")
    told = refused("--weights", str(tmp_path / "model"))
    assert str(tmp_path / "model") in told
    assert "model.safetensors" in told
