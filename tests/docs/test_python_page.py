"""The code of docs/python.md runs, from top to bottom, beside the file that the reader brings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import Comparison
from harness.config import options
from tests.support.documents import BLOCK, READERS_FILES
from tests.support.runs import ROOT


def test_every_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    own_cache = [replace(one, default=tmp_path / "cache") if one.name == "cache" else one for one in options.OPTIONS]
    monkeypatch.setattr(options, "OPTIONS", tuple(own_cache))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reviews.csv").write_text(READERS_FILES["reviews.csv"])
    names: dict[str, Any] = {}
    blocks = [
        block for block in BLOCK.finditer((ROOT / "docs" / "python.md").read_text()) if block["language"] == "python"
    ]
    assert len(blocks) == 4
    for block in blocks:
        exec(compile(block["content"], "docs/python.md", "exec"), names)
    assert isinstance(names["comparison"], Comparison)
    assert (tmp_path / "accuracy.png").stat().st_size > 1000
    assert names["again"].predict(["text number 7"]) == names["best"].predict(["text number 7"])
    assert "{'strategy':" in capsys.readouterr().out
