"""Features of runs in other processes: shared, or left half written."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from harness.results.store import Store
from tests.support.runs import ROOT, command, run_command

RUN = ["run", "--strategy", "last_block", "--model", "mini", "--data", "synthetic", "--epochs", "1"]
RUN += ["--set", "data.size=1000"]


def _command(tmp_path: Path, results: str, *more: str) -> list[str]:
    line = command(tmp_path, *RUN, *more)
    line[line.index("--results") + 1] = str(tmp_path / results)
    return line


def test_two_runs_that_want_the_same_features_at_once_share_them(tmp_path: Path) -> None:
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(_command(tmp_path, f"results{n}"), cwd=ROOT, stdout=subprocess.DEVNULL, env=one_thread)
        for n in (1, 2)
    ]
    assert [process.wait(timeout=300) for process in running] == [0, 0]
    (one,), (two,) = (Store(tmp_path / f"results{n}").all() for n in (1, 2))
    assert sorted([one.prefix.computed_tokens, two.prefix.computed_tokens])[0] == 0
    assert one.metrics == two.metrics
    assert len(list((tmp_path / "cache" / "features").glob("*.features"))) == 1


@pytest.mark.long
def test_a_run_that_dies_half_way_leaves_nothing_that_is_read_as_whole(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "features"
    slow = ["--set", "data.size=4000"]
    process = subprocess.Popen(_command(tmp_path, "results", *slow), cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 180
    while not list(folder.glob("*.partial")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(folder.glob("*.features")) == []
    (tmp_path / "results").rename(tmp_path / "of the killed run")
    run_command(tmp_path, *RUN, *slow, "--set", "training.epochs=0")
    (record,) = Store(tmp_path / "results").all()
    assert record.prefix.computed_tokens > 0
    assert list(folder.glob("*.partial")) == []


@pytest.mark.long
def test_ranks_share_the_work_and_the_file(tmp_path: Path) -> None:
    results = {}
    for ranks in ("1", "2"):
        line = _command(tmp_path, f"results{ranks}", "--nproc", ranks)
        line[line.index("--cache") + 1] = str(tmp_path / f"cache{ranks}")
        subprocess.run(line, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        (path,) = (tmp_path / f"cache{ranks}" / "features").glob("*.features")
        results[ranks] = (path.name, path.read_bytes())
        (record,) = Store(tmp_path / f"results{ranks}").all()
        assert record.prefix.computed_tokens > 0
    assert results["1"] == results["2"], "the bits do not depend on the number of ranks"
