"""What is known of a suite that is under way, for those who tell it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from harness.planning.plan import PlannedRun
from harness.progress.remaining import Remaining
from harness.results.record import Record

LINE_SECONDS = 15.0


class Silent:
    """Is told what happens to each run, and says nothing. Open it around the suite."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def run_started(self, planned: PlannedRun, number: int, total: int) -> None: ...

    def phase(self, name: str) -> None: ...

    def progress(self, done: int, total: int, loss: float, accuracy: float) -> None:
        """done: of `total` training steps. loss: of the last step. accuracy: of the last steps, as a share of 1."""

    def warning(self, text: str) -> None: ...

    def run_finished(self, record: Record) -> None: ...


class Watching(Silent):
    """Knows how the run that is under way stands, and calls `still_going` every few seconds of its training.

    runs: those that are still to be done. clock: seconds from any beginning.
    """

    def __init__(self, runs: Sequence[PlannedRun], clock: Callable[[], float] = time.monotonic) -> None:
        self.remaining = Remaining([run.title for run in runs])
        self.clock = clock
        self.planned: PlannedRun | None = None

    def run_started(self, planned: PlannedRun, number: int, total: int) -> None:
        self.title = f"[{number}/{total}] {planned.title}, seed {planned.config.seed}"
        self.phase_name = ""
        self._reset(self.clock())
        self.remaining.run_started(planned.title, planned.config.training.epochs, self.clock())
        self.planned = planned

    def phase(self, name: str) -> None:
        self.phase_name = name
        self._reset(self.clock())
        self.remaining.phase_started(name, self.clock())

    def _reset(self, now: float) -> None:
        self.done, self.steps, self.measured, self._last_told = 0, None, [], now

    def progress(self, done: int, total: int, loss: float, accuracy: float) -> None:
        now = self.clock()
        self.remaining.progress(done, total, now)
        self.done, self.steps = done, total
        rate = self.remaining.steps_per_second()
        self.measured = [
            f"loss {loss:.3f}",
            f"accuracy {accuracy:.0%}",
            *([f"{rate * self.planned.config.training.batch_size:,.0f} examples/s"] if rate else []),
        ]
        if now - self._last_told >= LINE_SECONDS:
            self._last_told = now
            self.still_going(", ".join([f"step {done} of {total}", *self.measured, *self._left(now)]))

    def _left(self, now: float) -> list[str]:
        left = self.remaining.of_run(now)
        return [] if left is None else [f"about {left:.0f} s left"]

    def still_going(self, text: str) -> None: ...

    def run_finished(self, record: Record) -> None:
        self.remaining.run_finished(record.status == "ok", self.clock())
        self.planned = None


def ending(record: Record) -> str:
    if record.metrics is None:
        return f"{record.status}: {record.reason}"
    test = record.metrics.test
    return f"test {100 * test.accuracy:.2f}% ({test.correct} of {test.total}), {record.seconds.total:.1f} s"
