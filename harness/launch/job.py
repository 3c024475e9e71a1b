"""One of several workers that do the runs of a suite side by side. Started by `harness.launch.jobs`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Set
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from harness.distributed.process_group import leave, single_process
from harness.launch.worker import runner_for
from harness.planning.plan import Plan, PlannedRun
from harness.planning.workspace import Workspace
from harness.progress.observer import Observer
from harness.results.record import Record


class _Forwarder(Observer):
    """Sends every event as its name and arguments."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def run_started(self, planned: PlannedRun, number: int, total: int) -> None:
        self._send("run_started", planned, number, total)

    def phase(self, name: str) -> None:
        self._send("phase", name)

    def progress(self, done: int, total: int, loss: float, accuracy: float) -> None:
        self._send("progress", done, total, loss, accuracy)

    def warning(self, text: str) -> None:
        self._send("warning", text)

    def run_finished(self, record: Record) -> None:
        self._send("run_finished", record)

    def _send(self, event: str, *arguments: Any) -> None:
        try:
            self._connection.send((event, arguments))
        except OSError:  # the command is gone: as if it had asked to stop, after the next checkpoint
            os.kill(os.getpid(), signal.SIGINT)


def serve(connection: Connection, plan: Plan, workspace: Workspace) -> None:
    """Ask for runs, by sending None, and do them until None comes back.

    Raises KeyboardInterrupt where a signal asks to stop.
    """
    runner = runner_for(plan, single_process(), _Forwarder(connection), workspace)
    while (run_ids := _asked_for(connection)) is not None:
        runner.execute(run_ids)


def _asked_for(connection: Connection) -> Set[str] | None:
    try:
        connection.send(None)
        return connection.recv()
    except (EOFError, OSError) as gone:
        raise KeyboardInterrupt from gone


if __name__ == "__main__":
    try:
        plan = Plan.model_validate_json(Path(sys.argv[2]).read_bytes())
        serve(Connection(int(sys.argv[1])), plan, Workspace(plan.cache, plan.features))
    except KeyboardInterrupt:
        leave(1)  # the record has the reason
    leave(0)
