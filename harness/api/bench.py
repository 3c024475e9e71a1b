"""One suite from its configuration to records: what the command line and Python share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console

from harness.config.schema import ONE_MACHINE, Hosts
from harness.config.suite import SuiteConfig
from harness.distributed.signals import StopSignals
from harness.errors import UserError
from harness.experiment.records.oom import settle
from harness.experiment.runner import prepare_store
from harness.launch.launcher import launch
from harness.measure.memory import give_back_memory
from harness.planning.data import resolve_data
from harness.planning.jobs import with_jobs
from harness.planning.plan import Plan, resolve
from harness.planning.sizes import at_sizes
from harness.planning.sweep import tuned
from harness.planning.workspace import Workspace
from harness.report import messages, tracked_suite
from harness.report.analysis.sweep import best_rates
from harness.results import saved_classifier
from harness.results.record import Record
from harness.results.store import Store
from harness.results.suites import SavedSuite
from harness.tracking.trackers import Tracking

# Parameters of a model whose runs take long enough to be predicted before the first.
WORTH_A_PREDICTION = 50_000_000


@dataclass(frozen=True)
class Finished:
    """What the runs of a suite gave.

    records: of the plan's runs that ended, in its order. swept: of its learning-rate sweeps. suites: its rows, where
    its file lists some. saved: the run whose classifier was saved, and in which folder; None where none was.
    """

    plan: Plan
    records: list[Record]
    swept: list[Record]
    suites: list[SavedSuite]
    interrupted: bool
    saved: tuple[Record, Path] | None

    @property
    def shown(self) -> list[Record]:
        """The records that tables show, each once: the run at the best rate is one of its sweep, too."""
        return list({record.run_id: record for record in [*self.records, *self.swept]}.values())

    @property
    def missing(self) -> int:
        """Runs without a record."""
        return len(self.plan.runs) - len(self.records)

    @property
    def is_good(self) -> bool:
        """Whether every run ended well."""
        return not (self.interrupted or self.missing or any(record.status != "ok" for record in self.records))


@dataclass
class Bench:
    """How all plans of one suite, its learning-rate sweeps included, are resolved and run.

    console: for what is to be said before the runs. force: run again what is done. quiet: say only what goes wrong.
    jobs: runs side by side (see `with_jobs`). launch: does every run of a plan. track: trackers, as `parse_trackers`
    takes them. swept: records of sweeps.
    """

    console: Console
    store: Store
    workspace: Workspace
    force: bool = False
    hosts: Hosts = ONE_MACHINE
    quiet: bool = False
    jobs: str = "1"
    launch: Callable[[Plan, Workspace], None] = launch
    track: str | None = None
    swept: list[Record] = field(default_factory=list)
    _tracking: Tracking | None = None

    def run(self, suite: SuiteConfig, save: bool = False) -> Finished:
        """Do every run of the suite that is not done. save: the classifier of the best one.

        Raises UserError for wrong input, before anything runs. An interruption ends the runs: `interrupted` says so.
        """
        self.store.check_writable()
        if self.track and self.hosts.node_rank == 0:
            self._tracking = tracked_suite.begin(self.track, suite, self.store.results)
        messages.print_oom(self.console, settle(self.store))
        plan, interrupted = self.resolve(suite), False
        try:
            if suite.tune:
                plan = tuned(suite, plan, self.resolve, self.sweep, partial(best_rates, metric=suite.metric))
            plan = self.prepare(_saving(plan) if save else plan)
            self.launch(plan, self.workspace)
        except KeyboardInterrupt:
            interrupted = True
        records = self.records_of(plan)
        suites = [SavedSuite(name=suite.name, source=suite.source, rows=plan.rows)] if plan.rows else []
        for rows in suites:
            rows.save(self.store.results)
        installs = save and not interrupted and self.hosts.node_rank == 0
        saved = saved_classifier.install(self.store, records, suite.metric) if installs else None
        return Finished(plan, records, self.swept, suites, interrupted, saved)

    def resolve(self, suite: SuiteConfig) -> Plan:
        plan = resolve(with_sizes(suite, self.workspace), self.store.results, self.workspace, self.hosts)
        shown = {"quiet": self.quiet, "tracking": self._tracking}
        return with_jobs(plan, self.jobs, self.workspace).model_copy(update=shown)

    def prepare(self, plan: Plan) -> Plan:
        """The plan as `prepare_store` returns it, with a message of what will run."""
        plan, finished = prepare_store(plan, self.store, self.force)
        with self.console:  # in a notebook one output, not one for each line
            messages.print_warnings(self.console, plan)
            if not self.quiet:
                messages.print_plan(self.console, plan, finished)
        return self._expected(plan, finished)

    def _expected(self, plan: Plan, finished: Sequence[str]) -> Plan:
        """With how long each run that is to be done is expected to take, and a warning for each that does not fit."""
        pending = [run for run in plan.runs if run.run_id not in finished]
        if not any(self.workspace.parameters(run.model.name) >= WORTH_A_PREDICTION for run in pending if run.strategy):
            return plan
        stop_signals = StopSignals()
        stop_signals.listen()
        with stop_signals.postponed():  # as in a worker
            from harness.prediction.suite import expected  # brings PyTorch's compiler, which takes seconds

        try:
            found = expected(plan.model_copy(update={"runs": pending}), self.workspace)
        except UserError as problem:  # the runs themselves may fit
            messages.print_not_predicted(self.console, [problem])
            return plan
        finally:
            give_back_memory()
        messages.print_not_predicted(self.console, [one.problem for one in found.not_predicted])
        messages.print_too_large(self.console, found.too_large)
        runs = [run.model_copy(update={"expected_seconds": found.seconds.get(run.run_id)}) for run in plan.runs]
        return plan.model_copy(update={"runs": runs})

    def sweep(self, plan: Plan) -> list[Record]:
        """Run it; returns the records of all sweeps until here."""
        plan = self.prepare(plan)
        self.launch(plan, self.workspace)
        self.swept.extend(self.records_of(plan))
        return self.swept

    def records_of(self, plan: Plan) -> list[Record]:
        return [record for planned in plan.runs if (record := self.store.read(planned.run_id))]


def with_sizes(suite: SuiteConfig, workspace: Workspace) -> SuiteConfig:
    """Its runs at each of its numbers of training texts, where it names some."""
    if not suite.sizes:
        return suite
    return at_sizes(suite, lambda run: resolve_data(run.data, workspace.dataset)[0])


def _saving(plan: Plan) -> Plan:
    """The plan whose runs save what they train. Raises UserError where it has baselines only, or several data
    sets."""
    if all(run.source.is_baseline for run in plan.runs):
        raise UserError("SAVE=1: baselines train nothing that could be saved; name a strategy, too.")
    if len({run.data_sha256 for run in plan.runs}) > 1:
        raise UserError("SAVE=1 with several data sets: one classifier is kept, for one of them; name one.")
    runs = [run.model_copy(update={"save": not run.source.is_baseline}) for run in plan.runs]
    return plan.model_copy(update={"runs": runs})
