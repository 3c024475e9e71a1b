"""Which runs, one after the other: skips what is done, isolates what fails."""

from __future__ import annotations

import gc
import traceback
from typing import Protocol

import torch

from harness import records
from harness.engine.world import World
from harness.plan import Plan, PlannedRun
from harness.records import Record, Store, predictions_frame
from harness.run import Observer, Outcome, make_record, run
from harness.train import Diverged


class SuiteObserver(Observer, Protocol):
    def run_started(self, planned: PlannedRun, number: int, total: int) -> None: ...

    def run_finished(self, record: Record) -> None: ...


class RankLost(Exception):
    """A run failed on this rank while others may wait for it: the worker group must start anew. Its record is written."""


def keep_unfinished(plan: Plan, store: Store, force: bool) -> tuple[Plan, list[str]]:
    """The plan without the runs that have ended well before, and the ids of those; with `force`, all of it anew.

    What failed or was interrupted before runs again, in place of its old record.
    """
    finished, pending = [], []
    for planned in plan.runs:
        if force:
            planned = planned.model_copy(update={"run_id": _free_id(planned.run_id, store)})
        elif store.has(planned.run_id):
            if store.read(planned.run_id).status == "ok":
                finished.append(planned.run_id)
                continue
            store.remove(planned.run_id)
        pending.append(planned)
    return plan.model_copy(update={"runs": pending}), finished


def execute(plan: Plan, world: World, observer: SuiteObserver) -> None:
    """Do every run of the plan that has no record yet, and write its record.

    Raises KeyboardInterrupt after the record of an interrupted run, RankLost after that of a run that failed on one
    of several ranks.
    """
    store = Store(plan.results)
    for number, planned in enumerate(plan.runs, start=1):
        if store.has(planned.run_id):
            continue
        observer.run_started(planned, number, len(plan.runs))
        record = _isolated(planned, plan, world, observer, store)
        observer.run_finished(record)
        if record.status == "interrupted":
            raise KeyboardInterrupt
        if record.status in ("failed", "oom") and world.size > 1:
            raise RankLost(record.error)
        gc.collect()
        if world.device.type == "cuda":
            torch.cuda.empty_cache()


def _isolated(planned: PlannedRun, plan: Plan, world: World, observer: Observer, store: Store) -> Record:
    """Run it; whatever happens, there is a record that says so."""
    outcome, error = Outcome.begin(world), None
    status: records.Status = "ok"
    try:
        run(planned, plan.cache, world, observer, outcome)
    except Diverged as diverged:
        status, error, outcome.losses = "diverged", str(diverged), diverged.losses
    except KeyboardInterrupt:
        status, error = "interrupted", "interrupted"
    except (torch.OutOfMemoryError, MemoryError) as problem:
        status, error = "oom", _reason(problem)
    except Exception as problem:
        is_oom = isinstance(problem, RuntimeError) and "can't allocate memory" in str(problem)
        status, error = ("oom" if is_oom else "failed"), _reason(problem)
    record = make_record(planned, world, outcome, status, error)
    if world.rank == 0 or status in ("failed", "oom"):
        _write(store, record, outcome)
    return record


def _write(store: Store, record: Record, outcome: Outcome) -> None:
    """The files beside the record first: where a record stands, its run is complete."""
    if outcome.losses:
        store.write_losses(record.run_id, outcome.losses)
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
