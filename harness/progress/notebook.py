"""The live view in a notebook: one output, redrawn in place, where rich's own display needs a library of widgets."""

from __future__ import annotations

import io
import math
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape

from harness.planning.plan import PlannedRun
from harness.progress.live import Live
from harness.progress.observer import Observer
from harness.results.record import Record

SECONDS_BETWEEN = 1.0  # a notebook's page keeps up with few messages


class NotebookView(Live):
    """Lines with results stay above the runs that are under way, in the same output."""

    def __enter__(self) -> Self:
        from IPython.display import display  # a notebook has it

        self._left: list[str] = []
        self._drawn_at = -math.inf
        self._output: Any = display(self._html(), display_id=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._output.update(self._html(under_way=False))

    def leave(self, text: str, style: str) -> None:
        self._left.append(f"[{style}]{escape(text)}[/]")
        self._output.update(self._html())

    def redraw(self) -> None:
        """Unless that was done a moment ago."""
        now = self._clock()
        if now - self._drawn_at >= SECONDS_BETWEEN:
            self._drawn_at = now
            self._output.update(self._html())

    def _html(self, under_way: bool = True) -> Any:
        from IPython.display import HTML

        drawn = Console(file=io.StringIO(), record=True, width=self.console.width, force_jupyter=False)
        for line in self._left:
            drawn.print(line, highlight=False, soft_wrap=True)
        if under_way:
            drawn.print(self.lines())
        return HTML(drawn.export_html(inline_styles=True, code_format="<pre>{code}</pre>"))


class Redrawing(Observer):
    """Redraws the view on what happens: from the thread that runs, since a notebook drops what others show."""

    def __init__(self, view: NotebookView) -> None:
        self._view = view

    def run_started(self, planned: PlannedRun, number: int, total: int) -> None:
        self._view.redraw()

    def phase(self, name: str) -> None:
        self._view.redraw()

    def progress(self, done: int, total: int, loss: float, accuracy: float) -> None:
        self._view.redraw()

    def run_finished(self, record: Record) -> None:
        self._view.redraw()
