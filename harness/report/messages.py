"""What commands print before and after their runs, beside the tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from harness.config.command_line import typed
from harness.errors import UserError
from harness.metrics import Metric
from harness.report.across.matrix import print_matrix
from harness.report.across.overview import alone, overviews
from harness.report.analysis.grouping import groups
from harness.report.files import write_tables
from harness.report.table import terminal
from harness.report.table.comparison_table import FULL_VIEW, ComparisonTable, View, comparison_tables
from harness.report.table.published import print_published
from harness.report.table.scaling import print_scaling
from harness.results.record import Record
from harness.results.store import Store, newest_of_each
from harness.results.suites import SavedSuite, left_out
from harness.tracking.trackers import command_that_shows

if TYPE_CHECKING:  # a table of records needs no PyTorch
    from harness.config.schema import RunConfig
    from harness.planning.plan import Plan
    from harness.prediction.prediction import Prediction


def print_plan(console: Console, plan: Plan, finished: Sequence[str]) -> None:
    """What each `auto` was resolved to and why, rows that are skipped, and runs that are done already."""
    for what in ("model", "weights", "data", "precision"):
        # Rows of a suite may differ; a baseline has a choice only for what it depends on.
        chosen = {(_choice(run.config, what), run.choices[what]): None for run in plan.runs if what in run.choices}
        for value, reason in chosen:
            console.print(f"{what:>9}  [bold]{escape(value)}[/]  [dim]({escape(reason)})[/]", highlight=False)
        if what == "data":
            for note in dict.fromkeys(note for run in plan.runs for note in run.data_notes):
                console.print(f"{'':>9}  [dim]{escape(note)}[/]", highlight=False)
    if plan.why_jobs:
        console.print(f"{'jobs':>9}  [bold]{plan.jobs}[/]  [dim]({escape(plan.why_jobs)})[/]", highlight=False)
    for reason in dict.fromkeys(row.skipped for row in plan.rows if row.skipped):
        names = ", ".join(row.name for row in plan.rows if row.skipped == reason)
        console.print(f"[yellow]skipped: {escape(names)}[/] [dim]({escape(reason)})[/]", highlight=False)
    for run_id in finished:
        console.print(f"{escape(run_id)}: done before, not run again (FORCE=1 does)", highlight=False)


def _choice(config: RunConfig, what: str) -> str:
    match what:
        case "model":
            return config.model.name
        case "weights":
            return config.model.weights
        case "data":
            return config.data.name
        case _:
            return config.precision


def print_warnings(console: Console, plan: Plan) -> None:
    """Baselines that are left out, and strategies whose code comes from outside the harness."""
    outside = [f"strategy {run.name} {run.source.warning}" for run in plan.runs if run.source.is_outside]
    for warning in (*plan.left_out, *dict.fromkeys(outside)):
        console.print(f"[yellow]{escape(warning)}[/]", highlight=False)


def print_not_predicted(console: Console, problems: Sequence[UserError]) -> None:
    for problem in dict.fromkeys(map(str, problems)):  # once for all seeds
        console.print(f"[yellow]{escape(problem)}[/]", highlight=False, soft_wrap=True)


def print_too_large(console: Console, predictions: Sequence[Prediction]) -> None:
    """Runs that are expected to run out of memory; they are done all the same."""
    for one in predictions:
        console.print(
            f"[yellow]{escape(one.planned.title)}: needs about {one.bytes.peak / 1e9:.1f} GB of "
            f"{one.available / 1e9:.1f} GB, and may run out of memory; [bold]{typed('plan')}[/] says what fits[/]",
            highlight=False,
            soft_wrap=True,
        )


def print_oom(console: Console, run_ids: Sequence[str]) -> None:
    for run_id in run_ids:
        console.print(f"[yellow]{escape(run_id)}: out of memory, the kernel killed it[/]", highlight=False)


def print_results(
    console: Console,
    store: Store,
    records: list[Record],
    reference: str | None,
    metric: Metric,
    suites: Sequence[SavedSuite],
    view: View = FULL_VIEW,
    quiet: bool = False,
    price: float | None = None,
) -> None:
    """Write the tables' files, and print the tables of `records` with what belongs below them."""
    written, everything = write_tables(store, reference, metric, price), store.all()
    if records:
        newest = newest_of_each(records)
        if view == FULL_VIEW and written.are_of(newest, suites):
            tables = written.tables
        else:
            tables = comparison_tables(groups(newest, suites), store, reference, view, metric, price)
        print_tables(console, tables, view)
        print_scaling(console, newest_of_each(everything), records)
    for suite in suites:
        if suite.is_published:
            print_published(console, suite, everything)
    print_left_out(console, left_out(store))
    if not quiet:
        files = f"\nWrote {', '.join(map(str, written.paths))}; each run's record is in {store.runs}."
        console.print(files, highlight=False)
        others = typed("bench", STRATEGY="all")
        others = f"What the other choices cost: [bold]{others}[/]. " if len(records) == 1 else ""
        console.print(f"{others}With plots, as a page: [bold]{typed('report')}[/].", highlight=False)


def print_tables(console: Console, tables: list[ComparisonTable], view: View = FULL_VIEW) -> None:
    """Where an overview takes tables in, it stands for them; a view is of each table."""
    if view != FULL_VIEW:
        terminal.print_tables(console, tables, view)
        return
    terminal.print_tables(console, alone(tables))
    for matrix in overviews(tables):
        print_matrix(console, matrix)


def print_left_out(console: Console, problems: Sequence[str]) -> None:
    """Records and suites that can't be read."""
    for problem in problems:
        console.print(f"[yellow]left out: {escape(problem)}[/]", highlight=False)


def print_saved(console: Console, installed: tuple[Record, Path] | None, metric: Metric) -> None:
    """installed: the run whose classifier is saved, and in which folder; None where no run ended well. metric: what it
    was chosen by."""
    if installed is None:
        return
    best, folder = installed
    console.print(
        f"Saved the classifier of [bold]{escape(best.run_id)}[/], of the strategies the best by {metric.title} on the "
        "validation texts; "
        f'ask it: [bold]ftbench predict "a text" --classifier {escape(str(folder))}[/]',
        highlight=False,
        soft_wrap=True,
    )


def print_tracked(console: Console, results: Path, trackers: Sequence[str]) -> None:
    for name in trackers:
        command = command_that_shows(name, results)
        console.print(f"Logged to {name}{f': {escape(command)}' if command else '.'}", highlight=False, soft_wrap=True)


def print_not_tracked(console: Console, problems: Sequence[str]) -> None:
    for problem in problems:
        console.print(f"[yellow]{escape(problem)}[/]", highlight=False, soft_wrap=True)


def print_missing(console: Console, missing: int, interrupted: bool) -> None:
    """missing: the number of runs without a record."""
    if interrupted:
        console.print("[bold red]Interrupted.[/] The same command goes on with the runs that are missing.")
    elif missing:
        console.print(
            f"[bold red]{missing} run(s) did not end: other machines were lost, or runs before them failed.[/] "
            "The same command, on every machine, goes on."
        )
