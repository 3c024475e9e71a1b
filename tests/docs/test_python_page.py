"""The code of docs/python.md runs, from top to bottom, beside the file that the reader brings."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import Comparison
from harness.config import options
from tests.support.documents import BLOCK, READERS_FILES
from tests.support.runs import ROOT


@pytest.fixture
def readers_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    own_cache = [replace(one, default=tmp_path / "cache") if one.name == "cache" else one for one in options.OPTIONS]
    monkeypatch.setattr(options, "OPTIONS", tuple(own_cache))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reviews.csv").write_text(READERS_FILES["reviews.csv"])
    return tmp_path


def _python_of(document: str) -> list[str]:
    found = BLOCK.finditer((ROOT / document).read_text())
    return [block["content"] for block in found if block["language"] == "python"]


@pytest.mark.parametrize("document", ["README.md", "README.zh-CN.md"])
def test_the_readmes_comparison_runs(
    document: str, readers_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("FTBENCH_ASSETS", "")
    (code,) = (one for one in _python_of(document) if "compare(" in one)
    exec(compile(code.replace("range(3))", 'range(1), model="mini", epochs=1)'), document, "exec"), {})
    assert re.search(r"last_block|head_only|tfidf", capsys.readouterr().out)


def test_every_block_runs(readers_folder: Path, capsys: pytest.CaptureFixture) -> None:
    names: dict[str, Any] = {}
    blocks = _python_of("docs/python.md")
    assert len(blocks) == 4
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert isinstance(names["comparison"], Comparison)
    assert (readers_folder / "accuracy.png").stat().st_size > 1000
    assert names["again"].predict(["text number 7"]) == names["best"].predict(["text number 7"])
    assert "{'strategy':" in capsys.readouterr().out
