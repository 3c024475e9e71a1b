"""What `ftbench table` shows on request: which rows and columns, in which order, in which format."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from harness import commands
from harness.config.suite import load_suite
from harness.results.store import Store

STRATEGIES = ["head_only", "last_block", "tfidf"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of two strategies, and a baseline."""
    folder = tmp_path_factory.mktemp("tables")
    options = {"model.name": "mini", "data.name": "synthetic", "data.size": 300, "training.epochs": 1}
    suite = load_suite(None, {**options, "strategy": STRATEGIES, "seed": [0, 1]}, [])
    commands.run_suite(Console(quiet=True), suite, folder / "results", folder / "cache", force=False)
    return folder / "results"


@pytest.fixture
def table(run_cli: Callable, results: Path) -> Callable[..., str]:
    """What `ftbench table` with these options prints to stdout, and nothing to stderr."""

    def shown(*options: str) -> str:
        code, out, told = run_cli("table", *options, results=results)
        assert (code, told) == (0, "")
        return out

    return shown


def _tables(out: str) -> list[dict]:
    return json.loads(out)


def _rows(out: str) -> list[dict]:
    (one,) = _tables(out)
    return one["rows"]


COLUMNS = {"TEST LOSS": "test loss", "verd": "verdict", "vs": "vs last_block"}


@pytest.mark.parametrize("column", ["test", "time", "trained", "memory", *COLUMNS])
def test_the_best_of_a_column_comes_first(table: Callable, column: str) -> None:
    rows = _rows(table("--format", "json", "--sort", column))
    name = COLUMNS.get(column, column)
    values = [row[name] for row in rows]
    assert len(rows) == 3
    if column == "verd":
        order = ["better", "reference", "no evidence", "worse"]
        values = [order.index(value) for value in values]
    elif column == "vs":
        values = [-(value or 0) for value in values]  # the reference is as good as itself
    elif column == "test":
        values = [-value for value in values]
    assert values == sorted(values)
    assert len(set(values)) > 1


def test_columns_are_those_named_in_that_order(table: Callable) -> None:
    header, _, *lines = table("--format", "markdown", "--columns", "verdict,Test,TIME").splitlines()[2:7]
    assert header == "| strategy | verdict | test % [95%] | time |"
    assert [line.split(" | ")[0] for line in lines] == ["| head_only", "| last_block", "| tfidf"]
    assert ["strategy", "seeds", "time"] in [line.split() for line in table("--columns", "seeds,time").splitlines()]


def test_rows_left_out_change_no_evidence(table: Callable) -> None:
    whole = {row["strategy"]: row for row in _rows(table("--format", "json"))}
    (one,) = _tables(table("--format", "json", "--filter", "HEAD"))
    assert one["rows"] == [whole["head_only"]]
    assert one["rows"][0]["vs last_block"] is not None
    assert any("2 of 3 rows" in note and "reference, the verdicts" in note for note in one["notes"])
    assert "2 of 3 rows" in table("--filter", "head")
    assert "rows, whose name" not in table()


def test_numbers_are_those_of_the_records(table: Callable, results: Path) -> None:
    records = [record for record in Store(results).all() if record.strategy == "last_block"]
    mean = sum(record.metrics.test.accuracy for record in records) / 2
    row = next(row for row in _rows(table("--format", "json")) if row["strategy"] == "last_block")
    assert row["test"] == pytest.approx(mean)
    assert row["test low"] < mean < row["test high"]
    assert (row["seeds"], row["trained"], row["verdict"]) == (2, 198_786, "reference")
    frame = pd.read_csv(io.StringIO(table("--format", "csv"))).set_index("strategy")
    assert frame.loc["last_block", "test"] == pytest.approx(mean)
    assert frame.loc["last_block", "trained"] == 198_786
    assert frame.index.tolist() == STRATEGIES
    assert "2.0" not in table("--format", "csv", "--columns", "seeds")


def test_latex_is_a_table_that_can_be_pasted(table: Callable, results: Path) -> None:
    out = table("--format", "latex", "--columns", "trained,test,vs,verdict")
    lines = [line for line in out.splitlines() if not line.startswith("%")]
    rules = [r"\begin{tabular}{lrrrr}", r"\toprule", r"\midrule", r"\bottomrule", r"\end{tabular}"]
    assert [line for line in lines if line in rules] == rules
    header, *rows = [line for line in lines if line not in rules]
    assert header == r"strategy & trained & test \% [95\%] & vs last\_block & verdict \\"
    assert [row.split(" & ")[0] for row in rows] == [r"head\_only", r"last\_block", "tfidf"]
    assert all(row.count(" & ") == 4 and row.endswith(r"\\") for row in rows)
    assert r"\textbf{" in rows[1]
    assert "[" in rows[0].split(" & ")[2], "the interval stands beside its value"
    assert "last\\_block" in (results / "table.tex").read_text()


def test_what_there_is_not_is_told_with_what_there_is(run_cli: Callable, results: Path) -> None:
    for options, told in (
        (("--sort", "speed"), "unknown column 'speed': expected one of seeds, trained, test loss, train"),
        (("--columns", "test,colour"), "unknown column 'colour'"),
        (("--columns", "tes"), "may be test loss or test"),
        (("--format", "html"), "expected one of markdown, csv, latex, json"),
        (("--filter", "bert"), "rows are head_only, last_block, tfidf"),
    ):
        code, out, problem = run_cli("table", *options, results=results)
        assert (code, told in problem) == (2, True), problem
        assert out == ""


def test_what_can_not_be_read_does_not_spoil_what_is_piped(run_cli: Callable, results: Path) -> None:
    broken = results / "runs" / "broken"
    broken.mkdir()
    (broken / "record.json").write_text("{}")
    try:
        code, out, problem = run_cli("table", "--format", "json", results=results)
    finally:
        (broken / "record.json").unlink()
        broken.rmdir()
    assert code == 0
    assert len(_rows(out)) == 3
    assert "left out" in problem


def test_tables_of_several_conditions_are_told_apart(run_here: Callable, run_cli: Callable, tmp_path: Path) -> None:
    for epochs in (0, 1):
        run_here(strategy=["head_only", "last_block"], training__epochs=epochs)
    code, out, _ = run_cli("table", "--format", "csv", "--columns", "vs,test")
    assert code == 0
    frame = pd.read_csv(io.StringIO(out))
    assert frame["table"].nunique() == 2
    assert frame["strategy"].tolist() == ["head_only", "last_block"] * 2
    assert run_cli("table", "--format", "latex")[1].count(r"\begin{tabular}") == 2


def test_files_of_another_version_beside_the_records_stop_nothing(
    run_here: Callable, run_cli: Callable, tmp_path: Path
) -> None:
    (record,) = run_here(strategy=["majority"])
    results = tmp_path / "results"
    provision = results / "runs" / record.run_id / "if_killed.json"
    provision.write_text('{"record": {}}')
    (results / "suites").mkdir()
    (results / "suites" / "old.json").write_text('{"name": "old"}')
    code, out, _ = run_cli("table")
    assert code == 0
    assert "left out: suite" in out
    assert "old.json is damaged or of another version" in " ".join(out.split())
    assert not provision.exists()
