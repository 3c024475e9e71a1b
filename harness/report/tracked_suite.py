"""The begin and the end of a suite that trackers log."""

from __future__ import annotations

import re
from pathlib import Path

from rich.console import Console

from harness.config.suite import SuiteConfig
from harness.metrics import Metric
from harness.planning.plan import Plan
from harness.progress.tracked import log_run
from harness.report import messages
from harness.results.store import Store
from harness.results.suites import left_out
from harness.tracking.client import TrackingClient, begin_anew
from harness.tracking.trackers import Tracking, parse_trackers

UNNAMED = "ftbench"  # a suite without a file


def begin(given: str, suite: SuiteConfig, results: Path) -> Tracking:
    """given: names of trackers. Raises UserError for one that can't be used."""
    trackers = parse_trackers(given)
    begin_anew(results)
    name = suite.name if any(row.name for row in suite.rows) else UNNAMED
    return Tracking(suite=re.sub(r"[^\w.-]", "-", name, flags=re.ASCII), trackers=trackers)


def end(
    console: Console, plan: Plan, reference: str | None, metric: Metric, price: float | None, quiet: bool = False
) -> None:
    """Log the runs that are not logged, such as those of lost ranks and of earlier suites; then the tables and the
    report, which it writes. quiet: print problems only."""
    from harness.report.page import write_report  # imports matplotlib, which is slow to load

    assert plan.tracking is not None, "the suite is not tracked"
    store = Store(plan.results)
    records = store.all()
    if not records:
        return
    write_report(store, records, left_out(store), plan.cache, reference, metric, price)
    with TrackingClient(plan.results, plan.tracking) as client:
        problems = [problem for planned in plan.runs for problem in log_run(client, planned)]
        # With runs that were forced before, which have ids of their own.
        identities = {planned.identity for planned in plan.runs}
        problems += client.suite_ended([record.run_id for record in records if record.identity in identities])
    messages.print_not_tracked(console, problems)
    if not (quiet or problems):
        messages.print_tracked(console, plan.results, plan.tracking.trackers)
