"""What `ftbench run` and `ftbench plan` do: resolve, run or predict, show."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from rich.console import Console

from harness.api.bench import Bench, with_sizes
from harness.config.schema import ONE_MACHINE, Hosts
from harness.config.suite import SuiteConfig
from harness.launch.given_group import GivenGroup, Leader, follow
from harness.launch.launcher import launch
from harness.metrics import METRICS
from harness.model.precision import units_at_hand
from harness.planning.jobs import check_jobs
from harness.planning.plan import Plan, resolve
from harness.planning.workspace import Workspace
from harness.report import messages, tracked_suite
from harness.results.store import Store


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
    bench = Bench(console, Store(results), Workspace(cache), force, hosts, quiet, jobs, launch, track)
    done, metric = bench.run(suite, save), METRICS[suite.metric]
    messages.print_results(
        console, bench.store, done.shown, suite.reference, metric, done.suites, quiet=quiet, price=price
    )
    if done.plan.tracking and not done.interrupted:
        tracked_suite.end(console, done.plan, suite.reference, metric, price, quiet)
    messages.print_saved(console, done.saved, metric)
    messages.print_missing(console, done.missing, done.interrupted)
    return int(not done.is_good)


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


def plan_suite(
    console: Console,
    suite: SuiteConfig,
    results: Path,
    cache: Path,
    device: str | None,
    jobs: str = "1",
    price: float | None = None,
) -> int:
    """Print what the runs of a suite will take; returns the exit code, 1 where one does not fit or none could be
    predicted.

    device: a name that `harness/prediction/devices.yaml` has; None: the machine at hand. jobs: as `run_suite` has them;
    checked, but not considered. price: of an hour of a device.
    Raises UserError for whatever is wrong with the suite or the device.
    """
    from harness.prediction.arrangements import advise
    from harness.prediction.devices import device_named
    from harness.prediction.predict import Predictor
    from harness.prediction.prediction import Prediction
    from harness.prediction.suite import device_at_hand
    from harness.report.plan_screen import print_predictions, rows_of

    workspace = Workspace(cache)
    named = device_named(device) if device else None
    units = named.units if named else units_at_hand
    plan = resolve(with_sizes(suite, workspace), results, workspace, hosts=None, units=units)
    check_jobs(plan, jobs)
    chosen = named or device_at_hand(workspace)
    messages.print_warnings(console, plan)
    messages.print_plan(console, plan, finished=[])
    predictor = Predictor(workspace, chosen)
    rows = rows_of(predictor.of_plan(plan))
    asked = [(row.name, min(row.predictions, key=lambda one: one.fits)) for row in rows if row.predictions]
    advice = [f"{name}: {found}" for name, one in asked if (found := advise(predictor, one))]
    if jobs != "1":
        advice.append(f"JOBS={jobs} is not considered: times are of one run after the other.")
    predictor.keep()
    cost = None if price is None else partial(Prediction.cost, price=price)
    baselines = sum(run.strategy is None for run in plan.runs)
    print_predictions(console, chosen.title, rows, advice, baselines, cost)
    predictions = [one for row in rows for one in row.predictions]
    return int(not all(one.fits for one in predictions) or bool(rows and not predictions))
