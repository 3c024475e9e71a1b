"""The gate: a small suite run again and compared with a committed reference; docs/gate.md says how often it errs.

A `Measurement` is what the gate keeps of a suite, rerun or reference alike; `harness.gate.checks` makes findings of two
of them.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.config.suite import load_suite
from harness.config.tree import differences, first_mistake
from harness.distributed.signals import StopSignals
from harness.errors import UserError
from harness.experiment.runner import checkpoints_of, prepare_store
from harness.files import write_atomically
from harness.launch.launcher import launch
from harness.planning.plan import Plan, resolve
from harness.planning.workspace import Workspace
from harness.results.record import SCHEMA_VERSION as RECORD_SCHEMA_VERSION
from harness.results.record import Record
from harness.results.store import Store

ROOT = Path(__file__).parents[2]
SUITE = ROOT / "configs" / "gate.yaml"
COST_SUITE = ROOT / "configs" / "gate_cost.yaml"
REFERENCE = ROOT / "results" / "reference" / "gate"
GATE_SCHEMA_VERSION = 2
# The peaks of one process are all higher or lower by some 4%, as its heap happens to lie; so the pairs of cost runs are
# shared out among several.
COST_PROCESSES = 8

ENVIRONMENT = ("processor", "cores", "threads", "cpu_capability", "device", "versions", "code_sha256")


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Run(Part):
    """messages_sha256: of the indices of the test messages. correct: whether each of them, in their order, was answered
    right, as packed bits in hex."""

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
        """[messages], True where the answer was right."""
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
    reason: str | None = Field(None, description="why a reference was written")
    finished_at: str
    environment: dict[str, Any]
    runs: list[Run]
    costs: list[Cost]


class FailedRuns(Exception):
    """Runs of the suite did not end well; the records say why."""

    def __init__(self, records: list[Record]) -> None:
        super().__init__(", ".join(record.run_id for record in records))
        self.records = records


def rerun(results: Path) -> Measurement:
    """Run the suite anew below `results`/gate, with nothing stored: what an older code computed would hide a change.

    Raises FailedRuns where a run did not end well.
    """
    store = Store(results / "gate")
    store.check_writable()
    with tempfile.TemporaryDirectory(dir=store.results, prefix="cache-") as cache:
        suite, costs = suite_plan(store.results, Path(cache)), cost_plans(store.results, Path(cache))
        for run in [*suite.runs, *(run for plan in costs for run in plan.runs)]:
            store.remove(run.run_id)
            checkpoints_of(run, store, StopSignals()).remove()  # the times of a run that goes on are of its last steps
        launch(prepare_store(suite, store, force=False)[0])
        measure_costs(costs, store)
    records, of_costs = ([store.read(run.run_id) for plan in plans for run in plan.runs] for plans in ([suite], costs))
    failed = [record for record in records + of_costs if record.status != "ok"]
    if failed:
        raise FailedRuns(failed)
    return measurement(store, records, of_costs)


def suite_plan(results: Path, cache: Path, seeds: list[int] | None = None) -> Plan:
    """The suite's runs, with other seeds where they are given."""
    return resolve(load_suite(SUITE, {"seed": seeds}, []), results, Workspace(cache))


def cost_plans(results: Path, cache: Path, seeds: list[int] | None = None) -> list[Plan]:
    """What each of COST_PROCESSES processes does of the cost runs: pairs of a fast run and its plain path."""
    workspace = Workspace(cache)
    fast, plain = (
        resolve(load_suite(COST_SUITE, {"seed": seeds, "plain": is_plain}, []), results, workspace).runs
        for is_plain in (False, True)
    )
    pairs = list(zip(fast, plain, strict=True))
    shares = [pairs[first::COST_PROCESSES] for first in range(min(COST_PROCESSES, len(pairs)))]
    return [
        Plan(runs=[run for pair in share for run in pair], results=results, cache=cache, quiet=True) for share in shares
    ]


def measure_costs(plans: list[Plan], store: Store) -> None:
    """Each plan in a process of its own, one after the other."""
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as fresh:
        for plan in plans:
            fresh.submit(launch, prepare_store(plan, store, force=False)[0]).result()


def measurement(store: Store, suite: list[Record], costs: list[Record]) -> Measurement:
    """What the gate keeps of the records of its suite and of the pairs of its cost runs."""
    return Measurement(
        finished_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        environment={key: suite[0].environment[key] for key in ENVIRONMENT},
        runs=[_run(store, record) for record in suite],
        costs=[cost(fast, plain) for fast, plain in zip(costs[::2], costs[1::2], strict=True)],
    )


