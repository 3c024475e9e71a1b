"""Which observers watch a suite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from rich.console import Console

from harness.distributed.process_group import World, device_of
from harness.planning.plan import Plan
from harness.progress.event_log import LOG, EventLog
from harness.progress.live import Live
from harness.progress.notebook import NotebookView, Redrawing
from harness.progress.observer import Observer, Observers
from harness.progress.plain import PlainLines, Warnings
from harness.progress.tracked import TrackedRuns
from harness.results.store import Store
from harness.tracking.client import TrackingClient


@contextmanager
def observer_for(plan: Plan, world: World) -> Iterator[Observer]:
    """On the first rank the log, with the live view in a terminal or a notebook and plain lines elsewhere; on other
    ranks nothing."""
    if world.rank:
        yield Observer()
        return
    with _observers(plan, [None]) as (observer,):
        yield observer


@contextmanager
def observers_of_jobs(plan: Plan) -> Iterator[list[Observer]]:
    """The same of each job, in one view."""
    with _observers(plan, list(range(1, plan.jobs + 1))) as observers:
        yield observers


@contextmanager
def _observers(plan: Plan, jobs: Sequence[int | None]) -> Iterator[list[Observer]]:
    store, console = Store(plan.results), Console()
    runs = [run for run in plan.in_order() if not store.has(run.run_id)]
    with ExitStack() as entered:
        shown: Sequence[Observer]
        redrawing: list[Observer] = []
        if plan.quiet:
            shown = [Warnings(console) for _ in jobs]
        elif console.is_terminal or console.is_jupyter:
            kind, side_by_side = (NotebookView if console.is_jupyter else Live), sum(job is not None for job in jobs)
            view = kind(console, runs, len(plan.runs), device_of(0), jobs=side_by_side)
            shown = entered.enter_context(view).observers
            redrawing = [Redrawing(view)] if isinstance(view, NotebookView) else []
        else:
            shown = [PlainLines(console, runs, job=job) for job in jobs]
        log = plan.results / LOG
        watching: list[Observer] = [
            entered.enter_context(Observers([EventLog(log, runs), one, *redrawing])) for one in shown
        ]
        if plan.tracking:
            client = entered.enter_context(TrackingClient(plan.results, plan.tracking))
            watching = [Observers([TrackedRuns(client, one.warning), one]) for one in watching]
        yield watching
