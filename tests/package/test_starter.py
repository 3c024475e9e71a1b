"""`ftbench init`: a folder in which what it prints can be typed at once."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import cli
from harness.starter import FILES, WORKFLOW
from tests.support.runs import assert_refused


def init(folder: str, run_cli: Callable) -> list[str]:
    """The commands that it prints."""
    code, out, _ = run_cli("init", folder, results=None)
    assert code == 0
    return re.findall(r"^  (\S.*?)(?:  # .*)?$", out, re.MULTILINE)


def type_commands(commands: list[str], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in commands:
        monkeypatch.setattr("sys.argv", [*shlex.split(command), "--cache", str(cache)])
        with pytest.raises(SystemExit) as exited:
            cli.main()
        assert not exited.value.code, command


def test_what_it_prints_can_be_typed(run_cli: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    enter, data, run, *_ = init("new", run_cli)
    assert enter == "cd new"
    written = {path.relative_to("new").as_posix() for path in Path("new").rglob("*") if path.is_file()}
    assert written == set(FILES.values())
    monkeypatch.chdir("new")
    type_commands([f"{data} --model mini", run], tmp_path / "cache", monkeypatch)
    shown = json.loads(Path("results/comparison.json").read_text())
    assert {row["name"] for row in shown[0]["rows"]} == {"last_block", "my_strategy", "words"}


@pytest.mark.long
def test_all_that_it_prints_can_be_typed(run_cli: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    type_commands(init(".", run_cli), tmp_path / "cache", monkeypatch)
    assert Path("results/report.html").is_file()
    assert Path("gate/reference.json").is_file()


def test_the_workflow_runs_the_gate_that_is_printed(
    run_cli: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    *_, last = init(".", run_cli)
    workflow = Path(WORKFLOW).read_text()
    suite, reference = (re.search(rf"{name}: (.*)", workflow)[1] for name in ("SUITE", "REFERENCE"))
    assert last == f"ftbench gate --config {suite} --reference {reference}"


def test_nothing_is_overwritten(run_cli: Callable, tmp_path: Path) -> None:
    mine = tmp_path / "data.csv"
    mine.write_text("mine")
    code, out, told = run_cli("init", str(tmp_path), results=None)
    assert_refused(code, out, told)
    assert "data.csv" in told
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_a_folder_that_cannot_be_made(run_cli: Callable, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    assert_refused(*run_cli("init", str(tmp_path / "file" / "new"), results=None))
