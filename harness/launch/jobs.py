"""Several runs of a suite side by side on one machine: worker processes that are given runs one by one.

Each worker has a GPU of its own, or on CPUs an equal part of the cores. One that dies takes its run with it, and
another takes its place.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from harness.distributed.process_group import device_of
from harness.distributed.signals import HANDLED, StopSignals
from harness.experiment.records.record import Ending, record_of
from harness.experiment.runner import why_lost
from harness.launch.cores import part_of_cores
from harness.launch.libraries import variables
from harness.launch.queue import Queue, Unit
from harness.measure.environment import describe
from harness.measure.kernel_kills import kernel_kills
from harness.planning.plan import Plan, PlannedRun
from harness.planning.workspace import Workspace
from harness.progress.factory import observers_of_jobs
from harness.progress.observer import Observer
from harness.results.store import Store

# A worker ends its run after the next checkpoint.
STOP_SECONDS = 45.0


def launch_jobs(plan: Plan, workspace: Workspace) -> None:
    """Do every run of the plan, `plan.jobs` at a time; each leaves a record.

    A run whose worker dies gets a record that says `failed`, or `oom`.
    Raises KeyboardInterrupt where the user stopped it: every run that was under way has its record then.
    """
    stop_signals = StopSignals()
    stop_signals.listen()
    store = Store(plan.results)
    queue = Queue.of(plan, store, workspace, device_of(0).type)
    plan = plan.model_copy(update={"jobs": min(plan.jobs, len(queue))})
    with tempfile.TemporaryDirectory() as folder, observers_of_jobs(plan) as observers:
        path = Path(folder) / "plan.json"
        path.write_text(plan.model_dump_json())
        jobs = _Jobs(plan, path, store, queue, observers)
        try:
            jobs.work()
        except BaseException:
            with stop_signals.postponed():  # another signal changes nothing
                jobs.stop()
            raise


@dataclass
class _Job:
    """A worker process. unit: the runs that it was given. running: the one that it has begun and not ended."""

    number: int
    process: subprocess.Popen[bytes]
    connection: Connection
    unit: Unit = field(default_factory=list)
    running: str | None = None
    is_dismissed: bool = False
    kernel_kills_before: int = field(default_factory=kernel_kills)


class _Jobs:
    """The workers, by the connection over which each is given runs and tells what becomes of them."""

    def __init__(self, plan: Plan, path: Path, store: Store, queue: Queue, observers: list[Observer]) -> None:
        """path: of the plan's file. observers: of each job."""
        self._plan, self._path, self._store, self._queue, self._observers = plan, path, store, queue, observers
        self._numbers = {run.run_id: number for number, run in enumerate(plan.in_order(), start=1)}
        self._jobs: dict[Connection, _Job] = {}

    def work(self) -> None:
        for number in range(1, self._plan.jobs + 1):
            self._start(number)
        while self._jobs:
            for job in self._heard():
                self._give(job)

    def stop(self) -> None:
        """Let every worker write the record of its run, and end."""
        for job in self._jobs.values():
            with suppress(ProcessLookupError):
                job.process.send_signal(signal.SIGINT)
            job.is_dismissed = True
        deadline = time.monotonic() + STOP_SECONDS
        while self._jobs and (left := deadline - time.monotonic()) > 0:
            for job in self._heard(left):
                self._dismiss(job)
        for job in self._jobs.values():
            job.process.kill()
            job.process.wait()
            for run in job.unit:
                if run.run_id == job.running and not self._store.has(run.run_id):
                    self._record(job, run, Ending("interrupted", "interrupted"))

    def _start(self, number: int) -> None:
        here, there = Pipe()
        command = [sys.executable, "-m", "harness.launch.job", str(there.fileno()), str(self._path)]
        # In a new session: Ctrl-C reaches this process only, which stops the workers.
        process = subprocess.Popen(
            command,
            env=os.environ | variables() | part_of_machine(number, self._plan.jobs),
            pass_fds=(there.fileno(),),
            start_new_session=True,
            preexec_fn=_ignore_stop_signals,
        )
        there.close()
        self._jobs[here] = _Job(number, process, here)

    def _heard(self, timeout: float | None = None) -> list[_Job]:
        """Wait for the workers' news and pass it on; returns the workers that have nothing to do."""
        idle = []
        for connection in wait(list(self._jobs), timeout):
            assert isinstance(connection, Connection)
            job = self._jobs[connection]
            try:
                news = connection.recv()
            except (EOFError, OSError):
                self._ended(job)
                continue
            if news is None:
                idle.append(job)
            else:
                self._observe(job, *news)
        return idle

    def _observe(self, job: _Job, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "run_started":
            job.running = arguments[0].run_id
        elif event == "run_finished":
            job.running = None
        getattr(self._observers[job.number - 1], event)(*arguments)

    def _give(self, job: _Job) -> None:
        self._queue.ended(job.unit)
        job.unit = self._next(job)
        if not job.unit:
            self._dismiss(job)
            return
        job.kernel_kills_before = kernel_kills()
        with suppress(OSError):  # it has just died, which the connection tells next
            job.connection.send({run.run_id for run in job.unit})

    def _next(self, job: _Job) -> Unit:
        return self._queue.next(other.unit for other in self._jobs.values() if other is not job)

    def _dismiss(self, job: _Job) -> None:
        job.is_dismissed = True
        with suppress(OSError):
            job.connection.send(None)

    def _ended(self, job: _Job) -> None:
        """The process of a job is gone. The run that it had begun is lost; another worker does the rest.

        A process that dies without a run takes the next one with it: else, where none can start, this would go on for
        ever.
        """
        exit_code = job.process.wait()
        del self._jobs[job.connection]
        job.connection.close()
        if job.is_dismissed:
            return
        pending = [run for run in job.unit or self._next(job) if not self._store.has(run.run_id)]
        if pending:
            lost = next((run for run in pending if run.run_id == job.running), pending[0])
            self._record(job, lost, _ending(exit_code, job.kernel_kills_before))
            self._queue.put_back([run for run in pending if run is not lost])
        if self._queue:
            self._start(job.number)

    def _record(self, job: _Job, run: PlannedRun, ending: Ending) -> None:
        observer = self._observers[job.number - 1]
        if job.running is None:
            observer.run_started(run, self._numbers[run.run_id], len(self._plan.runs))
        environment = describe(device_of(0), self._plan.code_sha256, self._plan.jobs)
        record = record_of(run, ending, 1, environment)
        self._store.write(record)
        observer.run_finished(record)


def _ending(exit_code: int, kernel_kills_before: int) -> Ending:
    """Of a run whose process ended with this code."""
    if exit_code == -signal.SIGKILL and (ending := why_lost(kernel_kills_before)).status == "oom":
        return ending
    how = f"killed by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"exit code {exit_code}"
    return Ending("failed", f"the process of this run ended: {how}")


def part_of_machine(number: int, jobs: int) -> dict[str, str]:
    """The variables that give job `number`, from 1, its part of the cores, and where there are GPUs one of those that
    this process sees."""
    part = part_of_cores(jobs)
    if torch.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpu = visible.split(",")[number - 1].strip() if visible else str(number - 1)
        part["CUDA_VISIBLE_DEVICES"] = gpu
    return part


def _ignore_stop_signals() -> None:
    """For a worker until it listens: a signal before would end it with a traceback."""
    for number in HANDLED:
        signal.signal(number, signal.SIG_IGN)
