"""Who watches a suite: a live view in a terminal, plain lines where there is none, a log beside the records; nobody on
the other ranks."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape

from harness.distributed.process_group import World
from harness.planning.plan import Plan, PlannedRun
from harness.progress.live import Live
from harness.progress.watching import Silent, Watching, ending
from harness.results.record import Record
from harness.results.store import Store

LOG = "events.log"


class Lines(Watching):
    """A line when a run starts and ends, and one in between every few seconds."""

    def __init__(
        self, console: Console, runs: Sequence[PlannedRun], clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(runs, clock)
        self.console = console

    def run_started(self, planned: PlannedRun, number: int, total: int) -> None:
        super().run_started(planned, number, total)
        self.still_going("started")

    def still_going(self, text: str) -> None:
        self.console.print(escape(f"{self.title}: {text}"), highlight=False, soft_wrap=True)

    def warning(self, text: str) -> None:
        self.still_going(text)

    def run_finished(self, record: Record) -> None:
        super().run_finished(record)
        self.still_going(ending(record))


class Warnings(Silent):
    """What goes wrong, and nothing else."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def run_started(self, planned: PlannedRun, number: int, total: int) -> None:
        self.run_id = planned.run_id

    def warning(self, text: str) -> None:
        self.console.print(f"[yellow]{escape(f'{self.run_id}: {text}')}[/]", highlight=False, soft_wrap=True)


class EventLog(Watching):
    """A line for each event at the end of a file: time, run id, event and what there is to say, with tabs between."""

    def __init__(self, path: Path, runs: Sequence[PlannedRun], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(runs, clock)
        self.path = path

    def run_started(self, planned: PlannedRun, number: int, total: int) -> None:
        super().run_started(planned, number, total)
        self._write("started", self.title)

    def phase(self, name: str) -> None:
        super().phase(name)
        self._write("phase", name)

    def still_going(self, text: str) -> None:
        self._write("progress", text)

    def warning(self, text: str) -> None:
        self._write("warning", text)

    def run_finished(self, record: Record) -> None:
        self._write("finished", f"{record.status}, {ending(record)}" if record.metrics else ending(record))
        super().run_finished(record)

    def _write(self, event: str, text: str) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        told = " ".join(text.split())
        with self.path.open("a", encoding="utf-8") as log:  # one write: commands that share it don't mix their lines
            log.write(f"{now}\t{self.planned.run_id}\t{event}\t{told}\n")


class Several(Silent):
    """Tells each of `observers`."""

    def __init__(self, observers: Sequence[Silent]) -> None:
        self._observers = observers
        self._open = ExitStack()

    def __enter__(self) -> Self:
        for observer in self._observers:
            self._open.enter_context(observer)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

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


def observer_for(plan: Plan, world: World) -> Silent:
    """Of the rank that this is: the first one tells."""
    if world.rank:
        return Silent()
    store, console = Store(plan.results), Console()
    runs = [run for run in plan.in_order() if not store.has(run.run_id)]
    log = EventLog(plan.results / LOG, runs)
    if plan.quiet:
        return Several([log, Warnings(console)])
    shown = Live(console, runs, len(plan.runs), world.device) if console.is_terminal else Lines(console, runs)
    return Several([log, shown])
