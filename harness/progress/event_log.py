"""A log of a suite's events beside its records."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from harness.planning.plan import PlannedRun
from harness.progress.tracking import TrackingObserver, result_line
from harness.results.record import Record

LOG = "events.log"
FORMAT = "%(asctime)s\t%(run_id)s\t%(event)s\t%(message)s"


class EventLog(TrackingObserver):
    """Appends a line for each event to a file: time (UTC), run id, event and text, separated by tabs.

    Several processes may share the file: the handler appends each line with a single write.
    """

    def __init__(self, path: Path, runs: Sequence[PlannedRun], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(runs, clock)
        self._handler = logging.FileHandler(path, encoding="utf-8", delay=True)
        self._handler.setFormatter(_Formatter(FORMAT))
        # A logger of its own, not a shared one by name: nothing outlives this object.
        self._logger = logging.Logger("ftbench.events", logging.INFO)
        self._logger.addHandler(self._handler)

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handler.close()

    def run_started(self, planned: PlannedRun, number: int, total: int) -> None:
        super().run_started(planned, number, total)
        self._write("started", self.title)

    def phase(self, name: str) -> None:
        super().phase(name)
        self._write("phase", name)

    def update(self, text: str) -> None:
        self._write("progress", text)

    def warning(self, text: str) -> None:
        self._write("warning", text)

    def run_finished(self, record: Record) -> None:
        result = result_line(record)
        self._write("finished", f"{record.status}, {result}" if record.metrics else result)
        super().run_finished(record)

    def _write(self, event: str, text: str) -> None:
        one_line = " ".join(text.split())
        self._logger.info("%s", one_line, extra={"run_id": self.running.run_id, "event": event})


class _Formatter(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds")
