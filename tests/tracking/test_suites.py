"""When runs are logged, and what becomes of a suite whose tracker can't be used."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from harness import commands
from harness.config.suite import load_suite
from harness.results.store import Store
from harness.tracking import client
from harness.tracking.trackers import NAMES, command_that_shows
from tests.support.runs import ROOT, run_command
from tests.support.strategies import long
from tests.tracking import readers
from tests.tracking.conftest import run_tracked

pytest.importorskip("tensorboard")
SMALL = {"model.name": "mini", "data.name": "synthetic", "data.size": 60, "training.epochs": 1, "strategy": "majority"}


def _logged(folder: Path, tracker: str = "tensorboard") -> list[str]:
    """Names of the runs in a suite without a file."""
    return sorted(path.name for path in (folder / "results" / "tracking" / tracker / "ftbench").glob("*"))


def test_an_unknown_tracker_is_refused_with_the_near_one(refused: Callable[..., str]) -> None:
    told = refused("--track=tensorboard,mlfow")
    assert "TRACK='tensorboard,mlfow': unknown tracker 'mlfow': did you mean 'mlflow'?" in told
    assert "Known are tensorboard, mlflow, trackio, wandb." in told


def test_a_tracker_that_is_not_installed_is_refused_with_the_command_that_installs_it(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not there
    assert "the package wandb is not installed; `pip install 'ftbench[track]'` brings it." in refused("--track=wandb")


def test_a_tracker_that_fails_is_told_once_and_what_it_lacks_is_logged_once_by_a_later_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    in_the_way = tmp_path / "results" / "tracking" / "tensorboard" / "ftbench"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("")
    code, printed = run_tracked(tmp_path, "tensorboard", **SMALL | {"strategy": ["majority", "length_rule"]})
    assert code == 0
    told = "tracking with tensorboard has failed, and the suite goes on without it: NotADirectoryError"
    assert (capsys.readouterr().out + printed).count(told) == 1
    before = Store(tmp_path / "results").all()
    assert [record.status for record in before] == ["ok", "ok"]
    assert "Traceback" in (tmp_path / "results" / "tracking" / "tensorboard-problem.txt").read_text()

    in_the_way.unlink()
    code, printed = run_tracked(tmp_path, "tensorboard", **SMALL)
    assert (code, "tracking with" in printed) == (0, False)
    assert _logged(tmp_path) == ["ftbench", "majority, seed 0"]
    run_tracked(tmp_path, "tensorboard", **SMALL | {"strategy": ["majority", "length_rule"]})
    assert _logged(tmp_path) == ["ftbench", "length_rule, seed 0", "majority, seed 0"], "the table is the same"
    assert Store(tmp_path / "results").all() == before, "a tracker is no part of a run's identity"


@pytest.mark.parametrize(
    ("library", "told"),
    [
        ("import os; os._exit(3)", "its process ended with exit code 3"),
        pytest.param("import time; time.sleep(999)", "no answer within 20 s", marks=pytest.mark.long),
    ],
)
def test_a_tracker_that_takes_its_process_down_is_the_one_that_is_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], library: str, told: str
) -> None:
    (tmp_path / "libraries").mkdir()
    (tmp_path / "libraries" / "mlflow.py").write_text(library)
    monkeypatch.syspath_prepend(tmp_path / "libraries")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "libraries"), str(ROOT)]))
    monkeypatch.setattr(client, "ANSWER_SECONDS", 20.0)
    code, printed = run_tracked(tmp_path, "tensorboard,mlflow", **SMALL | {"strategy": ["majority", "length_rule"]})
    printed += capsys.readouterr().out
    assert code == 0
    assert printed.count(f"tracking with mlflow has failed, and the suite goes on without it: {told}") == 1
    assert "tracking with tensorboard" not in printed
    assert _logged(tmp_path) == ["ftbench", "length_rule, seed 0", "majority, seed 0"]


@pytest.mark.parametrize("content", ["", *long("[]", '{"a": 1}')])
def test_a_damaged_list_of_what_was_logged_is_told_with_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    folder = tmp_path / "results" / "tracking" / "tensorboard"
    folder.mkdir(parents=True)
    (folder / "logged.json").write_text(content)
    code, _ = run_tracked(tmp_path, "tensorboard", **SMALL)
    assert code == 0
    told = capsys.readouterr().out
    assert "logged.json is no list of what was logged (" in told
    assert f"delete the folder {str(folder)!r}, and the same command logs all again." in told
    shutil.rmtree(folder)
    run_tracked(tmp_path, "tensorboard", **SMALL)
    assert _logged(tmp_path) == ["ftbench", "majority, seed 0"]


def test_the_end_of_a_suite_says_how_to_look_at_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_command(tmp_path, "run", "--strategy=majority", "--model=mini", "--data=synthetic", "--track=tensorboard")
    folder = tmp_path / "results" / "tracking" / "tensorboard"
    assert f"Logged to tensorboard: tensorboard --logdir {folder}\n" in capsys.readouterr().out
    page = (ROOT / "docs" / "tracking.md").read_text()
    assert all(f"`{command_that_shows(name, Path('results'))}`" in page for name in NAMES)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere")
    assert command_that_shows("mlflow", Path("results")) is None


def test_the_suite_has_figures_of_rows_that_were_run_again(tmp_path: Path) -> None:
    """Which have other ids than the runs that are asked for."""
    suite, folders = load_suite(None, SMALL, []), (tmp_path / "results", tmp_path / "cache")
    for force in (False, True):
        commands.run_suite(Console(quiet=True), suite, *folders, force)
    run_tracked(tmp_path, "tensorboard", **SMALL)
    (tmp_path / "results/tracking/tensorboard/ftbench").rename(tmp_path / "my-suite")
    assert "majority/test/accuracy" in readers.tensorboard(tmp_path)["ftbench"].figures


@pytest.mark.long
@pytest.mark.parametrize("how", ["--nproc=2", "--jobs=2"])
def test_of_several_processes_one_logs(tmp_path: Path, how: str) -> None:
    run_command(
        tmp_path, "run", "--model=mini", "--data=synthetic", "--set=data.size=60", "--epochs=1", how,
        "--strategy=last_block,majority", "--seeds=0,1", "--track=tensorboard",
    )  # fmt: skip
    assert _logged(tmp_path) == ["ftbench", "last_block, seed 0", "last_block, seed 1", "majority, seed 0"]
