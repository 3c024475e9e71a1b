"""What several test files use: the assets, and runs in this process or in one of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from rich.console import Console

from benchmarks.processes import encoded
from harness import cli, commands
from harness.config.suite import load_suite
from harness.results.record import Record
from harness.results.store import Store

ROOT = Path(__file__).parents[1]


@pytest.fixture
def assets(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The mirror of GPT-2's vocabulary and the SMS Spam Collection; skips where there is none."""
    for folder in (os.environ.get("FTBENCH_ASSETS"), ROOT.parent / "shared" / "assets"):
        if folder and (Path(folder) / "tiktoken").is_dir():
            monkeypatch.setenv("FTBENCH_ASSETS", str(folder))
            return Path(folder)
    pytest.skip("needs GPT-2's vocabulary and the SMS Spam Collection: set FTBENCH_ASSETS")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Where runs of a test leave their records."""
    return Store(tmp_path / "results")


@pytest.fixture
def run_here(tmp_path: Path) -> Callable[..., list[Record]]:
    """Run a suite in this process: options as dotted keys; returns its records in order of strategy and seed."""

    def run(results: str = "results", force: bool = False, save: bool = False, **options: object) -> list[Record]:
        dotted = {key.replace("__", "."): value for key, value in options.items()}
        dotted = {"model.name": "mini", "data.name": "synthetic", "data.size": 400, **dotted}
        suite = load_suite(None, dotted, [])
        store = Store(tmp_path / results)
        before = {record.run_id for record in store.all()}
        commands.run_suite(Console(quiet=True), suite, tmp_path / results, tmp_path / "cache", force, save=save)
        order = [run.strategy for run in suite.runs()]
        new = [record for record in store.all() if record.run_id not in before]
        return sorted(new, key=lambda record: (order.index(record.config["strategy"]), record.seed))

    return run


@pytest.fixture
def ftbench(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command in a process of its own, with results in `tmp_path / "results"`."""

    def run(*arguments: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(tmp_path, *arguments), capture_output=True, text=True, timeout=timeout, cwd=ROOT, check=False
        )

    return run


def command(folder: Path, *arguments: str) -> list[str]:
    options = ["--results", str(folder / "results"), "--cache", str(folder / "cache")]
    return [sys.executable, "-m", "harness", *arguments, *options]


def losses_of(folder: Path, record: Record) -> list[float]:
    return curve_of(folder, record)["loss"].tolist()


def exchanged_parameters(record: Record) -> int:
    """Whose gradients ranks exchange: all trained ones of mini, but the 128 of each token that does not occur."""
    if record.strategy != "full":
        return record.model.trainable_parameters
    parts = encoded("synthetic", "mini", record.config["data"]["size"]).values()
    occurring = np.unique(np.concatenate([[0], *(part.token_ids for part in parts)]))
    return record.model.trainable_parameters - 128 * (640 - len(occurring))


def curve_of(folder: Path, record: Record) -> pd.DataFrame:
    """step, loss and accuracy of each training step."""
    return pd.read_csv(folder / "runs" / record.run_id / "losses.csv")


def predicted_by(folder: Path, record: Record) -> list[str]:
    return pd.read_csv(folder / "runs" / record.run_id / "predictions.csv")["predicted"].tolist()


def records_below(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("record.json")}


@pytest.fixture
def run_cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable:
    """The command in this process: (exit code, stdout, stderr). Results and cache lie in tmp_path."""

    def run(*arguments: str, results: Path | None = tmp_path / "results") -> tuple[int, str, str]:
        """results: None for commands that look at none."""
        monkeypatch.setattr("sys.argv", ["ftbench", *arguments, *(["--results", str(results)] if results else [])])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exited:
            cli.main()
        return exited.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture
def refused(run_cli: Callable, tmp_path: Path) -> Callable[..., str]:
    """What `ftbench run` says when it refuses `arguments`, given small defaults for all that they leave open."""

    def run(*arguments: str, model: str | None = "mini", data: str | None = "synthetic", **options: Path) -> str:
        defaults = {"--model": model, "--data": data, "--cache": str(tmp_path / "cache")}
        given = [part for name, value in defaults.items() if value for part in (name, value)]
        before = records_below(tmp_path)
        code, out, told = run_cli("run", *arguments, *given, **options)
        assert_refused(code, out, told)
        assert records_below(tmp_path) == before
        return told

    return run


def assert_refused(code: int, out: str, told: str) -> None:
    assert code == 2
    assert told.startswith("Error: ")
    assert told.count("\n") == 1, "one message, on one line"
    assert "Traceback" not in out + told
    assert out == "", "nothing is announced that will not run"


def workers_of(process: subprocess.Popen) -> list[psutil.Process]:
    """The ranks below a command that runs several."""
    return [child for child in psutil.Process(process.pid).children(recursive=True) if _is_worker(child)]


def _is_worker(process: psutil.Process) -> bool:
    try:
        arguments = process.cmdline()
    except psutil.NoSuchProcess:  # ended while it was looked at
        return False
    return "harness.launch.worker" in arguments and "torch.distributed.run" not in arguments
