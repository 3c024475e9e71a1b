"""Runs of a suite side by side: the records of the serial suite, and what happens where a worker dies."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from harness import commands
from harness.config.suite import load_suite
from harness.launch.queue import Queue
from harness.measure.environment import cores
from harness.planning.plan import Plan, resolve
from harness.planning.workspace import Workspace
from harness.progress.event_log import LOG
from harness.results.record import Record
from harness.results.store import Store
from tests.support.runs import ROOT, command

SUITE = {"model.name": "mini", "data.name": "synthetic", "data.size": 60, "training.epochs": 1, "seed": [0, 1, 2]}
# What differs between two runs of the same, whatever runs beside them.
MEASURED = {"seconds", "memory", "energy", "throughput", "step_milliseconds", "finished_at", "environment"}


def _run(folder: Path, jobs: str, save: bool = False, **changes: Any) -> dict[str, Record]:
    suite, store = load_suite(None, SUITE | changes, []), Store(folder / "results")
    quiet = Console(quiet=True)
    code = commands.run_suite(quiet, suite, store.results, folder / "cache", force=False, save=save, jobs=jobs)
    assert code == 0
    return {record.run_id: record for record in store.all()}


def _assert_equal(one: dict[str, Record], other: dict[str, Record], folders: tuple[Path, Path]) -> None:
    assert one.keys() == other.keys()
    for run_id, record in one.items():
        # How much of a prefix is read depends on which run came first.
        left_out = dict.fromkeys(MEASURED, True) | {"prefix": {"computed_tokens", "reused_tokens"}}
        assert record.model_dump(exclude=left_out) == other[run_id].model_dump(exclude=left_out)
        for name in ("predictions.csv", "losses.csv"):
            files = [folder / "results" / "runs" / run_id / name for folder in folders]
            assert files[0].exists() == files[1].exists()
            assert not files[0].exists() or files[0].read_bytes() == files[1].read_bytes()


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last bits of a sum depend on the number of threads."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.usefixtures("one_thread")
@pytest.mark.skipif(cores() < 2, reason="needs two cores")
def test_two_at_a_time_leave_the_records_of_one_after_the_other(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folders = tmp_path / "serial", tmp_path / "jobs"
    strategies = {"strategy": ["head_only", "last_block", "majority"]}
    serial = _run(folders[0], "1", save=True, **strategies)
    capfd.readouterr()
    jobs = _run(folders[1], "2", save=True, **strategies)
    _assert_equal(serial, jobs, folders)
    assert {record.jobs for record in serial.values()} == {1}
    assert {record.jobs for record in jobs.values()} == {2}
    assert sum(record.joint_runs == 2 for record in jobs.values()) == 2, "trained as one, by one worker"
    out = capfd.readouterr().out
    assert {line.partition(" [")[0] for line in out.splitlines()} == {"job 1", "job 2"}
    assert all(out.count(f"[{number}/7]") >= 2 for number in range(1, 8))
    saved = [folder / "results" / "classifier" / "model.safetensors" for folder in folders]
    assert saved[0].read_bytes() == saved[1].read_bytes()
    assert not list((folders[1] / "results" / "runs").glob("*/classifier"))


@pytest.mark.long
@pytest.mark.usefixtures("one_thread")
@pytest.mark.skipif(cores() < 2, reason="needs two cores")
def test_eighteen_runs_two_at_a_time_are_those_of_one_after_the_other(tmp_path: Path) -> None:
    names = ["last_block", "head_only", "last_two_blocks", "first_token", "full", "lora"]
    changes = {"strategy": names, "data.size": 300, "training.epochs": 2}
    folders = tmp_path / "serial", tmp_path / "jobs"
    serial, jobs = _run(folders[0], "1", **changes), _run(folders[1], "2", **changes)
    assert len(serial) == 18
    _assert_equal(serial, jobs, folders)


# Workers that die, and commands that stop


def _start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    data = ["--model", "mini", "--data", "synthetic", "--set", "data.size=600", "--epochs", "250", "--jobs", "2"]
    return subprocess.Popen(
        command(folder, "run", "--strategy", "full", *data, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def _train(process: subprocess.Popen[str], results: Path, runs: int) -> None:
    """Wait until so many runs have begun to train."""
    log, deadline = results / LOG, time.monotonic() + 180
    while not (log.exists() and log.read_text().count("\tphase\ttrain") >= runs):
        assert process.poll() is None
        assert time.monotonic() < deadline, "no training within 3 minutes"
        time.sleep(0.02)


@pytest.mark.skipif(cores() < 2, reason="needs two cores")
def test_a_killed_worker_loses_its_run_alone_and_ctrl_c_stops_all(tmp_path: Path) -> None:
    process = _start(tmp_path, "--seeds", "0..3")
    results = tmp_path / "results"
    _train(process, results, 2)
    killed, other = psutil.Process(process.pid).children()
    killed.kill()
    _train(process, results, 3)
    assert other.is_running()
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "goes on with the runs that are missing" in output
    assert "Traceback" not in output
    records = Store(results).all()
    (failed,) = (record for record in records if record.status == "failed")
    assert failed.error == "the process of this run ended: killed by SIGKILL"
    neighbour, next_one = sorted((one for one in records if one is not failed), key=lambda record: record.seed)
    assert [neighbour.status, next_one.status] == ["interrupted", "interrupted"]
    assert list((results / "runs" / neighbour.run_id / "checkpoints").iterdir()), "it has trained for a while"
    assert "[3/4]" in output
    assert "[4/4]" not in output


@pytest.mark.long
@pytest.mark.skipif(cores() < 2, reason="needs two cores")
def test_workers_whose_command_is_killed_stop_after_a_checkpoint(tmp_path: Path) -> None:
    process = _start(tmp_path, "--seeds", "0,1")
    _train(process, tmp_path / "results", 2)
    workers = psutil.Process(process.pid).children()
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
    records = Store(tmp_path / "results").all()
    assert [record.status for record in records] == ["interrupted", "interrupted"]


@pytest.mark.long
def test_workers_that_can_not_start_end_the_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    suite, store = load_suite(None, SUITE | {"strategy": "last_block"}, []), Store(tmp_path / "results")
    code = commands.run_suite(Console(quiet=True), suite, store.results, tmp_path / "cache", force=False, jobs="2")
    assert code == 1
    assert {record.error for record in store.all()} == {"the process of this run ended: exit code 1"}
    assert len(store.all()) == 3


# What is given out, and when


def _plan(folder: Path, **changes: Any) -> tuple[Plan, Workspace]:
    workspace = Workspace(folder / "cache")
    return resolve(load_suite(None, SUITE | changes, []), folder / "results", workspace), workspace


def _given_out(queue: Queue) -> list[list[tuple[str, int]]]:
    units = []
    while unit := queue.next([]):
        units.append([(run.name, run.config.seed) for run in unit])
    return units


def test_the_longest_comes_first_and_what_is_trained_as_one_stays_together(tmp_path: Path) -> None:
    plan, workspace = _plan(tmp_path, strategy=["head_only", "last_block"])
    store = Store(plan.results)
    heads = [[("head_only", 0), ("head_only", 1)], [("head_only", 2)]]
    blocks = [[("last_block", seed)] for seed in range(3)]
    assert _given_out(Queue.of(plan, store, workspace, "cpu")) == [*blocks, *heads]
    seconds = [10.0 if run.name == "head_only" else 4.0 + run.config.seed for run in plan.runs]
    pairs = zip(plan.runs, seconds, strict=True)
    runs = [run.model_copy(update={"expected_seconds": expected}) for run, expected in pairs]
    plan = plan.model_copy(update={"runs": runs})
    assert _given_out(Queue.of(plan, store, workspace, "cpu")) == [*heads, *blocks[::-1]]


def test_two_jobs_do_not_wait_for_the_same_features(tmp_path: Path) -> None:
    plan, workspace = _plan(tmp_path, strategy=["last_block", "last_two_blocks", "full"])
    queue = Queue.of(plan, Store(plan.results), workspace, "cpu")
    first = queue.next([])
    second = queue.next([first])
    assert [first[0].name, second[0].name] == ["last_two_blocks", "last_block"]
    third = queue.next([first, second])
    assert third[0].name == "full", "it needs none"
    queue.ended(first)
    assert queue.next([second, third])[0].name == "last_two_blocks", "they are stored"
    queue.put_back(second)
    assert queue.next([]) == second


# Bad input


@pytest.mark.parametrize("jobs", ["0", "-1", "two", "1.5", "", "AUTO"])
def test_what_is_no_number_of_jobs_is_refused(refused: Callable[..., str], jobs: str) -> None:
    assert f"JOBS={jobs!r}: expected a whole number from 1, or auto." in refused("--strategy", "full", f"--jobs={jobs}")


@pytest.mark.parametrize("jobs", ["2", "auto"])
def test_jobs_of_several_ranks_are_refused(refused: Callable[..., str], jobs: str) -> None:
    message = f"JOBS={jobs} with runs on several ranks"
    assert message in refused("--strategy=full", "--jobs", jobs, "--nproc=2")
    hosts = ["--nnodes=2", "--rdzv=127.0.0.1:29500"]
    assert message in refused("--strategy=full", "--jobs", jobs, *hosts)


def test_more_jobs_than_cores_are_refused(refused: Callable[..., str]) -> None:
    more = cores() + 1
    assert f"JOBS={more}, but this machine has {cores()} core(s)" in refused("--strategy=full", "--jobs", str(more))


def test_jobs_in_a_group_that_is_running_are_refused(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    group = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    for name, value in (group | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}).items():
        monkeypatch.setenv(name, value)
    assert "JOBS=2 in a group of ranks that is running already" in refused("--strategy=full", "--jobs=2")
