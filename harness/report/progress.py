"""Who watches a suite: a live line in a terminal, plain lines where there is none, nobody on the other ranks."""

from __future__ import annotations

import time

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from harness.plan import PlannedRun
from harness.records import Record

PLAIN_LINE_SECONDS = 15.0


class Silent:
    def run_started(self, planned: PlannedRun, number: int, total: int) -> None: ...

    def phase(self, name: str) -> None: ...

    def progress(self, done: int, total: int, loss: float, accuracy: float) -> None: ...

    def warning(self, text: str) -> None: ...

    def run_finished(self, record: Record) -> None: ...


class Lines(Silent):
    """A line when a run starts and ends, and one in between every few seconds."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def run_started(self, planned: PlannedRun, number: int, total: int) -> None:
        self.title = f"[{number}/{total}] {planned.title}, seed {planned.config.seed}"
        self._print(f"{self.title}: started")

    def phase(self, name: str) -> None:
        self.phase_started = self.last_line = time.monotonic()

    def progress(self, done: int, total: int, loss: float, accuracy: float) -> None:
        now = time.monotonic()
        if now - self.last_line >= PLAIN_LINE_SECONDS:
            self.last_line = now
            left = (now - self.phase_started) / done * (total - done)
            self._print(f"{self.title}: step {done} of {total}, loss {loss:.3f}, about {left:.0f} s left")

    def warning(self, text: str) -> None:
        self._print(f"{self.title}: {text}")

    def run_finished(self, record: Record) -> None:
        self._print(f"{self.title}: {_ending(record)}")

    def _print(self, line: str) -> None:
        self.console.print(escape(line), highlight=False, soft_wrap=True)


class Live(Silent):
    """One bar that is redrawn in place, and a line that stays when a run ends."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def run_started(self, planned: PlannedRun, number: int, total: int) -> None:
        self.title = f"[{number}/{total}] {planned.title}, seed {planned.config.seed}"
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self.task = self.bar.add_task(escape(self.title), total=None, loss="")
        self.bar.start()

    def phase(self, name: str) -> None:
        self.bar.update(self.task, description=escape(f"{self.title}: {name}"))

    def progress(self, done: int, total: int, loss: float, accuracy: float) -> None:
        self.bar.update(self.task, completed=done, total=total, loss=f"loss {loss:.3f}")

    def warning(self, text: str) -> None:
        self.console.print(f"[yellow]{escape(f'{self.title}: {text}')}[/]", highlight=False)

    def run_finished(self, record: Record) -> None:
        self.bar.stop()
        style = "green" if record.status == "ok" else "bold red"
        self.console.print(f"[{style}]{escape(f'{self.title}: {_ending(record)}')}[/]", highlight=False)


def observer_for(rank: int) -> Silent:
    if rank:
        return Silent()
    console = Console()
    return Live(console) if console.is_terminal else Lines(console)


def _ending(record: Record) -> str:
    if record.metrics is None:
        return f"{record.status}: {(record.error or '').splitlines()[-1]}"
    test = record.metrics.test
    return f"test {100 * test.accuracy:.2f}% ({test.correct} of {test.total}), {record.seconds.total:.1f} s"
