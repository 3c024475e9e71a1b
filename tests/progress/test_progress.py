"""What is told of a suite while it runs: lines, the live view, the log. (`test_remaining.py`: the time left.)"""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
import torch
from rich.console import Console

from harness.config.suite import load_suite
from harness.planning.plan import Plan, resolve
from harness.planning.workspace import Workspace
from harness.progress.event_log import LOG, EventLog
from harness.progress.live import Live, duration
from harness.progress.plain import PlainLines
from harness.progress.tracking import TrackingObserver
from tests.support.runs import ROOT, command


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    options = {"model.name": "mini", "data.name": "synthetic", "data.size": 300, "strategy": "last_block"}
    return resolve(load_suite(None, {**options, "seed": [0, 1]}, []), tmp_path, Workspace(tmp_path / "cache"))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def _train(observer: TrackingObserver, clock: Clock, plan: Plan, seconds: float) -> None:
    """Half of a run's 100 steps of 8 texts, `seconds` each."""
    observer.run_started(plan.runs[0], 1, 2)
    for name in ("prepare", "features", "train"):
        observer.phase(name)
    for done in range(5, 55, 5):
        clock.now += 5 * seconds
        observer.progress(done, 100, 0.6931, 0.875)


def test_plain_lines_tell_how_fast_and_how_long_every_few_seconds(plan: Plan) -> None:
    clock, console = Clock(), Console(file=io.StringIO(), width=80)
    _train(PlainLines(console, plan.runs, clock), clock, plan, seconds=1)
    started, *going = console.file.getvalue().splitlines()
    assert started == "[1/2] last_block, seed 0: started"
    assert [re.search(r"step (\d+) of 100", line)[1] for line in going] == ["15", "30", "45"]
    assert going[0].endswith("loss 0.693, accuracy 88%, 8 examples/s, about 93 s left")  # 85 steps, 0.4 of 20 steps


@pytest.mark.parametrize("width", [40, 80, 160])
def test_the_live_view_is_two_lines_at_any_width(plan: Plan, width: int) -> None:
    clock, console = Clock(), Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    view = Live(console, plan.runs, 3, torch.device("cpu"), clock)
    _train(view.observers[0], clock, plan, seconds=1)
    with console.capture() as captured:
        console.print(view.lines())
    run, suite = captured.get().splitlines()
    assert max(len(run), len(suite)) <= width
    assert run.startswith("[1/2] last_block, s")
    assert "0:58 left" in run
    assert suite.startswith("suite")
    assert "1 of 3 done" in suite
    if width >= 80:
        assert "1 of 3 done, 2:46 left" in suite
        assert "step 50/100" in run
    if width == 160:
        for fact in ("loss 0.693", "accuracy 88%", "8 examples/s", "MB", ": train"):
            assert fact in run


def test_the_live_view_has_a_line_for_each_job(plan: Plan) -> None:
    clock, console = Clock(), Console(file=io.StringIO(), width=160, force_terminal=True, color_system=None)
    view = Live(console, plan.runs, 2, torch.device("cpu"), clock, jobs=2)
    first, second = view.observers
    _train(first, clock, plan, seconds=1)
    second.run_started(plan.runs[1], 2, 2)
    second.phase("prepare")
    with console.capture() as captured:
        console.print(view.lines())
    one, other, suite = captured.get().splitlines()
    assert one.startswith("job 1 [1/2] last_block, seed 0: train")
    assert "step 50/100" in one
    assert other.startswith("job 2 [2/2] last_block, seed 1: prepare")
    assert "0 of 2 done" in suite
    assert "MB" not in one, "the memory of another process"


