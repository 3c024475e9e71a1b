"""`ftbench plan`: what a person sees, and what is refused."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.runs import ROOT, command

SMALL = ("--model", "mini", "--data", "synthetic", "--set", "data.size=100")


@pytest.fixture
def plan(run_cli: Callable, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    return lambda *arguments: run_cli("plan", *arguments, *SMALL, "--cache", str(tmp_path / "cache"))


def test_it_shows_each_strategy_and_trains_nothing(plan: Callable, tmp_path: Path) -> None:
    code, out, _ = plan("--strategy", "last_block,majority", "--seeds", "0,1")
    assert code == 0
    (row,) = [line.split() for line in out.splitlines() if line.strip().startswith("last_block")]
    assert row[1:6] == ["2", "ddp", "x", "1", "198,786"]
    assert "1 baseline(s) are not predicted" in out
    assert not (tmp_path / "results").exists()


def test_what_was_timed_is_kept(plan: Callable, tmp_path: Path) -> None:
    plan("--strategy", "head_only")
    (kept,) = (tmp_path / "cache" / "calibration").glob("*.json")
    before = json.loads(kept.read_text())
    plan("--strategy", "head_only")
    assert json.loads(kept.read_text()) == before


def test_a_device_that_is_not_at_hand(plan: Callable) -> None:
    code, out, _ = plan("--strategy", "full", "--device", "h200", "--nproc", "4")
    assert code == 0
    assert "NVIDIA H200" in out
    assert "150.00 GB" in out
    assert "full: costs least with ENGINE=ddp NPROC=1" in out


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--device", "h10"], ["DEVICE='h10'", "h100, h200", "did you mean h100 or h200?"]),
        (["--device", "h200", "--precision", "fp64"], ["PRECISION=fp64", "bf16 or fp32"]),
        (["--nproc", "9"], ["NPROC=9", "at most 8"]),
        (["--strategy", "last_blok"], ["did you mean 'last_block'?"]),
    ],
)
def test_wrong_input(plan: Callable, arguments: list[str], parts: list[str]) -> None:
    code, _, told = plan(*arguments)
    assert code == 2
    assert "Traceback" not in told
    assert all(part in told for part in parts), told


@pytest.mark.long
def test_what_does_not_fit_is_foretold_and_does_not_run(tmp_path: Path) -> None:
    """Under a limit of the system on the process's memory."""
    limits = {300_000_000: 1, 2_000_000_000: 0}
    for limit, expected in limits.items():
        for what in ("plan", "run"):
            folder = tmp_path / f"{what}{limit}"
            options = ["--strategy", "full", "--model", "mini", "--data", "synthetic", "--epochs", "1"]
            options += ["--set", "data.size=400 training.batch_size=256 optimizer.schedule=constant"]
            line = ["prlimit", f"--data={limit}", *command(folder, what, *options)]
            done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == expected, done.stdout + done.stderr
