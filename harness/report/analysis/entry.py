"""A row of a table: all seeds of one strategy, and the evidence for or against it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from harness import statistics
from harness.metrics import ACCURACY, Metric, MetricName
from harness.results.record import Record


@dataclass(frozen=True)
class Score:
    """A metric on test: its mean over seeds, and the 95% interval, which is over what Entry's is."""

    mean: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Evidence:
    """An entry against the reference, on the seeds whose runs are ok for both, by the metric of the table: its
    difference, in which accuracies are from 0 to 1.

    corrected_p: Holm's, over the table's comparisons. seeds_needed, messages_needed: what would probably settle a row
    without evidence; None where the verdict is clear, one seed was compared, no number would do, or the metric is not
    accuracy.
    """

    reference: str
    seeds: list[int]
    difference: float
    interval: tuple[float, float]
    p: float
    corrected_p: float
    verdict: statistics.Verdict
    seeds_needed: int | None
    messages_needed: int | None


@dataclass
class Entry:
    """All seeds of one strategy with what the configuration changed of it; ok: the records whose status is ok.

    interval: 95%, of the mean test accuracy: over seeds and messages where two seeds or more are ok, else over messages
    only. unpaired: the reason why its seeds' predictions can't be taken together; incomparable: the reason why not with
    the reference's. predictions: by seed, the columns label and predicted, indices of classes, by index of the test
    message. metric: what the table compares entries by. price: of an
    hour of a device; None: no costs are shown. scores: of metrics other than accuracy.
    """

    name: str
    records: list[Record]
    ok: list[Record]
    interval: tuple[float, float] | None = None
    evidence: Evidence | None = None
    unpaired: str | None = None
    incomparable: str | None = None
    predictions: dict[int, pd.DataFrame] = field(default_factory=dict, repr=False)
    metric: Metric = ACCURACY
    price: float | None = None
    scores: dict[MetricName, Score] = field(default_factory=dict)

    @property
    def shown(self) -> list[Record]:
        """The records whose values the row shows: without an ok run, what the first one measured."""
        return self.ok or self.records[:1]

    @property
    def timed(self) -> list[Record]:
        """The records of `shown` that were trained by themselves; where none was, all, whose times are shares."""
        return [record for record in self.shown if not record.joint_runs] or self.shown

    @property
    def costs(self) -> list[float]:
        """Of the runs of `timed`, in the currency of the price."""
        assert self.price is not None, "costs are asked for where there is a price"
        return [device_hours(record) * self.price for record in self.timed]

    @property
    def jobs(self) -> set[int]:
        """How many runs were done side by side, where time, speed and memory were measured."""
        return {record.jobs for record in self.shown}

    @property
    def correct(self) -> dict[int, pd.Series]:
        """By seed, whether each test message was classified right, by index of the message."""
        return {seed: frame["label"] == frame["predicted"] for seed, frame in self.predictions.items()}

    @property
    def is_baseline(self) -> bool:
        return self.records[0].strategy_source.is_baseline

    @property
    def runs_once(self) -> bool:
        """A baseline varies with the seed only where that draws its training texts; else its one run is compared with
        every seed of another entry."""
        return self.is_baseline and not self.records[0].config.get("training", {}).get("texts")

    @property
    def accuracies(self) -> list[float]:
        """On test, of each seed whose run is ok."""
        return [record.ok_metrics.test.accuracy for record in self.ok]

    @property
    def accuracy(self) -> float | None:
        """On test, mean over seeds."""
        return float(np.mean(self.accuracies)) if self.ok else None

    @property
    def score(self) -> Score | None:
        """By the metric of the table; None without an ok run, or where its predictions can't be read."""
        if self.metric is not ACCURACY:
            return self.scores.get(self.metric.name)
        return Score(self.accuracy, self.interval) if self.accuracy is not None and self.interval else None

    @property
    def ok_accuracy(self) -> float:
        """The accuracy of an entry with an ok run."""
        assert self.accuracy is not None, f"no run of {self.name} is ok"
        return self.accuracy

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the test accuracy over seeds."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.ok) > 1 else None

    @property
    def failures(self) -> list[Record]:
        return [record for record in self.records if record.status != "ok"]


def device_hours(record: Record) -> float:
    """What a run pays for: its GPUs, or without GPUs its machines, of which it has a part where runs are done side by
    side. A baseline has one of either."""
    hours = record.seconds.total / 3600
    if record.environment["device"] != "cpu":
        return hours * record.engine.world_size
    machines = 1 if record.strategy_source.is_baseline else record.config["engine"]["nodes"]
    return hours * machines / record.jobs


def are_costs_comparable(entries: Iterable[Entry]) -> bool:
    """Whether all had as many runs beside them: neighbours take cores, caches and bandwidth from each other."""
    return len({number for entry in entries for number in entry.jobs}) < 2
