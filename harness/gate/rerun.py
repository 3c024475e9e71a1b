"""The gate runs its suite again, and afterwards the cost runs, in processes of their own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

from harness.experiment.runner import checkpoints_of, prepare_store
from harness.gate.measurement import Case, Measurement, Subject, case_of, cost_of, measurement_of, run_of, subject_of
from harness.gate.suite import GateSuite, Pair, cost_pairs, plan_of
from harness.launch.launcher import launch
from harness.planning.plan import Plan, PlannedRun, resolve
from harness.planning.workspace import Workspace
from harness.results.record import Record
from harness.results.store import Store


class FailedRuns(Exception):
    """Runs of the suite did not end well; their records give the reasons."""

    def __init__(self, records: list[Record]) -> None:
        super().__init__(", ".join(record.run_id for record in records))
        self.records = records


@dataclass(frozen=True)
class Rerun:
    """A suite planned for the gate. pairs: of cost runs, by process; none where costs were not asked for."""

    store: Store
    workspace: Workspace
    plan: Plan
    pairs: list[list[Pair]]

    def subjects(self) -> list[Subject]:
        return [subject_of(run, self.workspace) for run in self.plan.runs]

    def cost_cases(self) -> list[Case]:
        return [case_of(fast) for fast, _ in chain(*self.pairs)]

    def measure(self) -> Measurement:
        """Run all of it again. Raises FailedRuns where a run did not end well."""
        cost_plans = [plan_of(pairs, self.store.results, self.workspace) for pairs in self.pairs]
        for run in chain(self.plan.runs, *(plan.runs for plan in cost_plans)):
            self.store.remove(run.run_id)
            checkpoints_of(run, self.store).remove()  # a resumed run would time its last steps only
        launch(prepare_store(self.plan, self.store, force=False)[0], self.workspace)
        measure_costs(cost_plans, self.store)
        records = [self._record(run) for run in self.plan.runs]
        costs = [[tuple(map(self._record, pair)) for pair in pairs] for pairs in self.pairs]
        failed = [one for one in [*records, *chain.from_iterable(chain(*costs))] if one.status != "ok"]
        if failed:
            raise FailedRuns(failed)
        return measurement_of(
            records[0].environment,
            [run_of(subject, one, self.store) for subject, one in zip(self.subjects(), records, strict=True)],
            [cost_of(case, *pair) for case, pair in zip(self.cost_cases(), chain(*costs), strict=True)],
        )

    def _record(self, run: PlannedRun) -> Record:
        record = self.store.read(run.run_id)
        assert record is not None, "the launcher returned, and a run has no record"
        return record


@contextmanager
def planned(suite: GateSuite, results: Path, cache: Path, costs: bool) -> Iterator[Rerun]:
    """The suite, to be run below `results`/gate. Downloads are those of the cache, features are not: those of older
    code would hide a change.

    Raises UserError for what is wrong with the suite.
    """
    store = Store(results / "gate")
    store.check_writable()
    with tempfile.TemporaryDirectory(dir=store.results, prefix="features-") as features:
        workspace = Workspace(cache, Path(features))
        plan = resolve(suite.load(), store.results, workspace)
        yield Rerun(store, workspace, plan, cost_pairs(suite, store.results, workspace) if costs else [])


def measure_costs(plans: list[Plan], store: Store) -> None:
    """Run each plan in a process of its own, one after the other."""
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as fresh:
        for plan in plans:
            fresh.submit(launch, prepare_store(plan, store, force=False)[0]).result()
