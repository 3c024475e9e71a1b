"""The process in which the trackers' libraries run. Started by `harness.tracking.client`."""

from __future__ import annotations

import hashlib
import json
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import TypeAdapter, ValidationError

from harness.config.tree import first_mistake
from harness.errors import UserError
from harness.files import write_atomically
from harness.results.store import Store
from harness.tracking.logged import LoggedRun, LoggedSuite
from harness.tracking.trackers import FOLDER, Tracker, open_tracker

LEDGER = "logged.json"


class Service:
    """Logs what has ended to a tracker, each of it once: a ledger beside the tracker's store has what is logged."""

    def __init__(self, results: Path, suite: str) -> None:
        self._store, self._suite, self.folder = Store(results), suite, results / FOLDER
        self._trackers: dict[str, Tracker] = {}

    def run_ended(self, tracker: str, run_id: str, name: str) -> None:
        """name: of the run, for people."""
        record = self._store.read(run_id)
        if record is None or record.status == "interrupted":  # the same command goes on with it
            return
        run = LoggedRun.of(name, record, self._store)
        self._once(tracker, run_id, record.finished_at, lambda opened: opened.log_run(run))

    def suite_ended(self, tracker: str, run_ids: list[str]) -> None:
        suite = LoggedSuite.of(self._store.results, run_ids)
        content = b"".join(path.read_bytes() for path in suite.artifacts)
        version = hashlib.sha256(content).hexdigest()
        self._once(tracker, f"suite {self._suite}", version, lambda opened: opened.log_suite(suite))

    def _once(self, tracker: str, key: str, version: str, log: Callable[[Tracker], None]) -> None:
        """Let the tracker log this version of `key`, unless it has done so."""
        path = self.folder / tracker / LEDGER
        ledger = _ledger(path)
        if ledger.get(key) != version:
            log(self._tracker(tracker))
            write_atomically(path, json.dumps(ledger | {key: version}, indent=1) + "\n")

    def _tracker(self, name: str) -> Tracker:
        if name not in self._trackers:
            folder = (self.folder / name).resolve()
            folder.mkdir(parents=True, exist_ok=True)
            self._trackers[name] = open_tracker(name, self._suite, folder)
        return self._trackers[name]


def _ledger(path: Path) -> dict[str, str]:
    try:
        return TypeAdapter(dict[str, str]).validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValidationError as error:
        raise UserError(
            f"{path} is no list of what was logged ({first_mistake(error)}): delete the folder {str(path.parent)!r}, "
            "and the same command logs all again."
        ) from error


def serve(connection: Connection, service: Service) -> None:
    """Until the other end is closed."""
    while True:
        try:
            event, *arguments = connection.recv()
        except EOFError:
            return
        connection.send(_problem(service, event, *arguments))


def _problem(service: Service, event: str, tracker: str, *arguments: Any) -> str | None:
    """What went wrong: the message and the traceback."""
    try:
        with FileLock(service.folder / f".{tracker}.lock"):  # commands that share the results folder take turns
            getattr(service, event)(tracker, *arguments)
    except Exception as problem:  # whatever a library raises is no reason for a suite to end
        message = next(iter(str(problem).strip().splitlines()), "")
        return f"{type(problem).__name__}: {message}\n\n{traceback.format_exc()}"
    return None


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])), Service(Path(sys.argv[2]), sys.argv[3]))
