"""A run and its record: what is written, what is repeated, and what happens when something goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss

from harness.results.record import SCHEMA_FILE, Record, json_schema
from harness.results.store import Store
from harness.statistics import wilson_interval
from tests.support.runs import ROOT, command, curve_of, workers_of

_DIFFERS = {"run_id", "finished_at", "seconds", "memory", "throughput", "step_milliseconds", "prefix"}


def test_the_schema_in_the_repo_is_that_of_the_code() -> None:
    assert SCHEMA_FILE.read_text() == json_schema(), "python -m tools.record_reference"


def test_a_record_says_what_ran_and_follows_its_schema(run_here: Callable, tmp_path: Path) -> None:
    (record,) = run_here(strategy=["last_block"], training__epochs=2)
    path = tmp_path / "results" / "runs" / record.run_id / "record.json"
    stored = json.loads(path.read_text())
    jsonschema.validate(stored, json.loads(SCHEMA_FILE.read_text()))
    assert record.status == "ok"
    assert record.choices["weights"].startswith("auto:")
    assert record.data.sizes == {"train": 280, "validation": 40, "test": 80}
    assert record.model.trainable_parameters == 198_786
    assert record.prefix.boundary == "block.3"
    assert (record.prefix.computed_tokens > 0, record.prefix.reused_tokens) == (True, 0)
    assert record.seconds.total == pytest.approx(
        record.seconds.prepare + record.seconds.features + record.seconds.train + record.seconds.evaluate
    )
    assert set(record.memory.by_rank[0].phases) == {"prepare", "features", "train", "evaluate"}
    assert record.memory.peak_bytes >= record.memory.by_rank[0].at_start > 1e7
    files = {"runs", "events.log", "table.md", "table.tex", "summary.csv", "comparison.json"}
    assert {path.name for path in (tmp_path / "results").glob("[!.]*")} == files


def test_padding_is_never_counted_as_real(run_here: Callable) -> None:
    (packed,) = run_here(strategy=["last_block"], training__epochs=1)
    (padded,) = run_here(strategy=["last_block"], training__epochs=1, pad_to=60)
    (plain,) = run_here(strategy=["last_block"], training__epochs=1, plain=True)
    for record, share in ((packed, 1), (padded, 31 / 60), (plain, 31 / 38)):
        rates = record.throughput
        assert rates.real_tokens_per_second / rates.padded_tokens_per_second == pytest.approx(share, rel=0.05)


def test_predictions_reproduce_the_metrics(run_here: Callable, tmp_path: Path) -> None:
    (record,) = run_here(strategy=["head_only"], training__epochs=1)
    frame = pd.read_csv(tmp_path / "results" / "runs" / record.run_id / "predictions.csv")
    assert list(frame.columns) == ["index", "label", "predicted", "probability_ham", "probability_spam"]
    assert len(set(frame["index"])) == len(frame) == record.metrics.test.total
    shares = frame[["probability_ham", "probability_spam"]].to_numpy()
    assert shares.sum(axis=1) == pytest.approx(1)
    assert (frame["predicted"] == np.array(["ham", "spam"])[shares.argmax(1)]).all()
    correct = int((frame["label"] == frame["predicted"]).sum())
    assert record.metrics.test.correct == correct
    assert record.metrics.test.interval == pytest.approx(wilson_interval(correct, len(frame)))
    assert record.metrics.test.loss == pytest.approx(log_loss(frame["label"] == "spam", shares[:, 1]), abs=1e-9)


def test_the_same_seed_twice_gives_the_same_record(run_here: Callable, tmp_path: Path) -> None:
    options = {"strategy": ["last_block"], "training__epochs": 2}
    (first,) = run_here(**options)
    assert run_here(**options) == []
    (again,) = run_here(**options, force=True)
    assert first.run_id != again.run_id
    assert first.model_dump(exclude=_DIFFERS) == again.model_dump(exclude=_DIFFERS)
    files = [tmp_path / "results" / "runs" / record.run_id for record in (first, again)]
    for name in ("predictions.csv", "losses.csv"):
        assert (files[0] / name).read_bytes() == (files[1] / name).read_bytes()
    (other,) = run_here(**options, seed=[1])
    assert other.metrics.test.loss != first.metrics.test.loss


def test_the_curve_tells_how_much_of_each_batch_was_right(run_here: Callable, tmp_path: Path) -> None:
    (record,) = run_here(strategy=["last_block"], training__epochs=2, optimizer__learning_rate=1e-12)
    curve = curve_of(tmp_path / "results", record)
    assert curve["step"].tolist() == list(range(1, 71))
    last_epoch = curve["accuracy"][35:]
    assert last_epoch.mean() == pytest.approx(record.metrics.train.accuracy)  # nothing was learnt meanwhile


def test_a_finished_run_is_found_and_told(ftbench: Callable) -> None:
    arguments = ["run", "--model", "mini", "--data", "synthetic", "--epochs", "0", "--set", "data.size=50"]
    assert "not run again" not in ftbench(*arguments).stdout
    second = ftbench(*arguments)
    assert second.returncode == 0
    assert "done before, not run again (FORCE=1 does)" in second.stdout
    assert "last_block" in second.stdout.splitlines()[-1] or "last_block" in second.stdout


def test_a_readout_that_is_overridden_is_recorded_and_shown(run_here: Callable, tmp_path: Path) -> None:
    (record,) = run_here(strategy=["last_block"], readout="mean", training__epochs=0)
    assert record.readout == "mean"
    assert "last_block (mean)" in (tmp_path / "results" / "table.md").read_text()


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
    assert "the kernel killed 1 process(es) of this machine for want of memory" in greedy.error
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


def test_variables_of_a_cluster_are_no_group_that_was_asked_for(run_here: Callable, monkeypatch) -> None:
    for name, value in {"WORLD_SIZE": "4", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "nowhere"}.items():
        monkeypatch.setenv(name, value)
    (record,) = run_here(strategy=["head_only"], training__epochs=0)
    assert (record.status, record.engine.world_size) == ("ok", 1)


def _statuses(store: Store) -> dict[str, str]:
    return {record.strategy: record.status for record in store.all()}


def _start_long_suite(folder: Path, *arguments: str) -> tuple[subprocess.Popen, Path]:
    """Two long runs; returns once the first has started to train."""
    data = ["--model", "mini", "--data", "synthetic", "--set", "data.size=3000", "--epochs", "50"]
    process = subprocess.Popen(
        command(folder, "run", "--strategy", "full", "--seeds", "0,1", *data, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )
    for line in process.stdout:
        if "[1/2]" in line:
            break
    time.sleep(2)
    return process, folder / "results"


@pytest.mark.parametrize("ranks", ["1", pytest.param("2", marks=pytest.mark.long)])
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


def test_no_secret_of_the_environment_is_recorded(run_here: Callable, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    (record,) = run_here(strategy=["head_only"], training__epochs=0)
    assert isinstance(record, Record)
    assert "hf_very_secret" not in (tmp_path / "results" / "runs" / record.run_id / "record.json").read_text()
