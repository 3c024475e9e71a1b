"""What several test files use: the assets, and runs in this process or in one of their own."""

from __future__ import annotations

import gc
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from rich.console import Console
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from harness import cli, commands
from harness.config.suite import load_suite
from harness.launch.libraries import CUBLAS_WORKSPACE
from harness.results.record import Record
from harness.results.store import Store
from tests.support.runs import (
    ROOT,
    assert_refused,
    command,
    find_assets,
    records_below,
)

# Files whose tests start groups of processes, or measure one: they would keep each other waiting.
ONE_AT_A_TIME = (
    "tests/launch/",
    "tests/features/test_concurrent_runs.py",
    "tests/training/test_checkpoint.py",
    "tests/training/test_engines.py",
    "tests/training/test_ranks.py",
)


class _Scheduling(LoadFileScheduling):
    """A worker of pytest-xdist does all tests of a file, for the file's fixtures; one of them does ONE_AT_A_TIME.

    By file, not by mark: xdist 3.8 does not see the groups that are marked under pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        return "one at a time" if nodeid.startswith(ONE_AT_A_TIME) else super()._split_scope(nodeid)


# Neither a slow machine nor chance decides whether the tests pass.
settings.register_profile("any machine", deadline=None, derandomize=True)
settings.load_profile("any machine")


def pytest_configure() -> None:
    """As the command does: tests that run in this process may multiply on a GPU, deterministically."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    return _Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """ONE_AT_A_TIME first, as they take longest."""
    items.sort(key=lambda item: not item.nodeid.startswith(ONE_AT_A_TIME))


def pytest_collection_finish() -> None:
    """Every run collects garbage, among which objects of imported modules are not."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def assets(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The mirror of GPT-2's vocabulary and the SMS Spam Collection; skips where there is none."""
    folder = find_assets()
    if folder is None:
        pytest.skip("needs GPT-2's vocabulary and the SMS Spam Collection: set FTBENCH_ASSETS")
    monkeypatch.setenv("FTBENCH_ASSETS", str(folder))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Where runs of a test leave their records."""
    return Store(tmp_path / "results")


@pytest.fixture
def run_here(tmp_path: Path) -> Callable[..., list[Record]]:
    """Run a suite in this process: options as dotted keys; returns its records in order of strategy and seed."""

    def run(results: str = "results", force: bool = False, save: bool = False, **options: object) -> list[Record]:
        dotted = {key.replace("__", "."): value for key, value in options.items()}
        dotted = {"model.name": "mini", "data.name": "synthetic", "data.size": 100, **dotted}
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
