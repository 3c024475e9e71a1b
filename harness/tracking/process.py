"""The process in which the trackers' libraries run. Started by `harness.tracking.client`."""

from __future__ import annotations

import hashlib
import json
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from filelock import FileLock

from harness.files import write_atomically
from harness.results.store import Store
from harness.tracking.logged import LoggedRun, LoggedSuite
from harness.tracking.trackers import FOLDER, Tracker, open_tracker

LEDGER = "logged.json"


class Service:
    """Logs what has ended to trackers, each of it once: a ledger beside a tracker's store has what is logged.

    Methods return, of each of the trackers `names` that failed, the message and the traceback.
    """

    def __init__(self, results: Path, suite: str) -> None:
        self._store, self._suite, self.folder = Store(results), suite, results / FOLDER
        self._trackers: dict[str, Tracker] = {}

    def run_ended(self, names: list[str], run_id: str, name: str) -> dict[str, str]:
        """name: of the run, for people."""
        record = self._store.read(run_id)
        if record is None or record.status == "interrupted":  # the same command goes on with it
            return {}
        run = LoggedRun.of(name, record, self._store)
        return self._once(names, run_id, record.finished_at, lambda tracker: tracker.log_run(run))

    def suite_ended(self, names: list[str], run_ids: list[str]) -> dict[str, str]:
        suite = LoggedSuite.of(self._store.results, run_ids)
        content = b"".join(path.read_bytes() for path in suite.artifacts)
        version = hashlib.sha256(content).hexdigest()
        return self._once(names, f"suite {self._suite}", version, lambda tracker: tracker.log_suite(suite))

    def _once(self, names: list[str], key: str, version: str, log: Callable[[Tracker], None]) -> dict[str, str]:
        """Let each tracker that has not logged this version of `key` do so."""
        problems = {}
        for name in names:
            path = self.folder / name / LEDGER
            ledger: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            if ledger.get(key) == version:
                continue
            try:
                log(self._tracker(name))
            except Exception as problem:  # whatever a library raises is no reason for a suite to end
                message = next(iter(str(problem).strip().splitlines()), "")
                problems[name] = f"{type(problem).__name__}: {message}\n\n{traceback.format_exc()}"
                continue
            write_atomically(path, json.dumps(ledger | {key: version}, indent=1) + "\n")
        return problems

    def _tracker(self, name: str) -> Tracker:
        if name not in self._trackers:
            folder = (self.folder / name).resolve()
            folder.mkdir(parents=True, exist_ok=True)
            self._trackers[name] = open_tracker(name, self._suite, folder)
        return self._trackers[name]


def serve(connection: Connection, service: Service) -> None:
    """Until the other end is closed."""
    while True:
        try:
            event, *arguments = connection.recv()
        except EOFError:
            return
        with FileLock(service.folder / ".lock"):  # commands that share the results folder take turns
            problems = getattr(service, event)(*arguments)
        connection.send(problems)


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])), Service(Path(sys.argv[2]), sys.argv[3]))
