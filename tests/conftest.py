"""What several test files use: the assets, and runs in this process or in one of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from harness import bench
from harness.config import load_suite
from harness.records import Record, Store

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
def run_here(tmp_path: Path) -> Callable[..., list[Record]]:
    """Run a suite in this process: options as dotted keys; returns its records in order of strategy and seed."""

    def run(results: str = "results", force: bool = False, **options: object) -> list[Record]:
        dotted = {key.replace("__", "."): value for key, value in options.items()}
        dotted = {"model.name": "mini", "data.name": "synthetic", "data.size": 400, **dotted}
        suite = load_suite(None, dotted, [])
        store = Store(tmp_path / results)
        before = {record.run_id for record in store.all()}
        bench.run_suite(Console(quiet=True), suite, tmp_path / results, tmp_path / "cache", force)
        return [record for record in store.all() if record.run_id not in before]

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
