"""Progress as plain lines, where there is no terminal to redraw."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.markup import escape

from harness.planning.plan import PlannedRun
from harness.progress.observer import Observer
from harness.progress.tracking import TrackingObserver, result_line
from harness.results.record import Record


class PlainLines(TrackingObserver):
    """A line when a run starts and ends, and one in between every few seconds."""

    def __init__(
        self,
        console: Console,
        runs: Sequence[PlannedRun],
        clock: Callable[[], float] = time.monotonic,
        job: int | None = None,
    ) -> None:
        super().__init__(runs, clock, job)
        self.console = console

    def run_started(self, planned: PlannedRun, number: int, total: int) -> None:
        super().run_started(planned, number, total)
        self.update("started")

    def update(self, text: str) -> None:
        self.console.print(escape(f"{self.title}: {text}"), highlight=False, soft_wrap=True)

    def warning(self, text: str) -> None:
        self.update(text)

    def run_finished(self, record: Record) -> None:
        super().run_finished(record)
        self.update(result_line(record))


class Warnings(Observer):
    """What goes wrong, and nothing else."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.run_id = ""

    def run_started(self, planned: PlannedRun, number: int, total: int) -> None:
        self.run_id = planned.run_id

    def warning(self, text: str) -> None:
        self.console.print(f"[yellow]{escape(f'{self.run_id}: {text}')}[/]", highlight=False, soft_wrap=True)
