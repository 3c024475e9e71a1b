"""The main job: decide, say what will run, run it, show the table."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape

from harness.config.schema import ONE_MACHINE, Hosts
from harness.config.suite import SuiteConfig
from harness.errors import UserError
from harness.experiment.oom_records import settle
from harness.experiment.runner import prepare_store
from harness.gate import measurement as gate
from harness.gate import reference as gate_reference
from harness.gate.checks import alarms, compare
from harness.gate.report import print_findings, write_findings
from harness.launch.launcher import launch
from harness.planning.plan import Plan, resolve
from harness.planning.sweep import tuned
from harness.report.analysis.comparison import check_reference
from harness.report.analysis.grouping import groups
from harness.report.analysis.sweep import best_rates
from harness.report.files import write_tables
from harness.report.table.comparison_table import FULL_VIEW, View, comparison_tables
from harness.report.table.formats import format_named
from harness.report.table.published import print_published
from harness.report.table.scaling import print_scaling
from harness.report.table.terminal import print_table
from harness.results import saved_classifier as kept
from harness.results.record import Record
from harness.results.store import Store, newest_of_each
from harness.results.suites import SavedSuite, left_out, suites_in


def run_suite(
    console: Console,
    suite: SuiteConfig,
    results: Path,
    cache: Path,
    force: bool,
    hosts: Hosts = ONE_MACHINE,
    save: bool = False,
    quiet: bool = False,
) -> int:
    """Do a suite and print its table; returns the exit code: 0, or 1 where a run did not end well.

    save: keep what the best run trained, for `ftbench predict`. quiet: print nothing but the table and what went wrong.
    """
    store = Store(results)
    store.check_writable()
    _settle(console, store)

    swept: list[Record] = []

    def resolved(part: SuiteConfig) -> Plan:
        return resolve(part, results, cache, hosts).model_copy(update={"quiet": quiet})

    def prepared(part: Plan) -> Plan:
        part, finished = prepare_store(part, store, force)
        _warn(console, part)
        if not quiet:
            _say_what_runs(console, part, finished)
        return part

    def sweep(part: Plan) -> list[Record]:
        part = prepared(part)
        launch(part)
        swept.extend(_records_of(part, store))
        return swept

    plan = resolved(suite)
    interrupted = False
    try:
        if suite.tune:
            plan = tuned(suite, plan, resolved, sweep, best_rates)
        plan = prepared(kept.planned_to_keep(plan) if save else plan)
        launch(plan)
    except KeyboardInterrupt:
        interrupted = True
    records = _records_of(plan, store)
    rows = SavedSuite(name=suite.name, source=suite.source, rows=plan.rows)
    if plan.rows:
        rows.save(results)
    _show(console, store, [*records, *swept], suite.reference, [rows] if plan.rows else [], quiet=quiet)
    if save and not interrupted and hosts.node_rank == 0:
        _keep_the_best(console, store, records)
    missing = len(plan.runs) - len(records)
    _say_what_is_missing(console, missing, interrupted)
    return int(interrupted or missing > 0 or any(record.status != "ok" for record in records))


def _warn(console: Console, plan: Plan) -> None:
    outside = {
        f"strategy {planned.name} {source.warning}": None
        for planned in plan.runs
        if (source := planned.source).is_outside
    }
    for told in (*plan.left_out, *outside):
        console.print(f"[yellow]{escape(told)}[/]", highlight=False)


def _say_what_is_missing(console: Console, missing: int, interrupted: bool) -> None:
    if interrupted:
        console.print("[bold red]Interrupted.[/] The same command goes on with the runs that are missing.")
    elif missing:
        console.print(
            f"[bold red]{missing} run(s) did not end: other machines were lost, or runs before them failed.[/] "
            "The same command, on every machine, goes on."
        )


def _keep_the_best(console: Console, store: Store, records: list[Record]) -> None:
    installed = kept.install(store, records)
    if installed is None:
        return
    best, folder = installed
    console.print(
        f"Kept the classifier of [bold]{escape(best.run_id)}[/], the best by accuracy on the validation texts; "
        f'ask it: [bold]ftbench predict "a text" --classifier {escape(str(folder))}[/]',
        highlight=False,
        soft_wrap=True,
    )


def _records_of(plan: Plan, store: Store) -> list[Record]:
    return [record for planned in plan.runs if (record := store.read(planned.run_id))]


def show_results(
    console: Console, results: Path, reference: str | None = None, view: View = FULL_VIEW, form: str | None = None
) -> None:
    """Print the tables and write their files; with a `form` print them in it, and nothing else."""
    formatted = format_named(form) if form else None
    store, aside = Store(results), Console(stderr=True) if form else console
    records, suites = _kept(aside, store, reference)
    if formatted:
        shown = comparison_tables(groups(newest_of_each(records), suites), store, reference, view)
        console.out(formatted(shown).rstrip(), highlight=False)
        _say_what_is_left_out(aside, left_out(store))
    else:
        _show(console, store, newest_of_each(records), reference, suites, view)


def make_report(console: Console, results: Path, cache: Path, reference: str | None = None) -> None:
    from harness.report.page import write_report  # with matplotlib, which takes a while and serves nothing else

    store = Store(results)
    records, _ = _kept(console, store, reference)
    problems = left_out(store)
    written = write_report(store, records, problems, cache, reference)
    _say_what_is_left_out(console, problems)
    for path in written:
        console.print(str(path), highlight=False, markup=False, soft_wrap=True)


def _kept(console: Console, store: Store, reference: str | None) -> tuple[list[Record], list[SavedSuite]]:
    """Raises UserError where no record can be read, or no row is called like the reference."""
    _settle(console, store)
    records, suites = store.all(), suites_in(store.results)
    if not records:
        raise nothing_to_show(store)
    check_reference(groups(records, suites), reference)
    return records, suites


def nothing_to_show(store: Store) -> UserError:
    problems = store.unreadable()
    if problems:
        return UserError(f"none of the {len(problems)} record(s) below {str(store.runs)!r} can be read; {problems[0]}")
    return UserError(f"no records below {str(store.runs)!r}: run `make bench` first, or name the folder with RESULTS.")


def run_gate(console: Console, results: Path, update: str | None) -> int:
    """Measure the gate's suite; compare it with the reference, or with a reason make it the new one.

    Returns the exit code: 0; 1 where something is worse or a run failed, or it was interrupted.
    """
    if update is None:
        reference = gate_reference.read_reference(gate_reference.REFERENCE)  # fail now, not after the work
    else:
        gate_reference.check_reason(update)
    console.print(
        f"The suite first; then memory and speed, a minute of short runs in {gate.COST_PROCESSES} processes, one after "
        "the other.",
        highlight=False,
        soft_wrap=True,
    )
    try:
        measured = gate.rerun(results)
    except KeyboardInterrupt:
        console.print("[bold red]Interrupted:[/] nothing was compared or written.")
        return 1
    except gate.FailedRuns as failed:
        for record in failed.records:
            told = escape(f"{record.run_id}, {record.status}: {record.reason}")
            console.print(f"[bold red]{told}[/]", highlight=False, soft_wrap=True)
        return 1
    if update is not None:
        path = gate_reference.write_reference(gate_reference.REFERENCE, measured, update)
        console.print(f"Wrote {path}.", highlight=False)
        return 0
    gate_reference.check_comparable(reference, measured)
    findings = compare(reference, measured)
    written = write_findings(results, findings, reference, measured)
    print_findings(console, findings, reference)
    console.print(f"\nWrote {', '.join(map(str, written))}.", highlight=False)
    return int(alarms(findings))


def _settle(console: Console, store: Store) -> None:
    for run_id in settle(store):
        console.print(f"[yellow]{escape(run_id)}: out of memory, the kernel killed it[/]", highlight=False)


def _say_what_runs(console: Console, plan: Plan, finished: list[str]) -> None:
    chosen = {
        "model": lambda config: config.model.name,
        "weights": lambda config: config.model.weights,
        "data": lambda config: config.data.name,
        "precision": lambda config: config.precision,
    }
    for what, value in chosen.items():
        # Baselines alone may depend on the data only; rows of a suite may have each its own.
        told = {(value(run.config), run.choices[what]): None for run in plan.runs if what in run.choices}
        for name, why in told:
            console.print(f"{what:>9}  [bold]{escape(name)}[/]  [dim]({escape(why)})[/]", highlight=False)
    skipped = {row.skipped: None for row in plan.rows if row.skipped}
    for reason in skipped:
        names = ", ".join(row.name for row in plan.rows if row.skipped == reason)
        console.print(f"[yellow]skipped: {escape(names)}[/] [dim]({escape(reason)})[/]", highlight=False)
    for run_id in finished:
        console.print(f"{escape(run_id)}: done before, not run again (FORCE=1 does)", highlight=False)


def _show(
    console: Console,
    store: Store,
    records: list[Record],
    reference: str | None,
    suites: list[SavedSuite],
    view: View = FULL_VIEW,
    quiet: bool = False,
) -> None:
    written, everything = write_tables(store, reference), store.all()
    if records:
        print_table(console, groups(newest_of_each(records), suites), store, reference, view)
        print_scaling(console, newest_of_each(everything), records)
    for suite in suites:
        if suite.is_published:
            print_published(console, suite, everything)
    if len(records) == 1 and not quiet:
        console.print(
            "\nTo see what the other choices cost: [bold]make bench STRATEGY=all[/]; with plots: [bold]make report[/]",
            highlight=False,
        )
    _say_what_is_left_out(console, left_out(store))
    if not quiet:
        told = f"\nWrote {', '.join(map(str, written))}; each run's record is in {store.runs}."
        console.print(told, highlight=False)


def _say_what_is_left_out(console: Console, problems: list[str]) -> None:
    for problem in problems:
        console.print(f"[yellow]left out: {escape(problem)}[/]", highlight=False)
