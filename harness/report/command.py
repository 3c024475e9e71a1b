"""What `ftbench table` and `ftbench report` do: read records and show them. Nothing here needs PyTorch."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from harness.errors import UserError
from harness.experiment.records.oom import settle
from harness.metrics import ACCURACY, metric_named
from harness.report import messages
from harness.report.analysis.comparison import check_reference
from harness.report.analysis.grouping import groups
from harness.report.table.comparison_table import FULL_VIEW, View, comparison_tables
from harness.report.table.formats import format_named
from harness.results.record import Record
from harness.results.store import Store, newest_of_each
from harness.results.suites import SavedSuite, left_out, suites_in


def show_results(
    console: Console,
    results: Path,
    reference: str | None = None,
    metric: str | None = None,
    view: View = FULL_VIEW,
    form: str | None = None,
    price: float | None = None,
) -> None:
    """Print the tables and write their files; with a `form` print them in it, and nothing else."""
    formatted, compared_by = format_named(form) if form else None, metric_named(metric or ACCURACY.name)
    store, aside = Store(results), Console(stderr=True) if form else console
    records, suites = _saved_results(aside, store, reference)
    newest = newest_of_each(records)
    if formatted:
        shown = comparison_tables(groups(newest, suites), store, reference, view, compared_by, price)
        console.out(formatted(shown).rstrip(), highlight=False)
        messages.print_left_out(aside, left_out(store))
    else:
        messages.print_results(console, store, newest, reference, compared_by, suites, view, price=price)


def make_report(
    console: Console,
    results: Path,
    cache: Path,
    reference: str | None = None,
    metric: str | None = None,
    price: float | None = None,
) -> None:
    """Write tables, plots and the page, and print their paths."""
    from harness.report.page import write_report  # imports matplotlib, which is slow to load

    store, compared_by = Store(results), metric_named(metric or ACCURACY.name)
    records, _ = _saved_results(console, store, reference)
    problems = left_out(store)
    written = write_report(store, records, problems, cache, reference, compared_by, price)
    messages.print_left_out(console, problems)
    for path in sorted(written, key=lambda path: path.suffix == ".html"):  # the page last, where it is seen
        console.print(str(path), highlight=False, markup=False, soft_wrap=True)


def _saved_results(console: Console, store: Store, reference: str | None) -> tuple[list[Record], list[SavedSuite]]:
    """Raises UserError where no record can be read, or no row has the name of the reference."""
    messages.print_oom(console, settle(store))
    records, suites = store.all(), suites_in(store.results)
    if not records:
        raise _nothing_to_show(store)
    check_reference(groups(records, suites), reference)
    return records, suites


def _nothing_to_show(store: Store) -> UserError:
    problems = store.unreadable()
    if problems:
        return UserError(f"none of the {len(problems)} record(s) below {str(store.runs)!r} can be read; {problems[0]}")
    asked = "run `ftbench run` (`make bench`) first, or name the folder with RESULTS"
    return UserError(f"no records below {str(store.runs)!r}: {asked}.")
