"""The live view at the bottom of a terminal: a line for each run that is under way and one for the suite."""

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
from harness.progress.remaining import of_suite
from harness.progress.tracking import TrackingObserver, result_line
from harness.results.record import Record

REFRESHES_PER_SECOND = 2  # drawing takes time from training
BAR_WIDTH = 16


class _Line(TrackingObserver):
    """What one process does."""

    def __init__(
        self,
        view: Live,
        runs: Sequence[PlannedRun],
        clock: Callable[[], float],
        device: torch.device | None,
        job: int | None,
    ) -> None:
        """device: whose memory is shown; None for another process's."""
        super().__init__(runs, clock, job)
        self._view, self._device = view, device

    @property
    def name(self) -> str:
        return f"{self.title}: {self.phase_name}"

    def facts(self, now: float) -> list[str]:
        """From the most important to the least."""
        measured, steps = self.measured, self.steps  # the thread that trains replaces them
        return [
            f"{duration(self.remaining.of_run(now))} left",
            *([f"step {self.done}/{steps}"] if steps else []),
            *measured,
            *([f"{held_bytes(self._device) / 1e6:,.0f} MB"] if self._device else []),
        ]

    def warning(self, text: str) -> None:
        self._view.leave(f"{self.title}: {text}", "yellow")

    def run_finished(self, record: Record) -> None:
        super().run_finished(record)
        self._view.leave(f"{self.title}: {result_line(record)}", "green" if record.status == "ok" else "bold red")


class Live:
    """Redrawn in place; when a run ends, a line with its result stays. observers: of each job."""

    def __init__(
        self,
        console: Console,
        runs: Sequence[PlannedRun],
        total: int,
        device: torch.device,
        clock: Callable[[], float] = time.monotonic,
        jobs: int = 0,
    ) -> None:
        """total: runs of the suite, including those that were done before. jobs: processes that do them side by side;
        0: this one does."""
        self.console, self.total, self._clock = console, total, clock
        if jobs:
            self.observers = [_Line(self, runs, clock, None, number) for number in range(1, jobs + 1)]
        else:
            self.observers = [_Line(self, runs, clock, device, None)]
        first, *others = self.observers
        for other in others:
            other.remaining = first.remaining.beside()
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
        now, running = self._clock(), [line for line in self.observers if line.planned is not None]
        remaining = [line.remaining for line in self.observers]
        done = self.total - len(remaining[0].waiting) - len(running)
        half, bar_width = self.console.width // 2, min(BAR_WIDTH, self.console.width // 8)
        longest = max(len(name) for name in ("suite", *(line.name for line in running)))
        room = self.console.width - min(longest, half) - bar_width - 2
        grid = Table.grid(padding=(0, 1))
        grid.add_column(no_wrap=True, overflow="ellipsis", max_width=half)
        grid.add_column(width=bar_width)
        grid.add_column(no_wrap=True)
        for line in running:
            bar = ProgressBar(total=line.steps, completed=line.done, width=bar_width)
            grid.add_row(escape(line.name), bar, _that_fit(line.facts(now), room))
        facts = [f"{done} of {self.total} done", f"{duration(of_suite(remaining, now))} left"]
        grid.add_row("suite", ProgressBar(total=self.total, completed=done, width=bar_width), _that_fit(facts, room))
        return grid

    def leave(self, text: str, style: str) -> None:
        """A line that stays above the view."""
        self.console.print(f"[{style}]{escape(text)}[/]", highlight=False)
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
