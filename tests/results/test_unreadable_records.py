"""Results that can't be written, and records that can't be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.runs import assert_refused


@pytest.mark.parametrize("below", ["results", "results/deeper"])
def test_a_results_folder_that_cannot_be_written(refused: Callable, tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("mine")
    told = refused(results=tmp_path / "file" / below)
    assert str(tmp_path / "file" / below) in told
    assert "RESULTS" in told
    assert (tmp_path / "file").read_text() == "mine"


DAMAGED = pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema_version": 1}', b"\xff\xfe"], ids=repr)


@DAMAGED
def test_a_record_that_cannot_be_read_is_named_left_out_and_kept(
    run_cli: Callable, run_here, tmp_path, content
) -> None:
    run_here(strategy=["majority"])
    damaged = tmp_path / "results" / "runs" / "some-run" / "record.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(content)
    code, out, _ = run_cli("table")
    assert code == 0
    assert "majority" in out
    assert str(damaged) in out.replace("\n", "")
    assert "move the folder away" in (tmp_path / "results" / "table.md").read_text()
    assert damaged.read_bytes() == content


@DAMAGED
def test_nothing_but_a_record_that_cannot_be_read(run_cli: Callable, tmp_path: Path, content: bytes) -> None:
    damaged = tmp_path / "results" / "runs" / "some-run" / "record.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(content)
    code, out, told = run_cli("table")
    assert_refused(code, out, told)
    assert "none of the 1 record(s)" in told
    assert str(damaged) in told


def test_a_table_of_nothing(run_cli: Callable, tmp_path: Path) -> None:
    code, out, told = run_cli("table")
    assert_refused(code, out, told)
    assert "make bench" in told
    assert not (tmp_path / "results" / "table.md").exists()
