"""The gate measures: a small suite is run again, and a `Measurement` is what the gate keeps of its records.

The reference is a `Measurement`, too (`harness.gate.reference`); `harness.gate.checks` turns two of them into findings.
"""

from __future__ import annotations

import datetime
import hashlib
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from harness.config.suite import load_suite
from harness.experiment.runner import checkpoints_of, prepare_store
from harness.launch.launcher import launch
from harness.planning.plan import Plan, resolve
from harness.planning.workspace import Workspace
from harness.results.record import SCHEMA_VERSION as RECORD_SCHEMA_VERSION
from harness.results.record import Record
from harness.results.store import Store

ROOT = Path(__file__).parents[2]
SUITE = ROOT / "configs" / "gate.yaml"
COST_SUITE = ROOT / "configs" / "gate_cost.yaml"
GATE_SCHEMA_VERSION = 2
# All peaks of a process are a little higher or lower, depending on the layout of its heap (docs/gate.md): the pairs of
# cost runs are distributed over several.
COST_PROCESSES = 8

ENVIRONMENT = ("processor", "cores", "threads", "cpu_capability", "device", "versions", "code_sha256")


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Run(Part):
    """messages_sha256: of the indices of the test messages. correct: whether each of them, in order of index, was
    classified right, as packed bits in hex."""

    strategy: str
    seed: int
    config: dict[str, Any]
    weights_sha256: str | None
    data_sha256: str
    trainable_parameters: int
    messages: int
    messages_sha256: str
    correct: str
    losses: list[float] = Field(description="of each training step, six significant digits")

    def answers(self) -> np.ndarray:
        """[messages], True where the message was classified right."""
        return np.unpackbits(np.frombuffer(bytes.fromhex(self.correct), np.uint8), count=self.messages).astype(bool)


class Cost(Part):
    """One seed's run over the plain path's: peak memory above the start of the run, and steps per second."""

    strategy: str
    seed: int
    config: dict[str, Any]
    memory: float
    speed: float


class Measurement(Part):
    schema_version: Literal[2] = GATE_SCHEMA_VERSION
    record_schema_version: int = RECORD_SCHEMA_VERSION
    reason: str | None = Field(default=None, description="why a reference was written")
    finished_at: str
    environment: dict[str, Any]
    runs: list[Run]
    costs: list[Cost]


class FailedRuns(Exception):
    """Runs of the suite did not end well; their records give the reasons."""

    def __init__(self, records: list[Record]) -> None:
        super().__init__(", ".join(record.run_id for record in records))
        self.records = records


def rerun(results: Path) -> Measurement:
    """Run the suite again below `results`/gate, with an empty cache: features of older code would hide a change.

    Raises FailedRuns where a run did not end well.
    """
    store = Store(results / "gate")
    store.check_writable()
    with tempfile.TemporaryDirectory(dir=store.results, prefix="cache-") as cache:
        suite, costs = suite_plan(store.results, Path(cache)), cost_plans(store.results, Path(cache))
        for run in [*suite.runs, *(run for plan in costs for run in plan.runs)]:
            store.remove(run.run_id)
            checkpoints_of(run, store).remove()  # a resumed run would time its last steps only
        launch(prepare_store(suite, store, force=False)[0])
        measure_costs(costs, store)
    suite_records = _records_of([suite], store)
    cost_records = _records_of(costs, store)
    failed = [record for record in suite_records + cost_records if record.status != "ok"]
    if failed:
        raise FailedRuns(failed)
    return measurement(store, suite_records, cost_records)


def _records_of(plans: list[Plan], store: Store) -> list[Record]:
    records = [store.read(run.run_id) for plan in plans for run in plan.runs]
    found = [record for record in records if record]
    assert len(found) == len(records), "the launcher returned, and a run has no record"
    return found


def suite_plan(results: Path, cache: Path, seeds: list[int] | None = None) -> Plan:
    """The runs of the gate's suite; seeds: instead of its own."""
    return resolve(load_suite(SUITE, {"seed": seeds}, []), results, Workspace(cache))


def cost_plans(results: Path, cache: Path, seeds: list[int] | None = None) -> list[Plan]:
    """The cost runs of each of COST_PROCESSES processes: pairs of a fast run and its plain path."""
    workspace = Workspace(cache)
    fast, plain = (
        resolve(load_suite(COST_SUITE, {"seed": seeds, "plain": is_plain}, []), results, workspace).runs
        for is_plain in (False, True)
    )
    pairs = list(zip(fast, plain, strict=True))
    by_process = [pairs[first::COST_PROCESSES] for first in range(min(COST_PROCESSES, len(pairs)))]
    return [
        Plan(
            runs=[run for pair in its_pairs for run in pair],
            results=results,
            cache=cache,
            code_sha256=workspace.code_sha256(),
            quiet=True,
        )
        for its_pairs in by_process
    ]


def measure_costs(plans: list[Plan], store: Store) -> None:
    """Run each plan in a process of its own, one after the other."""
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as fresh:
        for plan in plans:
            fresh.submit(launch, prepare_store(plan, store, force=False)[0]).result()


def measurement(store: Store, suite: list[Record], costs: list[Record]) -> Measurement:
    """What the gate keeps of its suite's records; costs: of the cost runs, each before that of its plain path."""
    return Measurement(
        finished_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        environment={key: suite[0].environment[key] for key in ENVIRONMENT},
        runs=[_run(store, record) for record in suite],
        costs=[cost(fast, plain) for fast, plain in zip(costs[::2], costs[1::2], strict=True)],
    )


def _run(store: Store, record: Record) -> Run:
    predictions, curve = store.predictions(record.run_id), store.curve(record.run_id)
    assert predictions is not None, f"{record.run_id} has no predictions.csv"
    assert curve is not None, f"{record.run_id} has no losses.csv"
    assert record.model.trainable_parameters is not None, f"{record.run_id} trained nothing"
    frame = predictions.sort_values("index")
    return Run(
        strategy=record.strategy,
        seed=record.seed,
        config=_without_seed(record),
        weights_sha256=record.model.weights_sha256,
        data_sha256=record.ok_data.sha256,
        trainable_parameters=record.model.trainable_parameters,
        messages=len(frame),
        messages_sha256=hashlib.sha256(",".join(map(str, frame["index"])).encode()).hexdigest(),
        correct=np.packbits(frame["label"] == frame["predicted"]).tobytes().hex(),
        losses=[float(f"{loss:.6g}") for loss in curve["loss"]],
    )


def cost(fast: Record, plain: Record) -> Cost:
    """Both of the same strategy and seed."""
    fast_bytes, fast_milliseconds = _bytes_and_milliseconds(fast)
    plain_bytes, plain_milliseconds = _bytes_and_milliseconds(plain)
    return Cost(
        strategy=fast.strategy,
        seed=fast.seed,
        config=_without_seed(fast),
        memory=fast_bytes / plain_bytes,
        speed=plain_milliseconds / fast_milliseconds,
    )


def _bytes_and_milliseconds(record: Record) -> tuple[int, float]:
    """The peak of memory above the start of the run, and the median step."""
    assert record.memory is not None, f"{record.run_id} has no memory measured"
    assert record.step_milliseconds is not None, f"{record.run_id} has no steps measured"
    median = record.step_milliseconds.p50
    assert median is not None, f"{record.run_id} has fewer steps than the warm-up"
    return record.memory.grown_bytes, median


def _without_seed(record: Record) -> dict[str, Any]:
    return {key: value for key, value in record.config.items() if key not in ("strategy", "seed")}
