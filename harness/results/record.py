"""The record of a run and its schema.

A record lies in RESULTS/runs/<run_id>/record.json, written atomically, with `predictions.csv` (the test texts) and
`losses.csv` (each training step) beside it. `record.schema.json` in this package is the JSON Schema of this file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from harness.config.strategy import Phase
from harness.errors import UserError
from harness.metrics import MetricName
from harness.results.quality import AllMetrics, Calibration, Forgetting, Part

SCHEMA_VERSION = 2
SCHEMA_FILE = Path(__file__).with_name("record.schema.json")
BASELINE = "baseline"

Status = Literal["ok", "oom", "diverged", "failed", "interrupted"]


class EpochScore(Part):
    """On the validation texts: the metric that decides, and the mean cross-entropy in nats."""

    value: float
    loss: float


class Epochs(Part):
    """What was trained where the validation texts decided on it (`training.keep`, `training.patience`).

    kept: the number of the epoch whose parameters gave all results, from 1. metric: that decided. scores: after each
    epoch that ran.
    """

    kept: int
    metric: MetricName
    scores: list[EpochScore]


class HeadFit(Part):
    """How the head was fitted before any step (`harness/training/head_fit.py`).

    strength: of the L2 penalty, that with the least loss on the validation texts. validation_loss: that loss, mean
    cross-entropy in nats.
    """

    strength: float
    validation_loss: float


class ModelFacts(Part):
    """name, weights: null for a baseline that does not depend on them."""

    name: str | None
    weights: str | None
    weights_sha256: str | None = Field(description="of the checkpoint file; null for random weights")
    parameters: int | None = None
    trainable_parameters: int | None = None


class DataFacts(Part):
    name: str
    sha256: str
    classes: list[str]
    sizes: dict[Literal["train", "validation", "test"], int]
    best_accuracy: float | None = Field(description="the best possible on average, where it is known")
    test_in_train: int = Field(description="test texts that stand in the training set verbatim")
    test_near_train: int = Field(description="the same when digits and punctuation are ignored")
    cut_texts: int = Field(description="texts longer than a row may be, cut")
    notes: list[str] = Field(default=[], description="what was found out and chosen of data of one's own")


class EngineFacts(Part):
    """name: null for a baseline, which needs none."""

    name: str | None
    zero_stage: int | None
    world_size: int


class PrefixFacts(Part):
    """boundary: the first stage above the cut.

    computed_tokens: that the prefix computed: where features are stored those of distinct texts, once, and of texts
    that begin alike their beginning once; else every token of every pass. reused_tokens: the same that a store
    supplied; where it supplied what a shorter prefix had computed, the tokens count in both.
    """

    boundary: str
    computed_tokens: int
    reused_tokens: int
    not_stored: str | None = Field(description="why features were not stored; null where they were or there are none")


class Throughput(Part):
    """Steady-state training steps after warm-up; null where a run was shorter than the warm-up."""

    examples_per_second: float | None
    real_tokens_per_second: float | None
    padded_tokens_per_second: float | None


class StepTimes(Part):
    p50: float | None
    p95: float | None


class StepGraphs(Part):
    """Training steps of the first rank as captured CUDA graphs (`harness/training/engines/captured.py`).

    captured: how many, one for each shape of batch that occurred twice; 0 where steps ran kernel by kernel.
    """

    captured: int
    not_captured: str | None = Field(description="why steps ran kernel by kernel; null where they were captured")


class Communication(Part):
    """One training step of the first rank, measured by itself (`harness/measure/communication.py`)."""

    bytes_by_collective: dict[str, float] = Field(description="of the tensors handed to each kind of collective")
    milliseconds_per_step: float = Field(description="in collectives, waiting for other ranks included")


class Seconds(Part):
    """total: from the data to the end of the final evaluation."""

    prepare: float | None
    features: float | None
    train: float | None
    evaluate: float | None
    total: float


class RankMemory(Part):
    """Bytes, by `definition`. at_start: before the run, after imports and earlier runs. phases: the peak of each."""

    rank: int
    at_start: int
    phases: dict[str, int]
    reserved: dict[str, int] = Field(description="the CUDA allocator's reserved bytes; empty on a CPU")


class Memory(Part):
    peak_bytes: int
    definition: str
    by_rank: list[RankMemory]

    @property
    def grown_bytes(self) -> int:
        """The peak above what a rank held when the run began: runs before it in the same process leave caches."""
        return max(peak - rank.at_start for rank in self.by_rank for peak in rank.phases.values())


class Energy(Part):
    """What the hardware's own counters say, of all ranks, over the phases of `seconds` (`harness/measure/energy.py`).

    watt_hours: in all; null where nothing was measured. phases, parts: of each phase, of each part of the
    hardware. per_thousand_predictions: of the evaluation and the features of its texts; null where these were read from
    a store, or others were computed too.
    """

    watt_hours: float | None = None
    phases: dict[str, float] = Field(default={}, description="watt-hours")
    parts: dict[str, float] = Field(default={}, description="watt-hours: GPU, CPU package, DRAM")
    per_thousand_predictions: float | None = Field(default=None, description="watt-hours")
    measured_by: str | None = Field(default=None, description="the library and its version")
    not_measured: list[str] = Field(default=[], description="what was not, and why")


class StrategySource(Part):
    """origin: `built in`, `baseline`, or where else the strategy's code came from."""

    origin: str
    sha256: str

    @property
    def is_baseline(self) -> bool:
        return self.origin == BASELINE

    @property
    def is_outside(self) -> bool:
        return self.origin not in ("built in", BASELINE)

    @property
    def warning(self) -> str:
        """What a reader must know about code from outside."""
        return f"runs code from outside the harness: {self.origin} (sha256 {self.sha256[:12]})"


