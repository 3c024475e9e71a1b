"""Which observers watch a suite."""

from __future__ import annotations

from rich.console import Console

from harness.distributed.process_group import World
from harness.planning.plan import Plan
from harness.progress.event_log import LOG, EventLog
from harness.progress.live import Live
from harness.progress.observer import Observer, Observers
from harness.progress.plain import PlainLines, Warnings
from harness.results.store import Store


def observer_for(plan: Plan, world: World) -> Observer:
    """On the first rank the log, with the live view in a terminal and plain lines elsewhere; on other ranks nothing."""
    if world.rank:
        return Observer()
    store, console = Store(plan.results), Console()
    runs = [run for run in plan.in_order() if not store.has(run.run_id)]
    log = EventLog(plan.results / LOG, runs)
    if plan.quiet:
        return Observers([log, Warnings(console)])
    is_terminal = console.is_terminal
    shown = Live(console, runs, len(plan.runs), world.device) if is_terminal else PlainLines(console, runs)
    return Observers([log, shown])
