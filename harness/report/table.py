"""The comparison table: its columns, rows and notes, and how they look in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.records import BASELINE, Record, Store
from harness.report.baselines import MARK, no_better_than_length, notes_on_baselines
from harness.report.comparison import Entry, Group, compare
from harness.report.evidence import evidence_notes
from harness.report.names import rate_of, row_name
from harness.report.sweep import print_sweep, sweep_notes

Measure = Callable[[Record], float | None]


def _competes(entry: Entry) -> bool:
    return bool(entry.ok) and not entry.is_baseline


@dataclass(frozen=True)
class Column:
    """title; value: what is compared, None where it was not measured; show: how it is written; best: which wins.

    rank: columns with the highest are left out first where a terminal is too narrow. competes: whether an entry's
    value may win.
    """

    title: str
    value: Callable[[Entry], float | None]
    show: Callable[[Entry], str]
    best: Callable[[Sequence[float]], float] | None
    rank: int
    competes: Callable[[Entry], bool] = _competes


def _over_seeds(measure: Measure, summary: Callable[[list[float]], float]) -> Callable[[Entry], float | None]:
    def value(entry: Entry) -> float | None:
        measured = [one for one in map(measure, entry.shown) if one is not None]
        if len(measured) < 2:
            return measured[0] if measured else None
        return float(summary(measured))

    return value


def _column(
    title: str,
    measure: Measure,
    show: Callable[[float], str],
    best: Callable[[Sequence[float]], float],
    rank: int,
    summary: Callable[[list[float]], float] = np.mean,
) -> Column:
    value = _over_seeds(measure, summary)
    return Column(title, value, lambda entry: show(value(entry)), best, rank)


def _metric(split: str, key: str) -> Measure:
    def measure(record: Record) -> float | None:
        part = getattr(record.metrics, split) if record.metrics else None
        return getattr(part, key) if part else None

    return measure


def _accuracy(title: str, split: str, rank: int) -> Column:
    return _column(title, _metric(split, "accuracy"), lambda share: f"{100 * share:.2f}", max, rank)


def _rate(title: str, key: str, rank: int) -> Column:
    def measure(record: Record) -> float | None:
        return getattr(record.throughput, key) if record.throughput else None

    return _column(title, measure, lambda rate: f"{rate:,.0f}", max, rank, np.median)


def _reused(entry: Entry) -> bool:
    return any(record.prefix and record.prefix.reused_tokens for record in entry.shown)


def _grown(record: Record) -> float | None:
    return record.memory.grown_bytes if record.memory else None


def _f1(record: Record) -> float | None:
    """F1 of the second of two classes, which is the one looked for (spam), else the mean over classes."""
    scores = list(record.metrics.test.f1.values()) if record.metrics else []
    return (scores[1] if len(scores) == 2 else sum(scores) / len(scores)) if scores else None


def _test_with_interval(entry: Entry) -> str:
    accuracy = f"{100 * _TEST(entry):.2f}"
    return f"{accuracy} {_percent(entry.interval)}" if entry.interval else accuracy


def _difference(entry: Entry) -> str:
    return f"{100 * entry.evidence.difference:+.2f} {_percent(entry.evidence.interval)}"


def _percent(interval: tuple[float, float]) -> str:
    return f"[{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _seeds(entry: Entry) -> str:
    if entry.is_baseline:
        return "-"
    if len(entry.records) == 1:
        return str(entry.records[0].seed)
    return f"{len(entry.ok)} of {len(entry.records)}" if entry.failures else str(len(entry.ok))


_TEST = _over_seeds(_metric("test", "accuracy"), np.mean)
_SECONDS = _over_seeds(lambda record: record.seconds.total, np.median)


def several_seeds(entries: list[Entry]) -> bool:
    return any(len(entry.records) > 1 for entry in entries)


def columns(entries: list[Entry]) -> list[Column]:
    """What a table tells of its entries, in order."""
    several = several_seeds(entries)
    compared = [entry.evidence.reference for entry in entries if entry.evidence]
    alike = not several and len({entry.records[0].seed for entry in entries if not entry.is_baseline}) < 2
    found = [
        # One seed for all is told by no column but in files.
        Column("seeds" if several else "seed", lambda entry: 0, _seeds, None, 99 if alike else 2),
        _column("trained", lambda record: record.model.trainable_parameters, lambda count: f"{count:,.0f}", min, 4),
        _column("test loss", _metric("test", "loss"), lambda loss: f"{loss:.3f}", min, 7),
        _accuracy("train %", "train", 10),
        _accuracy("val. %", "validation", 9),
        Column("test % [95%]", _TEST, _test_with_interval, max, 0),
    ]
    if several:
        found.append(Column("sd", lambda e: e.deviation, lambda e: f"{100 * e.deviation:.2f}", None, 8))
    if compared:
        found += [
            Column(f"vs {compared[0]}", lambda e: e.evidence and e.evidence.difference, _difference, None, 6),
            Column("verdict", lambda entry: 0, lambda entry: _verdict(entry, compared[0]), None, 1),
        ]
    return [
        *found,
        _accuracy("unseen %", "test_clean", 11),
        _column("F1", _f1, lambda score: f"{score:.3f}", max, 14),
        _column("ROC AUC", _metric("test", "roc_auc"), lambda area: f"{area:.3f}", max, 15),
        _column("ECE", _metric("test", "calibration_error"), lambda error: f"{error:.3f}", min, 16),
        _rate("examples/s", "examples_per_second", 13),
        _rate("real tok./s", "real_tokens_per_second", 12),
        _column("memory", _grown, _bytes, min, 5, np.median),
        Column(
            "time",
            _SECONDS,
            lambda entry: f"{_SECONDS(entry):.1f} s" + ("*" if _reused(entry) else ""),
            min,
            3,
            competes=lambda entry: _competes(entry) and not _reused(entry),
        ),
    ]


def _verdict(entry: Entry, reference: str) -> str:
    if entry.name == reference:
        return "reference"
    return entry.evidence.verdict if entry.evidence else "-"


@dataclass(frozen=True)
class Row:
    name: str
    cells: list[str]
    best: list[bool]
    failure: str | None


def rows(entries: list[Entry]) -> list[Row]:
    """One row a strategy. One whose runs all failed keeps what was measured; every failure is told."""
    shown = columns(entries)
    winners = [_winner(column, entries) if len(entries) > 1 else None for column in shown]
    return [_row(entry, shown, winners, no_better_than_length(entry, entries)) for entry in entries]


def _winner(column: Column, entries: list[Entry]) -> float | None:
    if not column.best:
        return None
    values = [column.value(entry) for entry in entries if column.competes(entry)]
    measured = [value for value in values if value is not None]
    return column.best(measured) if measured else None


def _row(entry: Entry, shown: list[Column], winners: list[float | None], marked: bool) -> Row:
    cells, best = [], []
    for column, winner in zip(shown, winners, strict=True):
        value = column.value(entry)
        cells.append("-" if value is None else column.show(entry))
        best.append(winner is not None and value == winner and column.competes(entry))
    return Row(entry.name + (f" {MARK}" if marked else ""), cells, best, _failure(entry))


def _failure(entry: Entry) -> str | None:
    told = [f"{record.status}: {last_line(record.error)}" for record in entry.failures]
    if len(entry.records) > 1:
        told = [f"seed {record.seed} {line}" for record, line in zip(entry.failures, told, strict=True)]
    return "; ".join(told) or None


def heading(group: Group) -> str:
    """What ran on what: what all rows of the table have in common."""
    of_each = [_heading_parts(record) for record in group.records if not record.strategy_source.is_baseline]
    of_each = of_each or [_heading_parts(group.records[0])]
    common = [part for part in of_each[0] if all(part in other for other in of_each)]
    return " · ".join([*([group.suite] if group.suite else []), *common])


def _heading_parts(record: Record) -> list[str]:
    config, data = record.config, record.data
    sizes = f" ({data.sizes['train']:,} / {data.sizes['validation']:,} / {data.sizes['test']:,})" if data else ""
    if record.strategy_source.is_baseline:  # one of several that need not depend on the same
        return ["baselines", f"{data.name if data else config['data']['name']}{sizes}"]
    training = config["training"]
    rate = record.sweep_around or rate_of(record)
    weights = record.model.weights if record.model.weights in ("random", "pretrained") else "own"
    return [
        f"{record.model.name}, {weights} weights",
        f"{data.name if data else config['data']['name']}{sizes}",
        f"{training['epochs']} epochs, batch {training['batch_size']}, lr {rate:g}",
        f"{record.precision}, {engine_name(record)} x {record.engine.world_size}, {record.environment['device']}",
        *(["plain path"] if config["plain"] else []),
    ]


def engine_name(record: Record) -> str:
    stage = record.engine.zero_stage
    return record.engine.name if stage is None else f"{record.engine.name} ZeRO {stage}"


def notes(entries: list[Entry]) -> list[str]:
    """What a reader must know to read the table right."""
    records = [record for entry in entries for record in entry.records]
    record = next((record for record in records if record.data), records[0])
    lines = [f"{what} chosen by {why}." for what, why in record.choices.items() if why.startswith("auto")]
    lines += evidence_notes(entries)
    if record.data:
        data = record.data
        if data.test_in_train:
            lines.append(
                f"unseen %: without the {data.test_in_train} of {data.sizes['test']} test texts that stand "
                f"in the training set verbatim ({data.test_near_train} but for digits and punctuation)."
            )
        if data.best_accuracy:
            lines.append(f"best possible on average: {100 * data.best_accuracy:.0f}%; the other labels are flipped.")
        if data.cut_texts:
            lines.append(f"{data.cut_texts} texts were longer than a row may be, and were cut.")
        looked_for = f"of {data.classes[1]}" if len(data.classes) == 2 else "mean over classes"
        lines.append(f"F1 ({looked_for}), ROC AUC and ECE (expected calibration error, 15 bins) on test.")
    if several_seeds(entries):
        lines.append("loss and accuracy are means over seeds, speed, memory and time medians.")
    if any(_reused(entry) for entry in entries):
        lines.append("*: without the time of what another run had stored of its frozen part.")
    if record.memory:
        lines.append(
            f"memory: {record.memory.definition}, highest of all ranks and phases, above the start of the run."
        )
    lines += [
        f"{row_name(other)} ran code from outside the harness: {other.strategy_source.origin}."
        for other in records
        if other.strategy_source.origin not in ("built in", BASELINE)
    ]
    lines += [
        f"{row_name(other)} computed its frozen part in every step: {other.prefix.not_stored}."
        for other in records
        if other.prefix and other.prefix.not_stored
    ]
    lines += notes_on_baselines(entries)
    return list(dict.fromkeys(line[0].upper() + line[1:] for line in lines))


def print_table(console: Console, groups: list[Group], store: Store, reference: str | None = None) -> None:
    """A rich table for each group, the best of each column marked."""
    for group in groups:
        entries = compare(group, store, reference)
        found, written = columns(entries), rows(entries)
        shown = _that_fit(found, written, console.width)
        table = Table(title=escape(heading(group)), box=box.SIMPLE_HEAD, title_style="bold", title_justify="left")
        table.add_column("row" if group.suite else "strategy", style="cyan", overflow="fold")
        for number in shown:
            table.add_column(escape(found[number].title), justify="right", no_wrap=True)
        for entry, row in zip(entries, written, strict=True):
            if entry.is_baseline and not any(other.is_baseline for other in entries[: entries.index(entry)]):
                table.add_section()
            cells = [f"[bold green]{row.cells[n]}[/]" if row.best[n] else escape(row.cells[n]) for n in shown]
            table.add_row(escape(row.name), *cells)
        console.print(table)
        for row in written:
            if row.failure:
                console.print(f"  [bold red]{escape(row.name)}, {escape(row.failure)}[/]")
        print_sweep(console, group.records)
        for line in [*notes(entries), *sweep_notes(group.records), *group.told]:
            console.print(f"  [dim]{escape(line)}[/]", highlight=False)
        if len(shown) < sum(column.rank < 99 for column in found):
            console.print("  [dim]Not every column has room here: table.md has all columns.[/]")


def _that_fit(found: list[Column], written: list[Row], width: int) -> list[int]:
    """Numbers of the columns that have room beside the name, the most important first to be taken."""
    left = width - max(len("strategy"), *(len(row.name) for row in written)) - 4
    taken = []
    for number in sorted(range(len(found)), key=lambda number: found[number].rank):
        left -= max(len(found[number].title), *(len(row.cells[number]) for row in written)) + 3
        if found[number].rank < 99 and left >= 0:
            taken.append(number)
    return sorted(taken)


def last_line(error: str | None) -> str:
    return (error or "no reason recorded").splitlines()[-1]


def _bytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
