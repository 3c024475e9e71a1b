"""`ftbench plan`: what a person sees, and what is refused."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.prediction.work.walker import RunWalker
from harness.results.store import Store
from tests.support.hub_models import save_small, write_texts
from tests.support.runs import ROOT, command


def test_it_shows_each_strategy_and_trains_nothing(plan: Callable, tmp_path: Path) -> None:
    code, out, _ = plan("--strategy", "last_block,majority", "--seeds", "0,1")
    assert code == 0
    (row,) = [line.split() for line in out.splitlines() if line.strip().startswith("last_block")]
    assert row[1:6] == ["2", "ddp", "x", "1", "198,786"]
    assert "1 baseline(s) are not predicted" in out
    assert not (tmp_path / "results").exists()


def _rows(out: str) -> list[list[str]]:
    """The words of each, but for the memory of a rank, which counts what this process holds."""
    rows = [line.split() for line in out.splitlines() if line.strip().startswith(("last_block", "head_only"))]
    assert len(rows) >= 2
    assert all(row[7] == "GB" for row in rows)
    return [[*row[:6], *row[8:]] for row in rows]


OPTIONS = ("--strategy", "last_block,head_only", "--seeds", "0,1")


def test_the_second_answer_is_the_first_and_walks_through_nothing(
    plan: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (*OPTIONS, "--device", "h100")
    first = _rows(plan(*options)[1])
    monkeypatch.setattr(RunWalker, "work", lambda *_: pytest.fail("walked again"))
    assert _rows(plan(*options)[1]) == first


def test_what_was_timed_is_kept_and_timed_again_where_it_is_gone(
    plan: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = _rows(plan(*OPTIONS)[1])
    (times,) = (tmp_path / "cache" / "calibration").glob("*.json")
    before = json.loads(times.read_text())
    with monkeypatch.context() as patch:
        patch.setattr(RunWalker, "work", lambda *_: pytest.fail("walked again"))
        assert _rows(plan(*OPTIONS)[1]) == first
    assert json.loads(times.read_text()) == before
    times.unlink()
    code, _, _ = plan(*OPTIONS)
    assert (code, times.exists()) == (0, True)


def test_a_device_that_is_not_at_hand(plan: Callable) -> None:
    code, out, _ = plan("--strategy", "full", "--device", "h200", "--nproc", "4")
    assert code == 0
    assert "NVIDIA H200" in out
    assert "150.00 GB" in out
    assert "full: costs least with ENGINE=ddp NPROC=1" in out


def test_machines_and_gpus_that_are_not_there_are_planned(plan: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    code, out, _ = plan("--strategy", "full", "--device", "h100", "--nproc", "4", "--nnodes", "2")
    assert code == 0
    assert " ddp x 8 " in out


def test_several_machines_like_this_one(plan: Callable) -> None:
    code, out, _ = plan("--strategy", "head_only", "--nnodes", "2")
    assert code == 0
    assert " ddp x 2 " in out


def test_jobs_change_nothing_and_that_is_said(plan: Callable) -> None:
    code, out, _ = plan("--strategy", "head_only", "--device", "h100", "--jobs", "2")
    assert code == 0
    assert "JOBS=2 is not considered" in out


def test_precision_is_chosen_by_the_device(plan: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", dict)
    model = f"hf:{save_small(tmp_path / 'llama', 'llama')}"
    texts = str(write_texts(tmp_path / "texts.csv", shortest=2, longest=9))
    options = ("--strategy", "head_only", "--model", model, "--data", texts)
    for device, chosen in (("--device=h100", "bf16  (auto: NVIDIA H100 80GB HBM3 has it)"), ("", "fp32  (auto: ")):
        code, out, _ = plan(*options, *filter(None, [device]))
        assert code == 0
        assert f"precision  {chosen}" in out


def test_costs_are_shown_where_a_price_is_given(plan: Callable) -> None:
    options = ("--strategy", "full", "--device", "h100", "--nproc", "2")
    without, cheap, dear = (plan(*options, *price)[1] for price in ([], ["--price=3600/h"], ["--price=7200/h"]))
    titles = [next(line for line in out.splitlines() if "strategy" in line).split() for out in (without, cheap)]
    assert titles[1] == [*titles[0], "cost"]
    costs = []
    for out in (cheap, dear):
        (row,) = [line.split() for line in out.splitlines() if line.strip().startswith("full ")]
        costs.append(float(row[-1]))
    assert 0 < costs[0] == pytest.approx(costs[1] / 2, rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--device", "h10"], ["DEVICE='h10'", "h100, h200", "did you mean 'h100'?"]),
        (["--device", "h200", "--precision", "fp64"], ["PRECISION=fp64", "bf16 or fp32"]),
        (["--nproc", "9"], ["NPROC=9", "at most 8"]),
        (["--jobs", "banana"], ["JOBS='banana'", "expected a whole number from 1, or auto"]),
        (["--jobs", "2", "--nproc", "2"], ["JOBS=2 with runs on several ranks"]),
        (["--strategy", "last_blok"], ["did you mean 'last_block'?"]),
    ],
)
def test_wrong_input(plan: Callable, arguments: list[str], parts: list[str]) -> None:
    code, _, told = plan(*arguments)
    assert code == 2
    assert "Traceback" not in told
    assert all(part in told for part in parts), told


def test_baselines_alone_leave_nothing_to_predict(plan: Callable) -> None:
    code, out, _ = plan("--strategy", "majority,tfidf")
    assert code == 0
    assert "2 baseline(s) are not predicted" in out
    assert "In all" not in out


def _names(out: str) -> list[str]:
    """Of the rows of the table."""
    return [
        line.partition(" ddp ")[0].rstrip().removesuffix(" 2").strip()
        for line in out.splitlines()
        if " ddp x 1 " in line
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--sizes", "32,all"], ["head_only (32 texts)", "head_only (all texts)"]),
        (["--layers", "0,3"], ["head_only (layer 0)", "head_only (layer 3)"]),
        (["--data", "negation,synthetic"], ["head_only (negation)", "head_only (synthetic)"]),
        (["--readout", "first"], ["head_only (first)"]),
    ],
)
def test_runs_that_differ_in_more_than_their_seed_have_rows_of_their_own(
    plan: Callable, options: list[str], expected: list[str]
) -> None:
    _, out, _ = plan("--strategy", "head_only", "--seeds", "0,1", "--device", "h100", *options)
    assert sorted(_names(out)) == expected


@pytest.mark.long
@pytest.mark.parametrize("limit", [1_200_000_000, 6_000_000_000])
@pytest.mark.parametrize(
    ("strategy", "batch"),
    [("full", 8), ("full", 32), ("layer_decay", 8), ("lora", 64), ("dora", 32), ("layer_decay", 32)],
)
def test_what_does_not_fit_is_foretold(assets: Path, tmp_path: Path, strategy: str, batch: int, limit: int) -> None:
    """Under the system's limit on the memory of a process: the prediction's verdict is what becomes of the run."""
    options = ["--strategy", strategy, "--model", "gpt2", "--weights", "random", "--data", "synthetic", "--epochs", "1"]
    options += ["--precision", "fp32", "--set", f"data.size=100 training.batch_size={batch}"]
    ended = []
    for what in ("plan", "run"):
        line = ["prlimit", f"--data={limit}", *command(tmp_path, what, *options)]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        ended.append(done.returncode)
    (record,) = Store(tmp_path / "results").all()
    expected = ("ok", [0, 0]) if limit > 2e9 else ("oom", [1, 1])
    assert (record.status, ended) == expected
