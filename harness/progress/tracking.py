"""The state of the run that is under way, for observers that show it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from harness.planning.plan import PlannedRun
from harness.progress.observer import Observer
from harness.progress.remaining import Remaining
from harness.results.record import Record

UPDATE_SECONDS = 15.0


class TrackingObserver(Observer):
    """Keeps the state of the run that is under way, and calls `update` every UPDATE_SECONDS of its training.

    runs: those that are still to be done. clock: seconds from any origin. job: whose runs it sees, where several do the
    suite side by side.
    """

    def __init__(
        self, runs: Sequence[PlannedRun], clock: Callable[[], float] = time.monotonic, job: int | None = None
    ) -> None:
        self._job = f"job {job} " if job else ""
        expected = {run.title: run.expected_seconds for run in runs if run.expected_seconds is not None}
        self.remaining = Remaining([run.title for run in runs], expected)
        self.clock = clock
        self.planned: PlannedRun | None = None
        self.title, self.phase_name = "", ""
        self._reset(0.0)

    @property
    def running(self) -> PlannedRun:
        assert self.planned is not None, "no run is under way"
        return self.planned

    def run_started(self, planned: PlannedRun, number: int, total: int) -> None:
        now = self.clock()
        self.title, self.phase_name = f"{self._job}[{number}/{total}] {planned.title}, seed {planned.config.seed}", ""
        self._reset(now)
        self.remaining.run_started(planned.title, planned.training.epochs, now)
        self.planned = planned

    def phase(self, name: str) -> None:
        now = self.clock()
        self.phase_name = name
        self._reset(now)
        self.remaining.phase_started(name, now)

    def _reset(self, now: float) -> None:
        self.done, self.steps = 0, None
        self.measured: list[str] = []
        self._last_update = now

    def progress(self, done: int, total: int, loss: float, accuracy: float) -> None:
        now = self.clock()
        self.remaining.progress(done, total, now)
        self.done, self.steps = done, total
        rate = self.remaining.steps_per_second()
        batch_size = self.running.config.training.batch_size
        self.measured = [
            f"loss {loss:.3f}",
            f"accuracy {accuracy:.0%}",
            *([f"{rate * batch_size:,.0f} examples/s"] if rate else []),
        ]
        if now - self._last_update >= UPDATE_SECONDS:
            self._last_update = now
            self.update(", ".join([f"step {done} of {total}", *self.measured, *self._time_left(now)]))

    def _time_left(self, now: float) -> list[str]:
        left = self.remaining.of_run(now)
        return [] if left is None else [f"about {left:.0f} s left"]

    def update(self, text: str) -> None:
        """text: how far the run has come, what was measured and the time left."""

    def run_finished(self, record: Record) -> None:
        self.remaining.run_finished(record.status == "ok", self.clock())
        self.planned = None


def result_line(record: Record) -> str:
    """A run's test accuracy and time, or the reason why it did not end well."""
    if record.metrics is None:
        return f"{record.status}: {record.reason}"
    test = record.metrics.test
    return f"test {100 * test.accuracy:.2f}% ({test.correct} of {test.total}), {record.seconds.total:.1f} s"
