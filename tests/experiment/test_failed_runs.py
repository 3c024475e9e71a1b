"""Runs that fail: each leaves a record, and the suite goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.results.store import Store

_FAILING = '''
"""Fails when it is built."""
from harness import Strategy


def build(backbone):
    raise RuntimeError("no such thing")


strategy = Strategy(build=build)
'''


def test_what_goes_wrong_is_a_record_and_the_suite_goes_on(run_here: Callable, tmp_path: Path) -> None:
    failing = tmp_path / "failing.py"
    failing.write_text(_FAILING)
    failed, finished = run_here(strategy=[str(failing), "head_only"], training__epochs=0)
    assert (failed.status, finished.status) == ("failed", "ok")
    assert failed.error.splitlines()[-1] == "RuntimeError: no such thing"
    assert failed.strategy_source.sha256
    assert "failed: RuntimeError: no such thing" in (tmp_path / "results" / "table.md").read_text()

    diverged, finished = run_here(
        strategy=["last_block", "first_token"], optimizer__learning_rate=1e30, training__epochs=3
    )
    assert diverged.status == finished.status == "diverged"
    assert diverged.seconds.train > 0
    losses = pd.read_csv(tmp_path / "results" / "runs" / diverged.run_id / "losses.csv")["loss"]
    assert np.isfinite(losses[:-1]).all()


def test_a_run_that_failed_runs_again(run_here: Callable, tmp_path: Path) -> None:
    path = tmp_path / "strategy.py"
    path.write_text(_FAILING)
    (failed,) = run_here(strategy=[str(path)], training__epochs=0)
    assert failed.status == "failed"
    store = Store(tmp_path / "results")
    assert run_here(strategy=[str(path)], training__epochs=0) == []
    assert store.read(failed.run_id).finished_at > failed.finished_at


@pytest.mark.long
def test_a_failure_on_several_ranks_restarts_the_group(ftbench: Callable, tmp_path: Path) -> None:
    path = tmp_path / "failing.py"
    path.write_text(_FAILING)
    arguments = ["--model", "mini", "--data", "synthetic", "--set", "data.size=50", "--epochs", "0", "--nproc", "2"]
    done = ftbench("run", "--strategy", f"{path},head_only", *arguments)
    assert done.returncode == 1
    assert _statuses(Store(tmp_path / "results")) == {"failing": "failed", "head_only": "ok"}
    assert "RuntimeError: no such thing" in done.stdout


_GREEDY = '''
"""A single process, or its second rank, takes more memory than its control group may have: the kernel kills it."""
import os
from pathlib import Path

import torch

from harness import Strategy


def build(backbone):
    if os.environ.get("RANK", "1") == "1":
        Path(os.environ["LIMITED_GROUP"], "cgroup.procs").write_text(str(os.getpid()))
        torch.ones(500_000_000)


strategy = Strategy(build=build)
'''


@pytest.fixture
def limited_group() -> Iterator[Path]:
    """A control group whose processes may take 100 MB."""
    for parent, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = Path(parent, f"ftbench-test-{os.getpid()}")
        try:
            group.mkdir()
            (group / limit).write_text("100000000")
        except OSError:
            if group.exists():
                group.rmdir()
            continue
        yield group
        group.rmdir()
        return
    pytest.skip("this machine lets nobody make a memory control group")


@pytest.mark.long
def test_a_rank_that_the_kernel_kills_for_memory_is_out_of_memory(
    ftbench: Callable, tmp_path: Path, limited_group: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIMITED_GROUP", str(limited_group))
    path = tmp_path / "greedy.py"
    path.write_text(_GREEDY)
    options = ["--model", "mini", "--data", "synthetic", "--epochs", "0", "--nproc", "2"]
    done = ftbench("run", "--strategy", f"{path},head_only", *options, "--set", "data.size=50 engine.restarts=0")
    assert done.returncode == 1
    store = Store(tmp_path / "results")
    assert _statuses(store) == {"greedy": "oom", "head_only": "ok"}
    (greedy,) = (record for record in store.all() if record.strategy == "greedy")
    assert "the kernel killed 1 process(es), out of memory" in greedy.error
    assert "oom" in (tmp_path / "results" / "table.md").read_text()


@pytest.mark.long
def test_a_process_that_the_kernel_kills_for_memory_is_found_later_and_runs_last(
    ftbench: Callable, run_cli: Callable, tmp_path: Path, limited_group: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIMITED_GROUP", str(limited_group))
    path = tmp_path / "greedy.py"
    path.write_text(_GREEDY)
    suite = ["run", "--strategy", f"{path},full", "--model", "mini", "--data", "synthetic", "--epochs", "0"]
    store = Store(tmp_path / "results")
    assert ftbench(*suite).returncode == -signal.SIGKILL
    assert store.all() == []
    assert "the kernel killed it" in run_cli("table")[1]
    assert _statuses(store) == {"greedy": "oom"}
    assert ftbench(*suite).returncode == -signal.SIGKILL
    assert _statuses(store) == {"full": "ok"}
    assert "oom" in run_cli("table")[1]
    assert _statuses(store) == {"greedy": "oom", "full": "ok"}


def _statuses(store: Store) -> dict[str, str]:
    return {record.strategy: record.status for record in store.all()}
