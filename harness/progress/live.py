"""The live view: two lines at the bottom of a terminal, one for the run that is under way and one for the suite."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import torch
from rich import live
from rich.console import Console
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from harness.measure.memory import held_bytes
from harness.planning.plan import PlannedRun
from harness.progress.tracking import TrackingObserver, result_line
from harness.results.record import Record

REFRESHES_PER_SECOND = 2  # drawing takes time from training
BAR_WIDTH = 16


class Live(TrackingObserver):
    """Redrawn in place; when a run ends, a line with its result stays."""

    def __init__(
        self,
        console: Console,
        runs: Sequence[PlannedRun],
        total: int,
        device: torch.device,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """total: runs of the suite, including those that were done before."""
        super().__init__(runs, clock)
        self.console, self.total, self.device = console, total, device
        self._display = live.Live(
            get_renderable=self.lines, console=console, refresh_per_second=REFRESHES_PER_SECOND, transient=True
        )

    def __enter__(self) -> Self:
        self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._display.stop()

    def lines(self) -> Table:
        """The current view; called by the thread that draws."""
        now, running = self.clock(), self.planned is not None
        done = self.total - len(self.remaining.waiting) - running
        name = f"{self.title}: {self.phase_name}" if running else "suite"
        half, bar_width = self.console.width // 2, min(BAR_WIDTH, self.console.width // 8)
        room = self.console.width - min(len(name), half) - bar_width - 2
        grid = Table.grid(padding=(0, 1))
        grid.add_column(no_wrap=True, overflow="ellipsis", max_width=half)
        grid.add_column(width=bar_width)
        grid.add_column(no_wrap=True)
        if running:
            bar = ProgressBar(total=self.steps, completed=self.done, width=bar_width)
            grid.add_row(escape(name), bar, _that_fit(self._facts(now), room))
        facts = [f"{done} of {self.total} done", f"{duration(self.remaining.of_suite(now))} left"]
        grid.add_row("suite", ProgressBar(total=self.total, completed=done, width=bar_width), _that_fit(facts, room))
        return grid

    def _facts(self, now: float) -> list[str]:
        """From the most important to the least."""
        measured, steps = self.measured, self.steps  # the thread that trains replaces them
        return [
            f"{duration(self.remaining.of_run(now))} left",
            *([f"step {self.done}/{steps}"] if steps else []),
            *measured,
            f"{held_bytes(self.device) / 1e6:,.0f} MB",
        ]

    def warning(self, text: str) -> None:
        self.console.print(f"[yellow]{escape(f'{self.title}: {text}')}[/]", highlight=False)

    def run_finished(self, record: Record) -> None:
        super().run_finished(record)
        style = "green" if record.status == "ok" else "bold red"
        self.console.print(f"[{style}]{escape(f'{self.title}: {result_line(record)}')}[/]", highlight=False)
        self._display.refresh()


def _that_fit(facts: Sequence[str], width: int) -> str:
    """As many facts, from the first on, as fit into `width` characters."""
    shown = ""
    for fact in facts:
        longer = f"{shown}, {fact}" if shown else fact
        if len(longer) > width:
            break
        shown = longer
    return shown


def duration(seconds: float | None) -> str:
    """Such as 0:07 or 1:02:03."""
    if seconds is None:
        return "-:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
