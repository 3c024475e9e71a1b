"""The runs of a plan, one after the other: skips finished runs, isolates failures."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Set
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch

from harness.distributed.process_group import World, is_loss_of_a_rank
from harness.distributed.signals import StopSignals
from harness.errors import UserError
from harness.experiment.baseline import run_baseline
from harness.experiment.context import Context
from harness.experiment.joint import JointTrainings
from harness.experiment.records.oom import provided_for
from harness.experiment.records.record import Ending, Measurements, record_of
from harness.experiment.run import run
from harness.measure import environment
from harness.measure.energy import Counters
from harness.measure.kernel_kills import kernel_kills
from harness.measure.memory import give_back_memory, is_out_of_memory
from harness.model.device_settings import apply_settings
from harness.planning.joint import joint_groups
from harness.planning.plan import Plan, PlannedRun
from harness.planning.workspace import Workspace
from harness.progress.observer import Observer
from harness.results import saved_classifier
from harness.results.outcome import Outcome, Trained
from harness.results.quality import AllMetrics, Calibration
from harness.results.record import Record
from harness.results.saved_classifier import SavedClassifier
from harness.results.store import Store, predictions_frame
from harness.training.checkpoints import Checkpoints
from harness.training.loop import Diverged

KILLED = "the process of this run is gone, and the kernel has killed processes on this machine since, out of memory"


class RankLost(Exception):
    """The group must be restarted: a run failed on this rank while others may wait for it, or another rank is gone."""


@dataclass(frozen=True)
class Runner:
    """One rank that does the runs of a plan. environment: of their records. counters: of energy."""

    plan: Plan
    world: World
    observer: Observer
    signals: StopSignals
    workspace: Workspace
    store: Store
    environment: dict[str, Any]
    counters: Counters

    @classmethod
    def of(cls, plan: Plan, world: World, observer: Observer, signals: StopSignals, workspace: Workspace) -> Runner:
        described = environment.describe(world.device, plan.code_sha256, plan.jobs)
        counters = Counters.of(world, plan.jobs)
        return cls(plan, world, observer, signals, workspace, Store(plan.results), described, counters)

    def execute(self, run_ids: Set[str] | None = None) -> None:
        """Do every run of the plan that has no record yet, and write its record. The first rank does baselines alone.

        run_ids: of those to do; None: all.

        Raises KeyboardInterrupt where it was asked to stop, RankLost where a run failed on one of several ranks.
        """
        alone = self.world.size == 1
        groups = joint_groups(self.plan, self.workspace, self.world.device.type) if alone else []
        joint = JointTrainings(groups, self.store)
        for number, planned in enumerate(self.plan.in_order(), start=1):
            is_for_others = run_ids is not None and planned.run_id not in run_ids
            is_for_others |= planned.source.is_baseline and self.world.rank > 0
            if is_for_others or self.store.has(planned.run_id):
                continue
            self.observer.run_started(planned, number, len(self.plan.runs))
            record = self._isolated(planned, joint)
            self.observer.run_finished(record)
            if record.status == "interrupted":
                raise KeyboardInterrupt
            if record.status in ("failed", "oom") and self.world.size > 1 and not planned.source.is_baseline:
                raise RankLost(record.error)
            if planned.save and self.world.rank == 0:
                every = [one.run_id for one in self.plan.runs]
                saved_classifier.drop_all_but_the_best(self.store, every, self.plan.metric)
            give_back_memory()
            if self.world.device.type == "cuda":
                torch.cuda.empty_cache()

    def _isolated(self, planned: PlannedRun, joint: JointTrainings) -> Record:
        """Run it; whatever happens, return a record."""
        group = replace(self.world, size=1) if planned.source.is_baseline else self.world
        self.workspace.use_folder(planned.model.name, planned.model.folder)
        context = Context.begin(group, self.workspace, self.observer, self.signals, self.counters)
        outcome, checkpoints = Outcome(), checkpoints_of(planned, self.store, self.signals)
        try:
            with self._provision(planned):
                self._run(planned, checkpoints, context, outcome, joint)
            ending = Ending("ok")
        except Diverged as diverged:
            ending, outcome.curve = Ending("diverged", str(diverged)), diverged.curve
        except KeyboardInterrupt:
            if self.world.size > 1:
                raise  # the launcher knows whether somebody asked for it or it starts the group anew
            ending = Ending("interrupted", "interrupted")
        except Exception as problem:
            if self.world.size > 1 and is_loss_of_a_rank(problem):
                return self._lost(planned, context, outcome, problem)
            ending = Ending("oom" if is_out_of_memory(problem) else "failed", _reason(problem))
        measurements = Measurements.of(context, all_ranks=ending.status in ("ok", "diverged"))
        record = record_of(planned, ending, group.size, self.environment, outcome, measurements)
        if self.world.rank == 0 or ending.status in ("failed", "oom"):
            self._write(record, outcome)
            if ending.status == "ok":
                checkpoints.remove()
        return record

    def _run(
        self, planned: PlannedRun, checkpoints: Checkpoints, context: Context, outcome: Outcome, joint: JointTrainings
    ) -> None:
        apply_settings(planned.config.deterministic, planned.config.tf32)
        if planned.strategy is None:
            run_baseline(planned, context, outcome)
            return
        try:
            run(planned, planned.strategy, checkpoints, context, outcome, joint.share_of(planned, context))
        finally:
            for warning in checkpoints.warnings:
                self.observer.warning(warning)
        if planned.save and outcome.trained and outcome.metrics and outcome.calibration:
            self._save(planned, outcome.trained, outcome.metrics, outcome.calibration)

    def _provision(self, planned: PlannedRun) -> AbstractContextManager[None]:
        """The record that is left if the kernel kills this process; of several ranks another one, or the launcher,
        writes it."""
        if self.world.size > 1:
            return nullcontext()
        return provided_for(self.store, record_of(planned, Ending("oom", KILLED), 1, self.environment))

    def _save(self, planned: PlannedRun, trained: Trained, metrics: AllMetrics, calibration: Calibration) -> None:
        """Write what a run has trained beside its record. Every rank must call it; the first writes.

        Raises UserError, on every rank, where the disk does not take it.
        """
        assert planned.strategy is not None, "a baseline trains nothing that is saved"
        about = functools.partial(
            SavedClassifier,
            run_id=planned.run_id,
            strategy=planned.name,
            strategy_source=planned.source,
            resolved=planned.strategy.model_dump(mode="json"),
            config=planned.config,
            weights_sha256=planned.model.weights_sha256,
            classes=trained.classes,
            pad_to=trained.pad_to,
            temperature=calibration.temperature or 1.0,
            validation_accuracy=metrics.validation.accuracy,
            validation_loss=metrics.validation.loss,
            test_accuracy=metrics.test.accuracy,
        )
        folder = saved_classifier.folder_of(self.store, planned.run_id)
        problem = (
            saved_classifier.save(folder, trained.tensors, lambda sha256: about(sha256=sha256))
            if self.world.rank == 0
            else None
        )
        problem = self.world.first(problem)
        if problem:
            raise UserError(problem)

    def _lost(self, planned: PlannedRun, context: Context, outcome: Outcome, problem: BaseException) -> Record:
        """The record of a run that lost another rank; if that rank wrote its own reason, that record stands.

        Raises RankLost without one where the group may start again: the run resumes from its last checkpoint then.
        """
        ending = why_lost(context.memory.kernel_kills_before)
        waiting = f"rank {self.world.rank} gets no answer; {self.world.last_notes()}"
        error = f"{_reason(problem)}\n{ending.error}: {waiting}"
        if self.world.restarts_left:
            raise RankLost(error) from problem
        measurements = Measurements.of(context, all_ranks=False)
        ending = replace(ending, error=error)
        record = record_of(planned, ending, self.world.size, self.environment, outcome, measurements)
        if not self.store.has(planned.run_id):
            self.store.write(record)
        return record

    def _write(self, record: Record, outcome: Outcome) -> None:
        """The files beside the record first: where a record stands, its run is complete."""
        if len(outcome.curve):
            self.store.write_curve(record.run_id, outcome.curve)
        if (test := outcome.test) is not None:
            frame = predictions_frame(test.index, test.labels, test.probabilities, test.classes)
            self.store.write_predictions(record.run_id, frame)
        self.store.write(record)


def prepare_store(plan: Plan, store: Store, force: bool) -> tuple[Plan, list[str]]:
    """The plan with ids for all of its runs, and the ids of those that have ended well before and need not run.

    With `force` every run gets an id of its own. What failed or was interrupted before loses its record, and runs;
    and where the best is to be saved, what may be the best and was not saved.
    """
    if force:
        anew = [planned.model_copy(update={"run_id": _free_id(planned.run_id, store)}) for planned in plan.runs]
        return plan.model_copy(update={"runs": anew}), []
    earlier = [record for planned in plan.runs if (record := store.read(planned.run_id))]
    ok = [record for record in earlier if record.status == "ok"]
    saves = any(planned.save for planned in plan.runs)
    again = saved_classifier.to_run_again(store, ok, plan.metric) if saves else None
    for record in earlier:
        # Each of several machines does, before they meet: else one that comes first takes the run for done.
        if record.status != "ok" or record is again:
            store.remove(record.run_id)
    for planned in plan.runs:
        checkpoints_of(planned, store).check_configuration()
    too_large = {record.run_id for record in earlier if record.status == "oom"}
    runs = [planned.model_copy(update={"too_large": planned.run_id in too_large}) for planned in plan.runs]
    finished = [record.run_id for record in ok if record is not again]
    return plan.model_copy(update={"runs": runs}), finished


def checkpoints_of(planned: PlannedRun, store: Store, signals: StopSignals | None = None) -> Checkpoints:
    folder = store.runs / planned.run_id / "checkpoints"
    config, every_steps = planned.config.model_dump(mode="json"), planned.config.training.checkpoint_steps
    return Checkpoints(folder, config, every_steps, signals or StopSignals())


def why_lost(kernel_kills_before: int) -> Ending:
    """How a run ends that lost a rank: whether the kernel killed processes, out of memory, meanwhile."""
    killed = kernel_kills() - kernel_kills_before
    if killed:
        return Ending("oom", f"a rank was lost, and the kernel killed {killed} process(es), out of memory")
    return Ending("failed", "a rank was lost")


def _reason(problem: BaseException) -> str:
    """The last line says what happened, the lines above where."""
    return "".join(traceback.format_exception(problem)).strip()


def _free_id(run_id: str, store: Store) -> str:
    number = 2
    if not store.has(run_id):
        return run_id
    while store.has(f"{run_id}-{number}"):
        number += 1
    return f"{run_id}-{number}"
