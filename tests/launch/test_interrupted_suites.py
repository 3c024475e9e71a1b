"""Processes of a suite that are interrupted or killed: what they leave, and what goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from harness.progress.event_log import LOG
from harness.results.store import Store
from tests.support.runs import ROOT, command, workers_of


def _start_long_suite(folder: Path, *arguments: str) -> tuple[subprocess.Popen, Path]:
    """Two long runs; returns once the first has started to train."""
    data = ["--model", "mini", "--data", "synthetic", "--set", "data.size=600", "--epochs", "250"]
    process = subprocess.Popen(
        command(folder, "run", "--strategy", "full", "--seeds", "0,1", *data, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )
    log, deadline = folder / "results" / LOG, time.monotonic() + 180
    while not (log.exists() and "\tphase\ttrain" in log.read_text()):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, "no training within 3 minutes"
        time.sleep(0.02)
    return process, folder / "results"


@pytest.mark.long
@pytest.mark.parametrize("ranks", ["1", "2"])
def test_ctrl_c_leaves_a_record(tmp_path: Path, ranks: str) -> None:
    process, results = _start_long_suite(tmp_path, "--nproc", ranks)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "goes on with the runs that are missing" in output
    (record,) = Store(results).all()
    assert (record.status, record.seed) == ("interrupted", 0)


def test_a_killed_rank_ends_its_run_and_a_new_group_goes_on(tmp_path: Path) -> None:
    process, results = _start_long_suite(tmp_path, "--nproc", "2", "--set", "engine.restarts=0")
    os.kill(workers_of(process)[-1].pid, signal.SIGKILL)
    for line in process.stdout:
        if "[2/2]" in line:
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    first, second = sorted(Store(results).all(), key=lambda record: record.seed)
    assert first.status == "failed"
    assert "a rank was lost" in first.error
    assert second.status == "interrupted"
