"""How soon commands that only show something answer, beside an interpreter that does nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from harness import commands
from harness.config.suite import load_suite

ROOT = Path(__file__).parents[1]
# In each the first of all starts reads the files of libraries from the disk; the median leaves it out.
ROUNDS = 5
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "ftbench --help": ["-m", "harness", "--help"],
    "ftbench list": ["-m", "harness", "list"],
    "ftbench table": ["-m", "harness", "table", "--results"],
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of three strategies and a baseline with two seeds each."""
    folder = tmp_path_factory.mktemp("results")
    asked = {"strategy": ["head_only", "last_block", "mean_pool", "majority"], "seed": [0, 1]}
    suite = load_suite(None, asked | {"model.name": "mini", "data.name": "synthetic", "training.epochs": 1}, [])
    commands.run_suite(Console(quiet=True), suite, folder, folder, force=False)
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_start_up(benchmark, results: Path, command: str) -> None:
    line = [sys.executable, *COMMANDS[command], *([str(results)] if command == "ftbench table" else [])]
    seconds: list[float] = []

    def run() -> None:
        started = time.perf_counter()
        subprocess.run(line, cwd=ROOT, capture_output=True, check=True)
        seconds.append(time.perf_counter() - started)

    benchmark.pedantic(run, rounds=ROUNDS)
    benchmark.extra_info |= {"command": command, "start_up_seconds": seconds}
