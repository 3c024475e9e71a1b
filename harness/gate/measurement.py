"""What the gate keeps of the records of its suite: a `Measurement`.

The reference is one, too (`harness.gate.reference`); `harness.gate.checks` turns two of them into findings.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from harness.planning.plan import PlannedRun
from harness.planning.workspace import Workspace
from harness.results.record import SCHEMA_VERSION as RECORD_SCHEMA_VERSION
from harness.results.record import Record
from harness.results.store import Store

GATE_SCHEMA_VERSION = 3
ENVIRONMENT = ("processor", "cores", "threads", "cpu_capability", "device", "versions", "code_sha256")


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Case(Part):
    """row: of the suite; where it lists none, the strategy. config: without the seed; precision is auto where the
    machine chooses it."""

    row: str
    seed: int
    config: dict[str, Any]


class Subject(Case):
    """What a run measures, known before it runs. messages_sha256: of the indices of the test messages."""

    weights_sha256: str | None
    data_sha256: str
    messages_sha256: str


class Run(Subject):
    """correct: whether each test message, in order of index, was classified right, as packed bits in hex.

    precision: what it ran in; None for a baseline that does not depend on it.
    labels, predicted: of the same messages, numbers of classes in alphabetical order; None in schema version 2.
    trainable_parameters: None for a baseline that trains none. losses: none of a baseline.
    """

    precision: str | None = None
    trainable_parameters: int | None
    messages: int
    correct: str
    labels: list[int] | None = None
    predicted: list[int] | None = None
    losses: list[float] = Field(description="of each training step, six significant digits")

    def answers(self) -> np.ndarray:
        """[messages], True where the message was classified right."""
        return np.unpackbits(np.frombuffer(bytes.fromhex(self.correct), np.uint8), count=self.messages).astype(bool)


class Cost(Case):
    """One seed's run over the plain path's: peak memory above the start of the run, and steps per second."""

    memory: float
    speed: float


class Measurement(Part):
    """costs: none where they were not asked for."""

    schema_version: Literal[3] = GATE_SCHEMA_VERSION
    record_schema_version: int = RECORD_SCHEMA_VERSION
    reason: str | None = Field(default=None, description="why a reference was written")
    finished_at: str
    environment: dict[str, Any]
    runs: list[Run]
    costs: list[Cost]

    def rows(self) -> dict[str, list[Run]]:
        """The runs of each row, in order of their seeds."""
        found: dict[str, list[Run]] = {}
        for run in sorted(self.runs, key=lambda run: run.seed):
            found.setdefault(run.row, []).append(run)
        return {row: found[row] for row in dict.fromkeys(run.row for run in self.runs)}


def case_of(planned: PlannedRun) -> Case:
    config = {key: value for key, value in planned.used.items() if key != "seed"}
    if "precision" in config and planned.choices["precision"].startswith("auto"):
        config["precision"] = "auto"
    return Case(row=planned.title, seed=planned.config.seed, config=config)


def subject_of(planned: PlannedRun, workspace: Workspace) -> Subject:
    return Subject(
        **case_of(planned).model_dump(),
        weights_sha256=planned.model.weights_sha256,
        data_sha256=planned.data_sha256,
        messages_sha256=_sha256(sorted(planned.dataset(workspace).split["test"].index)),
    )


def _sha256(indices: Iterable[int]) -> str:
    return hashlib.sha256(",".join(map(str, indices)).encode()).hexdigest()


def run_of(subject: Subject, record: Record, store: Store) -> Run:
    predictions, curve = store.predictions(record.run_id), store.curve(record.run_id)
    assert predictions is not None, f"{record.run_id} has no predictions.csv"
    frame = predictions.sort_values("index")
    assert _sha256(frame["index"]) == subject.messages_sha256, f"{record.run_id} was not tested on what was planned"
    numbers = {name: number for number, name in enumerate(sorted(record.ok_data.classes))}
    labels, predicted = (frame[column].map(numbers) for column in ("label", "predicted"))
    return Run(
        **subject.model_dump(),
        precision=record.precision,
        trainable_parameters=record.model.trainable_parameters,
        messages=len(frame),
        correct=np.packbits(labels == predicted).tobytes().hex(),
        labels=labels.tolist(),
        predicted=predicted.tolist(),
        losses=[] if curve is None else [float(f"{loss:.6g}") for loss in curve["loss"]],
    )


def cost_of(case: Case, fast: Record, plain: Record) -> Cost:
    """Records of the same row and seed."""
    fast_bytes, fast_milliseconds = _bytes_and_milliseconds(fast)
    plain_bytes, plain_milliseconds = _bytes_and_milliseconds(plain)
    return Cost(
        **case.model_dump(),
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


def measurement_of(environment: dict[str, Any], runs: list[Run], costs: list[Cost]) -> Measurement:
    """environment: of a record of the runs."""
    return Measurement(
        finished_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        environment={key: environment[key] for key in ENVIRONMENT},
        runs=runs,
        costs=costs,
    )
