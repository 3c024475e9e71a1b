"""Which runs, one after the other: skips what is done, isolates what fails."""

from __future__ import annotations

import gc
import traceback
from contextlib import nullcontext
from dataclasses import replace
from typing import Protocol

import torch

from harness.distributed.process_group import World, is_loss_of_a_rank
from harness.experiment.baseline import run_baseline
from harness.experiment.oom_records import provided_for
from harness.experiment.run import Observer, Outcome, make_record, run
from harness.measure.memory import kernel_kills, return_freed_memory
from harness.planning.plan import Plan, PlannedRun
from harness.results import record as records
from harness.results import saved_classifier as kept
from harness.results.record import Record
from harness.results.store import Store, predictions_frame
from harness.training.checkpoints import Checkpoints
from harness.training.loop import Diverged

KILLED = "the process of this run is gone, and the kernel has killed for want of memory on this machine meanwhile"


class SuiteObserver(Observer, Protocol):
    def run_started(self, planned: PlannedRun, number: int, total: int) -> None: ...

    def run_finished(self, record: Record) -> None: ...


class RankLost(Exception):
    """The group must start anew: a run failed on this rank while others may wait for it, or another rank is gone."""


def prepare_store(plan: Plan, store: Store, force: bool) -> tuple[Plan, list[str]]:
    """The plan with ids for all of its runs, and the ids of those that have ended well before and need not run.

    With `force` every run gets an id of its own. What failed or was interrupted before loses its record, and runs;
    and where the best is to be kept, what may be the best and was not kept.
    """
    if force:
        anew = [run.model_copy(update={"run_id": _free_id(run.run_id, store)}) for run in plan.runs]
        return plan.model_copy(update={"runs": anew}), []
    earlier = [record for planned in plan.runs if (record := store.read(planned.run_id))]
    ok = [record for record in earlier if record.status == "ok"]
    again = kept.to_do_again(store, ok) if any(planned.keep for planned in plan.runs) else None
    for record in earlier:
        # Each of several machines does, before they meet: else one that comes first takes the run for done.
        if record.status != "ok" or record is again:
            store.remove(record.run_id)
    for planned in plan.runs:
        checkpoints_of(planned, store).check_configuration()
    too_large = {record.run_id for record in earlier if record.status == "oom"}
    runs = [run.model_copy(update={"too_large": run.run_id in too_large}) for run in plan.runs]
    finished = [record.run_id for record in ok if record is not again]
    return plan.model_copy(update={"runs": runs}), finished


def execute(plan: Plan, world: World, observer: SuiteObserver) -> None:
    """Do every run of the plan that has no record yet, and write its record. The first rank does baselines alone.

    Raises KeyboardInterrupt where it was asked to stop, RankLost where a run failed on one of several ranks.
    """
    store = Store(plan.results)
    for number, planned in enumerate(plan.in_order(), start=1):
        if store.has(planned.run_id) or (planned.source.is_baseline and world.rank):
            continue
        observer.run_started(planned, number, len(plan.runs))
        record = _isolated(planned, plan, world, observer, store)
        observer.run_finished(record)
        if record.status == "interrupted":
            raise KeyboardInterrupt
        if record.status in ("failed", "oom") and world.size > 1 and not planned.source.is_baseline:
            raise RankLost(record.error)
        if planned.keep and world.rank == 0:
            kept.drop_all_but_the_best(store, [run.run_id for run in plan.runs])
        gc.collect()
        return_freed_memory()
        if world.device.type == "cuda":
            torch.cuda.empty_cache()


def _isolated(planned: PlannedRun, plan: Plan, world: World, observer: Observer, store: Store) -> Record:
    """Run it; whatever happens, there is a record that says so."""
    outcome, error = Outcome.begin(world), None
    status: records.Status = "ok"
    checkpoints = checkpoints_of(planned, store)
    group = replace(world, size=1) if planned.source.is_baseline else world
    # Of several ranks the others, or the launcher, would tell.
    alone = (
        provided_for(store, make_record(planned, group, outcome, "oom", KILLED)) if world.size == 1 else nullcontext()
    )
    try:
        with alone:
            if planned.source.is_baseline:
                run_baseline(planned, plan.cache, group, observer, outcome)
            else:
                run(planned, plan.cache, checkpoints, group, observer, outcome)
                if planned.keep:
                    kept.keep(store, planned, outcome, group)
    except Diverged as diverged:
        status, error, outcome.curve = "diverged", str(diverged), diverged.curve
    except KeyboardInterrupt:
        if world.size > 1:
            raise  # the launcher knows whether somebody asked for it or it starts the group anew
        status, error = "interrupted", "interrupted"
    except (torch.OutOfMemoryError, MemoryError) as problem:
        status, error = "oom", _reason(problem)
    except Exception as problem:
        if world.size > 1 and is_loss_of_a_rank(problem):
            return _lost(planned, world, outcome, store, problem)
        is_oom = isinstance(problem, RuntimeError) and "can't allocate memory" in str(problem)
        status, error = ("oom" if is_oom else "failed"), _reason(problem)
    record = make_record(planned, group, outcome, status, error)
    if world.rank == 0 or status in ("failed", "oom"):
        _write(store, record, outcome)
        if status == "ok":
            checkpoints.remove()
    return record


def checkpoints_of(planned: PlannedRun, store: Store) -> Checkpoints:
    folder = store.runs / planned.run_id / "checkpoints"
    return Checkpoints(folder, planned.config.model_dump(mode="json"), planned.config.training.checkpoint_steps)


def _lost(planned: PlannedRun, world: World, outcome: Outcome, store: Store, problem: BaseException) -> Record:
    """The record of a run whose other rank is gone; if that rank has told its own reason, it stands.

    Raises RankLost without one where the group may start again: the run goes on from its last checkpoint then.
    """
    status, told = why_lost(outcome.memory.kernel_kills_before)
    error = f"{_reason(problem)}\n{told}: rank {world.rank} gets no answer; {world.last_notes()}"
    if world.restarts_left:
        raise RankLost(error) from problem
    record = make_record(planned, world, outcome, status, error)
    if not store.has(planned.run_id):
        store.write(record)
    return record


def why_lost(kernel_kills_before: int) -> tuple[records.Status, str]:
    """How a run ends that lost a rank, and in words why: whether the kernel killed for want of memory meanwhile."""
    killed = kernel_kills() - kernel_kills_before
    if killed:
        return "oom", f"a rank was lost, and the kernel killed {killed} process(es) of this machine for want of memory"
    return "failed", "a rank was lost"


def _write(store: Store, record: Record, outcome: Outcome) -> None:
    """The files beside the record first: where a record stands, its run is complete."""
    if len(outcome.curve):
        store.write_curve(record.run_id, outcome.curve)
    if outcome.test is not None:
        frame = predictions_frame(outcome.test.index, outcome.test.labels, outcome.test_shares, outcome.classes)
        store.write_predictions(record.run_id, frame)
    store.write(record)


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
