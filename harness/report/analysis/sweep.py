"""Accuracy over the learning rate: what a sweep found for each strategy, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.report.table.markdown import markdown_table
from harness.results.names import rate_of, variant_name
from harness.results.record import Record


@dataclass(frozen=True)
class Point:
    """Means over the seeds of the sweep."""

    rate: float
    validation_accuracy: float
    validation_loss: float
    test_accuracy: float


@dataclass(frozen=True)
class Curve:
    """code: the strategy's sha256. strategy: as it was asked for. points: by rising rate. seconds: of its runs beside
    those at the common rate. failed: the rates that are left out, since a seed did not end well."""

    name: str
    code: str
    strategy: str
    common: float
    seeds: list[int]
    points: list[Point]
    seconds: float
    failed: list[float]

    @property
    def best(self) -> Point:
        """By accuracy on the validation texts, and among equals by their loss; test has no say."""
        return max(self.points, key=lambda point: (point.validation_accuracy, -point.validation_loss))

    @property
    def at_the_end(self) -> bool:
        tried = [*(point.rate for point in self.points), *self.failed]
        return self.best.rate in (min(tried), max(tried))


def curves(records: list[Record]) -> list[Curve]:
    """Of records under the same conditions, one for each strategy that was swept."""
    by_code: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if not record.strategy_source.is_baseline:
            by_code.setdefault(_code(record), []).append(record)
    swept = [of_code for of_code in by_code.values() if any(record.sweep_around for record in of_code)]
    return [curve for of_code in swept if (curve := _curve(of_code))]


def _code(record: Record) -> tuple[str, str]:
    return variant_name(record), record.strategy_source.sha256


def _curve(records: list[Record]) -> Curve | None:
    """None where no rate was tried with success.

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
    if not seeds:  # it was stopped half-way
        return None
    points = [_point(rate, [of_rate[seed] for seed in sorted(seeds)]) for rate, of_rate in sorted(by_rate.items())]
    common = next(record.sweep_around for record in records if record.sweep_around)
    seconds = sum(record.seconds.total for record in records if record.sweep_around and record.seed in seeds)
    name, code = _code(records[0])
    return Curve(name, code, records[0].config["strategy"], common, sorted(seeds), points, seconds, sorted(failed))


def _point(rate: float, records: list[Record]) -> Point:
    validation = [record.metrics.validation for record in records]
    return Point(
        rate=rate,
        # Of whole counts: rates that are equally good must not differ by a rounding.
        validation_accuracy=sum(part.correct for part in validation) / sum(part.total for part in validation),
        validation_loss=fmean(part.loss for part in validation),
        test_accuracy=fmean(record.metrics.test.accuracy for record in records),
    )


def best_rates(records: list[Record]) -> dict[str, float]:
    """By strategy."""
    return {curve.strategy: curve.best.rate for curve in curves(records)}


def without_other_rates(records: list[Record]) -> list[Record]:
    """The records of a table: those at the common rate, and of a sweep those at each strategy's best; all of them where
    no rate is known to be the best."""
    best = {(curve.name, curve.code): curve.best.rate for curve in curves(records)}
    return [one for one in records if not one.sweep_around or rate_of(one) == best.get(_code(one), rate_of(one))]


def sweep_notes(records: list[Record]) -> list[str]:
    found = curves(records)
    if not found:
        return []
    rates = sorted({rate for curve in found for rate in (*(point.rate for point in curve.points), *curve.failed)})
    seeds = len(found[0].seeds)
    lines = [
        f"lr: each strategy's own best of {len(rates)} learning rates from {rates[0]:g} to {rates[-1]:g}, by accuracy "
        f"on the validation texts ({seeds} seed{'s' if seeds > 1 else ''}), never by test; it cost "
        f"{sum(curve.seconds for curve in found):.0f} s beside the runs at the common rate."
    ]
    same = [curve.name for curve in found if curve.best.rate == curve.common]
    ends = [curve.name for curve in found if curve.at_the_end]
    for curve in found:
        if curve.failed:
            told = ", ".join(f"{rate:g}" for rate in curve.failed)
            lines.append(f"rates of {curve.name} at which a seed did not end well, left out: {told}.")
    if same:
        lines.append(f"the common rate is the best of the grid for {', '.join(same)}.")
    if ends:
        lines.append(f"the best rate is at an end of the grid for {', '.join(ends)}: a better one may lie beyond.")
    return lines


def sweep_rows(found: list[Curve]) -> tuple[list[str], list[list[str]]]:
    """Titles and cells: validation accuracy in % at each rate, the best in brackets."""
    rates = sorted({point.rate for curve in found for point in curve.points})
    cells = []
    for curve in found:
        by_rate = {point.rate: point for point in curve.points}
        shown = [f"{100 * by_rate[rate].validation_accuracy:.2f}" if rate in by_rate else "-" for rate in rates]
        marked = [f"[{cell}]" if rate == curve.best.rate else cell for rate, cell in zip(rates, shown, strict=True)]
        cells.append([curve.name, *marked])
    return ["val. % at lr", *(f"{rate:g}" for rate in rates)], cells


def print_sweep(console: Console, records: list[Record]) -> None:
    titles, cells = sweep_rows(curves(records))
    if cells:
        table = Table(box=box.SIMPLE_HEAD)
        for number, title in enumerate(titles):
            table.add_column(title, justify="right" if number else "left", no_wrap=True)
        for row in cells:
            table.add_row(*map(escape, row))
        console.print(table)


def sweep_markdown(records: list[Record]) -> list[str]:
    titles, cells = sweep_rows(curves(records))
    return ["", *markdown_table(titles, cells)] if cells else []
