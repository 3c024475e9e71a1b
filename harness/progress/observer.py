"""What a suite reports while it runs, and to whom."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from harness.planning.plan import PlannedRun
from harness.results.record import Record


class Observer:
    """Is called on every event of a suite's runs, and ignores them all. Enter it around the suite."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def run_started(self, planned: PlannedRun, number: int, total: int) -> None:
        """number: from 1 to `total`, the runs of the suite, including those that were done before."""

    def phase(self, name: str) -> None:
        """The run has entered a phase: prepare, features, train or evaluate."""

    def progress(self, done: int, total: int, loss: float, accuracy: float) -> None:
        """done: of `total` training steps. loss: of the last step, in nats. accuracy: over the last steps, 0 to 1."""

    def warning(self, text: str) -> None: ...

    def run_finished(self, record: Record) -> None:
        """The run has ended, well or not, as its record says."""


class Observers(Observer):
    """Passes every event on to each of `observers`."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers
        self._entered = ExitStack()

    def __enter__(self) -> Self:
        for observer in self._observers:
            self._entered.enter_context(observer)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered.close()

    def run_started(self, planned: PlannedRun, number: int, total: int) -> None:
        for observer in self._observers:
            observer.run_started(planned, number, total)

    def phase(self, name: str) -> None:
        for observer in self._observers:
            observer.phase(name)

    def progress(self, done: int, total: int, loss: float, accuracy: float) -> None:
        for observer in self._observers:
            observer.progress(done, total, loss, accuracy)

    def warning(self, text: str) -> None:
        for observer in self._observers:
            observer.warning(text)

    def run_finished(self, record: Record) -> None:
        for observer in self._observers:
            observer.run_finished(record)