class Record(Part):
    schema_version: Literal[2] = SCHEMA_VERSION
    run_id: str
    identity: str = Field(description="hash of configuration, content hashes and code: recognises a finished run")
    status: Status
    strategy: str
    strategy_source: StrategySource
    readout: str | None = Field(description="null for a baseline")
    attention: str | None = Field(default=None, description="causal or full; null for a baseline")
    phases: tuple[Phase, ...] = Field(default=("steps",), description="of training, in order; none of a baseline")
    seed: int
    precision: str | None = Field(description="null for a baseline that does not depend on it")
    choices: dict[str, str] = Field(description="what `auto` chose, and why")
    model: ModelFacts
    data: DataFacts | None = None
    engine: EngineFacts
    metrics: AllMetrics | None = None
    calibration: Calibration | None = Field(default=None, description="null in records of versions that lack it")
    forgetting: Forgetting | None = Field(default=None, description="null where the configuration does not ask for it")
    prefix: PrefixFacts | None = None
    joint_runs: int | None = Field(
        default=None,
        description="how many runs were trained as one model, of whose time this one has its share; else null",
    )
    resumed_from_step: int | None = None
    epochs: Epochs | None = Field(
        default=None,
        description="null where the validation texts were not asked: all ran, the last was kept",
    )
    head_fit: HeadFit | None = Field(default=None, description="null where no phase fits the head")
    sweep_around: float | None = Field(
        default=None, description="the common learning rate, where this run is a point of a sweep of rates; else null"
    )
    throughput: Throughput | None = None
    step_milliseconds: StepTimes | None = None
    graphs: StepGraphs | None = Field(default=None, description="null on a CPU")
    communication: Communication | None = Field(default=None, description="null for a single rank")
    seconds: Seconds
    memory: Memory | None = None
    energy: Energy | None = Field(default=None, description="null in records of older versions, and of lost runs")
    environment: dict[str, Any]
    config: dict[str, Any] = Field(description="of a baseline only what it depends on")
    finished_at: str
    error: str | None = None

    @property
    def reason(self) -> str:
        """Why the run did not end well, in one line: the last of `error`."""
        return (self.error or "no reason recorded").splitlines()[-1]

    @property
    def jobs(self) -> int:
        """How many runs were done side by side; 1 where it ran alone, as all records of older versions did."""
        return self.environment.get("jobs", 1)

    @property
    def takes_steps(self) -> bool:
        return "steps" in self.phases

    @property
    def ok_metrics(self) -> AllMetrics:
        """The metrics of a run whose status is ok."""
        assert self.metrics is not None, f"{self.run_id} has no metrics: its status is {self.status}"
        return self.metrics

    def on_validation(self, metric: MetricName) -> float:
        """Of a run whose status is ok. Raises UserError for an older record, which lacks the metric."""
        value = getattr(self.ok_metrics.validation, metric)
        if value is None:
            raise UserError(f"METRIC={metric}: the record {self.run_id} lacks it; run it again, or leave METRIC out.")
        return value

    @property
    def ok_data(self) -> DataFacts:
        """The facts about the data of a run whose status is ok."""
        assert self.data is not None, f"{self.run_id} has no facts about its data: its status is {self.status}"
        return self.data


class TrainingCurve(Part):
    """The mean loss and the accuracy of each training step's batch, over all ranks, before the step's update."""

    losses: list[float] = Field(default=[])
    accuracies: list[float] = Field(default=[])

    def __len__(self) -> int:
        return len(self.losses)


def json_schema() -> str:
    return json.dumps(Record.model_json_schema(), indent=2) + "\n"
