"""Sweeps of the learning rate: each strategy's accuracy at each rate, its best rate, and the cost."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from harness.metrics import MetricName
from harness.results.names import rate_of, variant_name
from harness.results.record import Record


@dataclass(frozen=True)
class SweepPoint:
    """Means over the seeds of the sweep. validation_metric: what the best rate is chosen by."""

    rate: float
    validation_metric: float
    validation_accuracy: float
    validation_loss: float
    test_accuracy: float


@dataclass(frozen=True)
class SweepCurve:
    """A strategy's points, by rising rate.

    code: the strategy's sha256. strategy: as it was asked for. seconds: of its runs, without those at the common rate.
    failed: the rates that are left out because the run of a seed is not ok. metric: of `validation_metric`.
    """

    name: str
    code: str
    strategy: str
    common: float
    seeds: list[int]
    points: list[SweepPoint]
    seconds: float
    failed: list[float]
    metric: MetricName

    @property
    def best(self) -> SweepPoint:
        """By the metric on the validation texts, ties by their loss; test is not used."""
        return max(self.points, key=lambda point: (point.validation_metric, -point.validation_loss))

    @property
    def is_best_at_end(self) -> bool:
        """Whether the best rate is the lowest or highest that was tried."""
        tried = [*(point.rate for point in self.points), *self.failed]
        return self.best.rate in (min(tried), max(tried))


def curves(records: list[Record], metric: MetricName = "accuracy") -> list[SweepCurve]:
    """One for each strategy that was swept; records: under the same conditions."""
    by_code: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if not record.strategy_source.is_baseline:
            by_code.setdefault(_code(record), []).append(record)
    swept = [of_code for of_code in by_code.values() if any(record.sweep_around for record in of_code)]
    return [curve for of_code in swept if (curve := _curve(of_code, metric))]


def _code(record: Record) -> tuple[str, str]:
    return variant_name(record), record.strategy_source.sha256


def _curve(records: list[Record], metric: MetricName) -> SweepCurve | None:
    """None where no rate has an ok run.

    A rate is left out where one of the sweep's seeds failed at it, a seed where it failed at every rate.
    """
    by_rate: dict[float, dict[int, Record]] = {}
    swept = {record.seed for record in records if record.sweep_around}
    swept &= {record.seed for record in records if record.status == "ok"}
    failed = {rate_of(record) for record in records if record.status != "ok" and record.seed in swept}
    for record in records:
        if record.status == "ok" and record.seed in swept and rate_of(record) not in failed:
            by_rate.setdefault(rate_of(record), {})[record.seed] = record
    if not by_rate:
        return None
    seeds = set.intersection(*(set(of_rate) for of_rate in by_rate.values()))
    if not seeds:  # the sweep was interrupted
        return None
    points = [
        _point(rate, [of_rate[seed] for seed in sorted(seeds)], metric) for rate, of_rate in sorted(by_rate.items())
    ]
    common = next(rate for record in records if (rate := record.sweep_around))
    seconds = sum(record.seconds.total for record in records if record.sweep_around and record.seed in seeds)
    name, code = _code(records[0])
    strategy = records[0].config["strategy"]
    return SweepCurve(name, code, strategy, common, sorted(seeds), points, seconds, sorted(failed), metric)


def _point(rate: float, records: list[Record], metric: MetricName) -> SweepPoint:
    validation = [record.ok_metrics.validation for record in records]
    # From counts: equally good rates must not differ by a rounding error.
    accuracy = sum(part.correct for part in validation) / sum(part.total for part in validation)
    return SweepPoint(
        rate=rate,
        validation_metric=accuracy if metric == "accuracy" else fmean(one.on_validation(metric) for one in records),
        validation_accuracy=accuracy,
        validation_loss=fmean(part.loss for part in validation),
        test_accuracy=fmean(record.ok_metrics.test.accuracy for record in records),
    )


def best_rates(records: list[Record], metric: MetricName = "accuracy") -> dict[str, float]:
    """The best learning rate of each strategy."""
    return {curve.strategy: curve.best.rate for curve in curves(records, metric)}


def without_other_rates(records: list[Record], metric: MetricName) -> list[Record]:
    """The records of a table: ordinary runs, and of a sweep those at each strategy's best rate; all of them where the
    best rate is unknown."""
    best = {(curve.name, curve.code): curve.best.rate for curve in curves(records, metric)}
    return [one for one in records if not one.sweep_around or rate_of(one) == best.get(_code(one), rate_of(one))]