def _run(store: Store, record: Record) -> Run:
    frame = store.predictions(record.run_id).sort_values("index")
    losses = pd.read_csv(store.runs / record.run_id / "losses.csv")["loss"]
    return Run(
        strategy=record.strategy,
        seed=record.seed,
        config=_without_seed(record),
        weights_sha256=record.model.weights_sha256,
        data_sha256=record.data.sha256,
        trainable_parameters=record.model.trainable_parameters,
        messages=len(frame),
        messages_sha256=hashlib.sha256(",".join(map(str, frame["index"])).encode()).hexdigest(),
        correct=np.packbits(frame["label"] == frame["predicted"]).tobytes().hex(),
        losses=[float(f"{loss:.6g}") for loss in losses],
    )


def cost(fast: Record, plain: Record) -> Cost:
    return Cost(
        strategy=fast.strategy,
        seed=fast.seed,
        config=_without_seed(fast),
        memory=fast.memory.grown_bytes / plain.memory.grown_bytes,
        speed=plain.step_milliseconds.p50 / fast.step_milliseconds.p50,
    )


def _without_seed(record: Record) -> dict[str, Any]:
    return {key: value for key, value in record.config.items() if key not in ("strategy", "seed")}


def read_reference(folder: Path) -> Measurement:
    """Raises UserError for a reference that is missing, empty, damaged, or of another schema version."""
    path, remedy = folder / "reference.json", 'write one with `make gate-update REASON="..."`'
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"gate reference {str(path)!r} can't be read ({error.strerror}): {remedy}.") from error
    except ValueError as error:
        raise UserError(f"gate reference {str(path)!r} is no JSON ({error}): restore it, or {remedy}.") from error
    if not isinstance(tree, dict) or not tree.get("runs") or not tree.get("costs"):
        raise UserError(f"gate reference {str(path)!r} is empty: it holds no runs to compare with; {remedy}.")
    versions = [("schema_version", GATE_SCHEMA_VERSION), ("record_schema_version", RECORD_SCHEMA_VERSION)]
    for name, expected in versions:
        if tree.get(name) != expected:
            raise UserError(
                f"gate reference {str(path)!r} has {name} {tree.get(name)!r}, and this ftbench writes {expected}: "
                f"they can't be compared; {remedy}."
            )
    try:
        return Measurement.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"gate reference {str(path)!r} is damaged ({first_mistake(error)}): {remedy}.") from error


def write_reference(folder: Path, measured: Measurement, reason: str) -> Path:
    """The measurement as the new reference, with the reason.

    Raises UserError without a reason.
    """
    check_reason(reason)
    tree = measured.model_copy(update={"reason": reason.strip()}).model_dump(mode="json")
    # One line a run: a reference that changes shows in a diff which runs did.
    parts = {key: json.dumps(value) for key, value in tree.items()}
    for key in ("runs", "costs"):
        parts[key] = "[\n" + ",\n".join(json.dumps(entry) for entry in tree[key]) + "\n]"
    content = "{\n" + ",\n".join(f"{json.dumps(key)}: {value}" for key, value in parts.items()) + "\n}\n"
    write_atomically(folder / "reference.json", content)
    return folder / "reference.json"


def check_reason(reason: str) -> None:
    if not reason.strip():
        raise UserError('a new gate reference needs a reason: make gate-update REASON="what changed, and why".')


def check_comparable(reference: Measurement, measured: Measurement) -> None:
    """Raises UserError where the two were not measured on the same weights, data and configuration, and says which."""
    different = []
    for what, old, new in (("runs", reference.runs, measured.runs), ("cost runs", reference.costs, measured.costs)):
        named_old, named_new = ({(run.strategy, run.seed): run for run in runs} for runs in (old, new))
        if named_old.keys() != named_new.keys():
            told = (", ".join(f"{name} seed {seed}" for name, seed in named) for named in (named_old, named_new))
            different.append("configuration of the {}: reference {}; now {}".format(what, *told))
            continue
        for key, run in named_old.items():
            different += _differences(run, named_new[key])
    if different:
        raise UserError(
            f"the gate compares like with like only, and these differ: {'; '.join(dict.fromkeys(different))}. Undo the "
            'change, or write a new reference: make gate-update REASON="...".'
        )


def _differences(old: Run | Cost, new: Run | Cost) -> Iterator[str]:
    parts = (("weights", "weights_sha256"), ("data", "data_sha256"), ("test messages", "messages_sha256"))
    for part, key in parts:
        before, after = getattr(old, key, None), getattr(new, key, None)
        if before != after:
            yield f"{part} (sha256): reference {str(before)[:12]}; now {str(after)[:12]}"
    for key, (before, after) in sorted(differences(old.config, new.config).items()):
        yield f"configuration {key}: reference {before!r}; now {after!r}"
