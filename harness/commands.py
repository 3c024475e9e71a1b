"""What `ftbench run`, `ftbench table` and `ftbench report` do: resolve, run, show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console

from harness.config.schema import ONE_MACHINE, Hosts
from harness.config.suite import SuiteConfig
from harness.errors import UserError
from harness.experiment.oom_records import settle
from harness.experiment.runner import prepare_store
from harness.launch.given_group import GivenGroup, Leader, follow
from harness.launch.launcher import launch
from harness.metrics import ACCURACY, METRICS, metric_named
from harness.planning.data import resolve_data
from harness.planning.jobs import with_jobs
from harness.planning.plan import Plan, resolve, saving
from harness.planning.sizes import at_sizes
from harness.planning.sweep import tuned
from harness.planning.workspace import Workspace
from harness.report import messages, tracked_suite
from harness.report.analysis.comparison import check_reference
from harness.report.analysis.grouping import groups
from harness.report.analysis.sweep import best_rates
from harness.report.table.comparison_table import FULL_VIEW, View, comparison_tables
from harness.report.table.formats import format_named
from harness.results import saved_classifier
from harness.results.record import Record
from harness.results.store import Store, newest_of_each
from harness.results.suites import SavedSuite, left_out, suites_in
from harness.tracking.trackers import Tracking

# Parameters of a model whose runs take long enough to be predicted before the first.
WORTH_A_PREDICTION = 50_000_000


def run_suite(
    console: Console,
    suite: SuiteConfig,
    results: Path,
    cache: Path,
    force: bool,
    hosts: Hosts = ONE_MACHINE,
    save: bool = False,
    quiet: bool = False,
    jobs: str = "1",
    price: float | None = None,
    track: str | None = None,
    launch: Callable[[Plan, Workspace], None] = launch,
) -> int:
    """Run a suite and print its table; returns the exit code: 0, or 1 where a run did not end well.

    force: run again what is done. save: save the classifier of the best run, for `ftbench predict`. quiet: print
    nothing but the table and what went wrong. jobs: runs side by side (see `with_jobs`). price: of an hour of a
    device. track: trackers, as `parse_trackers` takes them. launch: does every run of a plan.
    Raises UserError for wrong input, before anything runs.
    """
    store = Store(results)
    store.check_writable()
    tracking = tracked_suite.begin(track, suite, results) if track and hosts.node_rank == 0 else None
    messages.print_oom(console, settle(store))
    bench = _Bench(console, store, Workspace(cache), force, hosts, quiet, jobs, launch, tracking)
    plan = bench.resolve(suite)
    interrupted = False
    try:
        if suite.tune:
            plan = tuned(suite, plan, bench.resolve, bench.sweep, partial(best_rates, metric=suite.metric))
        plan = bench.prepare(saving(plan) if save else plan)
        launch(plan, bench.workspace)
    except KeyboardInterrupt:
        interrupted = True
    records = bench.records_of(plan)
    suites = [SavedSuite(name=suite.name, source=suite.source, rows=plan.rows)] if plan.rows else []
    for rows in suites:
        rows.save(results)
    metric, shown = METRICS[suite.metric], [*records, *bench.swept]
    messages.print_results(console, store, shown, suite.reference, metric, suites, quiet=quiet, price=price)
    if tracking and not interrupted:
        tracked_suite.end(console, plan, suite.reference, metric, price)
    if save and not interrupted and hosts.node_rank == 0:
        messages.print_saved(console, saved_classifier.install(store, records, metric.name), metric)
    missing = len(plan.runs) - len(records)
    messages.print_missing(console, missing, interrupted)
    return int(interrupted or missing > 0 or any(record.status != "ok" for record in records))


def run_in_group(
    console: Console,
    suite: SuiteConfig,
    group: GivenGroup,
    results: Path,
    cache: Path,
    force: bool,
    save: bool = False,
    quiet: bool = False,
    price: float | None = None,
    track: str | None = None,
) -> int:
    """`run_suite` as one rank of a group that is running already: the first one prints and writes.

    Raises UserError where the suite asks for other ranks than the group has, on every rank, and what `run_suite` raises
    on the first one.
    """
    suite = group.taken_over(suite)
    engine = suite.runs()[0].engine
    if group.rank:
        return follow(engine)
    leader, exit_code = Leader(engine), 2
    try:
        exit_code = run_suite(
            console, suite, results, cache, force, group.hosts, save, quiet, "1", price, track, leader.launch
        )
    finally:
        leader.dismiss(exit_code)
    return exit_code


@dataclass
class _Bench:
    """How all plans of one suite, its learning-rate sweeps included, are resolved and run. swept: records of sweeps."""

    console: Console
    store: Store
    workspace: Workspace
    force: bool
    hosts: Hosts
    quiet: bool
    jobs: str
    launch: Callable[[Plan, Workspace], None]
    tracking: Tracking | None = None
    swept: list[Record] = field(default_factory=list)

    def resolve(self, suite: SuiteConfig) -> Plan:
        plan = resolve(with_sizes(suite, self.workspace), self.store.results, self.workspace, self.hosts)
        shown = {"quiet": self.quiet, "tracking": self.tracking}
        return with_jobs(plan, self.jobs, self.workspace).model_copy(update=shown)

    def prepare(self, plan: Plan) -> Plan:
        """The plan as `prepare_store` returns it, with a message of what will run."""
        plan, finished = prepare_store(plan, self.store, self.force)
        messages.print_warnings(self.console, plan)
        if not self.quiet:
            messages.print_plan(self.console, plan, finished)
        return self._expected(plan, finished)

    def _expected(self, plan: Plan, finished: Sequence[str]) -> Plan:
        """With how long each run that is to be done is expected to take, and a warning for each that does not fit."""
        pending = [run for run in plan.runs if run.run_id not in finished]
        if not any(self.workspace.parameters(run.model.name) >= WORTH_A_PREDICTION for run in pending if run.strategy):
            return plan
        from harness.prediction.suite import expected  # brings PyTorch's compiler, which takes seconds

        try:
            seconds, too_large = expected(plan.model_copy(update={"runs": pending}), self.workspace)
        except UserError as problem:  # the runs themselves may fit
            messages.print_not_predicted(self.console, problem)
            return plan
        messages.print_too_large(self.console, too_large)
        runs = [run.model_copy(update={"expected_seconds": seconds.get(run.run_id)}) for run in plan.runs]
        return plan.model_copy(update={"runs": runs})

    def sweep(self, plan: Plan) -> list[Record]:
        """Run it; returns the records of all sweeps until here."""
        plan = self.prepare(plan)
        self.launch(plan, self.workspace)
        self.swept.extend(self.records_of(plan))
        return self.swept

    def records_of(self, plan: Plan) -> list[Record]:
        return [record for planned in plan.runs if (record := self.store.read(planned.run_id))]


def plan_suite(
    console: Console, suite: SuiteConfig, results: Path, cache: Path, device: str | None, price: float | None = None
) -> int:
    """Print what the runs of a suite will take; returns the exit code, 1 where one does not fit.

    device: a name that `harness/prediction/devices.yaml` has; None: the machine at hand. price: of an hour of a device.
    Raises UserError for whatever is wrong with the suite or the device.
    """
    from harness.prediction.arrangements import advise
    from harness.prediction.predict import Prediction, Predictor
    from harness.prediction.suite import device_for
    from harness.report.plan_screen import print_predictions

    workspace = Workspace(cache)
    plan = resolve(with_sizes(suite, workspace), results, workspace)
    chosen = device_for(device, workspace)
    messages.print_warnings(console, plan)
    messages.print_plan(console, plan, finished=[])
    predictor = Predictor(workspace, chosen)
    predictions = predictor.of_plan(plan)
    advice = {one.planned.title: found for one in predictions if (found := advise(predictor, one))}
    predictor.keep()
    cost = None if price is None else partial(Prediction.cost, price=price, on_gpu=chosen.kind == "cuda")
    baselines = len(plan.runs) - len(predictions)
    print_predictions(console, chosen.title, predictions, advice, baselines, cost)
    return int(not all(one.fits for one in predictions))


def with_sizes(suite: SuiteConfig, workspace: Workspace) -> SuiteConfig:
    """Its runs at each of its numbers of training texts, where it names some."""
    if not suite.sizes:
        return suite
    return at_sizes(suite, lambda run: resolve_data(run.data, workspace.dataset)[0])


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
    for path in written:
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
    return UserError(f"no records below {str(store.runs)!r}: run `make bench` first, or name the folder with RESULTS.")
