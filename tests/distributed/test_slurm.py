"""The template for Slurm, under a real controller and two workers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from harness.results.record import Record
from harness.results.store import Store
from tests.support.runs import ROOT, command, losses_of, predicted_by
from tests.support.slurm_cluster import NODES, Cluster, NotAvailable, slurm_cluster
from tests.training.test_checkpoint import LONG

pytestmark = pytest.mark.long

SHORT = ["--model", "mini", "--data", "synthetic", "--set", "data.size=400", "--epochs", "1"]
ONE_CORE = {"OMP_NUM_THREADS": "1"}
# As long as a preemption takes to come, whatever else the machine does.
LONGER = [*LONG, "--epochs", "16"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    try:
        with slurm_cluster() as started:
            yield started
    except NotAvailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    folder = tmp_path_factory.mktemp("undisturbed")
    environment = os.environ | ONE_CORE
    subprocess.run(command(folder, "run", *LONGER), cwd=ROOT, env=environment, check=True, capture_output=True)
    (record,) = Store(folder / "results").all()
    return folder / "results", record


def _submit(cluster: Cluster, folder: Path, slurm: list[str], ftbench: list[str], **variables: str) -> str:
    """The template with this checkout's harness, on one core a task."""
    program = folder / "ftbench"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m harness "$@"\n')
    program.chmod(0o755)
    where = [f"--chdir={ROOT}", f"--output={folder}/%j.log", "--cpus-per-task=1", "--time=60"]
    return cluster.submit(
        *where,
        *slurm,
        str(ROOT / "cluster" / "slurm.sbatch"),
        *ftbench,
        f"--cache={folder / 'cache'}",
        FTBENCH=str(program),
        RESULTS=str(folder / "results"),
        **ONE_CORE,
        **variables,
    )


def _told(folder: Path) -> str:
    return "\n".join(path.read_text() for path in folder.glob("*.log"))


def test_an_array_spreads_a_suite_over_tasks(cluster: Cluster, tmp_path: Path) -> None:
    job = _submit(cluster, tmp_path, ["--array=0-5"], SHORT, STRATEGY="last_block,head_only,first_token", SEEDS="0,7")
    cluster.wait_for(job, "COMPLETED", "FAILED")
    assert cluster.states(job) == ["COMPLETED"] * 6, _told(tmp_path)
    records = Store(tmp_path / "results").all()
    expected = {(strategy, seed) for strategy in ("last_block", "head_only", "first_token") for seed in (0, 7)}
    assert {(record.strategy, record.seed) for record in records} == expected
    assert [record.status for record in records] == ["ok"] * 6
    summary = pd.read_csv(tmp_path / "results" / "summary.csv")
    assert set(summary["run_id"]) == {record.run_id for record in records}


def test_a_task_beyond_the_suite_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    job = _submit(cluster, tmp_path, ["--array=2"], SHORT, STRATEGY="last_block,head_only")
    cluster.wait_for(job, "FAILED")
    assert "submit with --array=0-1" in _told(tmp_path)


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_preempted_job_is_requeued_and_goes_on(cluster: Cluster, tmp_path: Path, undisturbed, nodes: int) -> None:
    job = _submit(cluster, tmp_path, [f"--nodes={nodes}"], LONGER)
    _wait_for_checkpoint(cluster, job, tmp_path)
    other = cluster.submit("--partition=high", f"--nodes={len(NODES)}", "--output=/dev/null", "--wrap=sleep 1")
    _assert_it_comes_back(cluster, job, tmp_path, undisturbed, nodes)
    cluster.wait_for(other, "COMPLETED")


def test_a_job_near_its_time_limit_is_requeued_and_goes_on(cluster: Cluster, tmp_path: Path, undisturbed) -> None:
    """Two ranks, so that launcher and ranks all get the signal."""
    job = _submit(cluster, tmp_path, [], LONGER, NPROC="2")
    _wait_for_checkpoint(cluster, job, tmp_path)
    cluster.signal_script(job, "USR1")
    _assert_it_comes_back(cluster, job, tmp_path, undisturbed, 2)


def test_a_job_that_fails_is_not_requeued(cluster: Cluster, tmp_path: Path) -> None:
    job = _submit(cluster, tmp_path, [], [*SHORT, "--set", "optimizer.learning_rate=1e30"])
    cluster.wait_for(job, "FAILED")
    (record,) = Store(tmp_path / "results").all()
    assert record.status == "diverged"


def _wait_for_checkpoint(cluster: Cluster, job: str, folder: Path) -> None:
    deadline = time.monotonic() + 180
    while not list((folder / "results").glob("runs/*/checkpoints/step-*.json")):
        assert time.monotonic() < deadline
        assert cluster.states(job)[0] in ("PENDING", "CONFIGURING", "RUNNING"), _told(folder)
        time.sleep(0.05)


def _assert_it_comes_back(
    cluster: Cluster, job: str, folder: Path, undisturbed: tuple[Path, Record], ranks: int
) -> None:
    cluster.wait_for(job, "PENDING", "FAILED", "COMPLETED")
    assert cluster.states(job) == ["PENDING"], _told(folder)
    (record,) = Store(folder / "results").all()
    assert record.status == "interrupted"
    cluster.start_now(job)
    cluster.wait_for(job, "FAILED", "COMPLETED")
    assert cluster.states(job) == ["COMPLETED"], _told(folder)
    (record,) = Store(folder / "results").all()
    assert (record.status, record.engine.world_size) == ("ok", ranks)
    assert record.resumed_from_step > 0
    results = folder / "results"
    assert losses_of(results, record) == pytest.approx(losses_of(*undisturbed), abs=1e-4)
    assert predicted_by(results, record) == predicted_by(*undisturbed)