def test_the_log_has_a_line_for_each_event(run_here: Callable, tmp_path: Path) -> None:
    good = run_here(strategy=["head_only", "tfidf"], training__epochs=1)
    (bad,) = run_here(strategy=["full"], training__epochs=1, optimizer__learning_rate=1e30)
    lines = [line.split("\t") for line in (tmp_path / "results" / LOG).read_text().splitlines()]
    assert all(len(line) == 4 for line in lines)
    times = [datetime.fromisoformat(line[0]) for line in lines]
    assert times == sorted(times)
    for record in [*good, bad]:
        _, events, texts = zip(*[line[1:] for line in lines if line[1] == record.run_id], strict=True)
        assert events == ("started", *["phase"] * (len(events) - 2), "finished")
        assert list(texts[1:-1]) == [name for name in ("prepare", "features", "train", "evaluate") if name in texts]
        assert texts[-1].startswith(f"{record.status}")
        if record.metrics:
            assert f"ok, test {100 * record.metrics.test.accuracy:.2f}%" in texts[-1]
    assert "diverged: the loss of step" in texts[-1]


def test_the_log_tells_of_a_long_training_and_keeps_to_its_lines(plan: Plan, tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / LOG
    log = EventLog(path, plan.runs, clock)
    _train(log, clock, plan, seconds=1)
    log.warning("one\n\ttwo")
    events = [line.split("\t")[2:] for line in path.read_text().splitlines()]
    assert [event for event, _ in events] == ["started", *["phase"] * 3, *["progress"] * 3, "warning"]
    assert events[4][1].startswith("step 15 of 100, loss 0.693, accuracy 88%, 8 examples/s")
    assert events[-1][1] == "one two"


SMALL = ("--model", "mini", "--data", "synthetic", "--set", "data.size=300", "--epochs", "1", "--strategy", "head_only")


def test_quiet_prints_the_table_and_nothing_else(run_cli: Callable, tmp_path: Path) -> None:
    cache = ("--cache", str(tmp_path / "cache"))
    code, out, told = run_cli("run", *SMALL, *cache, "--seeds", "0,1", "--quiet")
    assert (code, told) == (0, "")
    assert out.startswith("mini, pretrained weights")
    assert out.rstrip().splitlines()[-1].startswith("  "), "the table's notes come last"
    assert "started" not in out
    assert "finished" in (tmp_path / "results" / LOG).read_text()
    wrong = ("--set", "optimizer.learning_rate=1e30", "--strategy", "full")
    code, out, _ = run_cli("run", *SMALL, *cache, *wrong, "--quiet")
    assert code == 1
    assert "diverged: the loss of step" in out


def test_in_a_terminal_two_lines_are_redrawn_and_one_stays_for_each_run(tmp_path: Path) -> None:
    code, shown = _in_terminal(command(tmp_path, "run", *SMALL[:-1], "head_only,last_block", "--seeds", "0,1"))
    assert code == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert re.search(r"\[1/4\] last_block, seed 0: \w+ ", plain)
    assert "3 of 4 done" in plain
    for number in range(1, 5):
        assert re.search(rf"\[{number}/4\] \w+, seed \d: test [\d.]+%", plain)
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l"), "the cursor is shown again"


def _in_terminal(arguments: list[str]) -> tuple[int, str]:
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    process = subprocess.Popen(arguments, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, env=environment)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # how Linux tells that nobody holds the other end
            break
        if not part:
            break
        shown += part
    os.close(ours)
    return process.wait(60), shown.decode()


@pytest.mark.long
def test_one_of_several_ranks_tells_and_quiet_reaches_it(ftbench: Callable, tmp_path: Path) -> None:
    loud = ftbench("run", *SMALL, "--nproc", "2")
    assert loud.stdout.count("started") == 1
    quiet = ftbench("run", *SMALL, "--nproc", "2", "--quiet", "--force")
    assert (quiet.returncode, "started" in quiet.stdout) == (0, False)
    log = (tmp_path / "results" / LOG).read_text()
    assert (log.count("\tstarted\t"), log.count("\tfinished\tok")) == (2, 2)


def test_durations_are_written_as_clocks_do() -> None:
    assert [duration(seconds) for seconds in (None, 0.4, 59.7, 3599, 3723)] == [
        "-:--",
        "0:00",
        "1:00",
        "59:59",
        "1:02:03",
    ]
