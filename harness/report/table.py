"""The comparison table: its columns, rows and notes, and how they look in the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.records import BASELINE, Record
from harness.report.baselines import MARK, no_better_than_length, notes_on_baselines

_AXES = ("strategy", "seed", "readout", "attention", "pad_to", "adapter")
NARROW_COLUMNS = 160


def _competes(record: Record) -> bool:
    return record.status == "ok" and not record.strategy_source.is_baseline


@dataclass(frozen=True)
class Column:
    """title; value: what is compared, None where it was not measured; show: how it is written; best: which wins.

    essential: shown in a narrow terminal too. competes: whether a record's value may win.
    """

    title: str
    value: Callable[[Record], float | None]
    show: Callable[[Record], str]
    best: Callable[[Sequence[float]], float] | None = None
    essential: bool = True
    competes: Callable[[Record], bool] = _competes


def _metric(record: Record, split: str, key: str) -> float | None:
    part = getattr(record.metrics, split) if record.metrics else None
    return getattr(part, key) if part else None


def _accuracy(title: str, split: str, essential: bool) -> Column:
    def show(record: Record) -> str:
        return f"{100 * _metric(record, split, 'accuracy'):.2f}"

    return Column(title, lambda record: _metric(record, split, "accuracy"), show, max, essential)


def _reused(record: Record) -> bool:
    return bool(record.prefix and record.prefix.reused_tokens)


def _grown(record: Record) -> float | None:
    """Peak bytes above what a rank held when the run began: runs before it in the same process leave caches behind."""
    if not record.memory:
        return None
    return max(peak - rank.at_start for rank in record.memory.by_rank for peak in rank.phases.values())


def _f1(record: Record) -> float | None:
    """F1 of the second of two classes, which is the one looked for (spam), else the mean over classes."""
    scores = list(record.metrics.test.f1.values()) if record.metrics else []
    return (scores[1] if len(scores) == 2 else sum(scores) / len(scores)) if scores else None


def _test_with_interval(record: Record) -> str:
    low, high = record.metrics.test.interval
    return f"{100 * record.metrics.test.accuracy:.2f} [{100 * low:.1f}, {100 * high:.1f}]"


def _rate(title: str, key: str, essential: bool) -> Column:
    def value(record: Record) -> float | None:
        return getattr(record.throughput, key) if record.throughput else None

    return Column(title, value, lambda record: f"{value(record):,.0f}", max, essential)


COLUMNS = (
    Column(
        "trained",
        lambda record: record.model.trainable_parameters,
        lambda record: f"{record.model.trainable_parameters:,}",
        min,
    ),
    Column("test loss", lambda r: _metric(r, "test", "loss"), lambda r: f"{r.metrics.test.loss:.3f}", min),
    _accuracy("train %", "train", essential=False),
    _accuracy("val. %", "validation", essential=False),
    Column("test % [95%]", lambda record: _metric(record, "test", "accuracy"), _test_with_interval, max),
    _accuracy("unseen %", "test_clean", essential=False),
    Column("F1", _f1, lambda record: f"{_f1(record):.3f}", max, essential=False),
    Column(
        "ROC AUC",
        lambda r: _metric(r, "test", "roc_auc"),
        lambda r: f"{r.metrics.test.roc_auc:.3f}",
        max,
        essential=False,
    ),
    Column(
        "ECE",
        lambda record: _metric(record, "test", "calibration_error"),
        lambda record: f"{record.metrics.test.calibration_error:.3f}",
        min,
        essential=False,
    ),
    _rate("examples/s", "examples_per_second", essential=False),
    _rate("real tok./s", "real_tokens_per_second", essential=False),
    Column("memory", lambda r: _grown(r), lambda r: _bytes(_grown(r)), min),
    Column(
        "time",
        lambda record: record.seconds.total,
        lambda record: f"{record.seconds.total:.1f} s" + ("*" if _reused(record) else ""),
        min,
        competes=lambda record: _competes(record) and not _reused(record),
    ),
)


@dataclass(frozen=True)
class Row:
    name: str
    seed: int
    cells: list[str]
    best: list[bool]
    failure: str | None
    of_baseline: bool


def conditions(records: list[Record]) -> list[list[Record]]:
    """Groups of records that differ in strategy, readout, input and seed only: each is one table.

    A baseline stands at the end of each table that shares all conditions on which it depends.
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        if not record.strategy_source.is_baseline:
            groups.setdefault(json.dumps(_conditions(record), sort_keys=True), []).append(record)
    tables = list(groups.values())
    baselines = [record for record in records if record.strategy_source.is_baseline]
    # Where there is no strategy, the baseline that depends on most makes the table.
    for record in sorted(baselines, key=lambda record: -len(record.config)):
        homes = [group for group in tables if _within(_conditions(record), _conditions(group[0]))]
        for group in homes:
            group.append(record)
        if not homes:
            tables.append([record])
    order = {record.run_id: number for number, record in enumerate(records)}
    return [
        sorted(group, key=lambda record: (record.strategy_source.is_baseline, order[record.run_id])) for group in tables
    ]


def _conditions(record: Record) -> dict[str, object]:
    rest: dict[str, object] = {key: value for key, value in record.config.items() if key not in _AXES}
    rest["data sha256"] = record.data.sha256 if record.data else None
    if record.model.weights:
        rest["weights sha256"] = record.model.weights_sha256
    return rest


def _within(part: dict[str, object], whole: dict[str, object]) -> bool:
    """Whether `whole` has every entry of `part`, at any depth."""
    return all(
        _within(value, whole[key])
        if isinstance(value, dict) and isinstance(whole.get(key), dict)
        else key in whole and whole[key] == value
        for key, value in part.items()
    )


def rows(records: list[Record]) -> list[Row]:
    """One row a run. A run that failed keeps what it measured, and says why it has no more."""
    winners = [_winner(column, records) if len(records) > 1 else None for column in COLUMNS]
    return [_row(record, winners, no_better_than_length(record, records)) for record in records]


def _winner(column: Column, records: list[Record]) -> float | None:
    values = [column.value(record) for record in records if column.competes(record)]
    measured = [value for value in values if value is not None]
    return column.best(measured) if column.best and measured else None


def _row(record: Record, winners: list[float | None], marked: bool) -> Row:
    cells, best = [], []
    for column, winner in zip(COLUMNS, winners, strict=True):
        value = column.value(record)
        cells.append("-" if value is None else column.show(record))
        best.append(winner is not None and value == winner and column.competes(record))
    failure = None if record.status == "ok" else f"{record.status}: {last_line(record.error)}"
    name = row_name(record) + (f" {MARK}" if marked else "")
    return Row(name, record.seed, cells, best, failure, record.strategy_source.is_baseline)


def row_name(record: Record) -> str:
    """The strategy with what the configuration changed of it."""
    config = record.config
    if record.strategy_source.is_baseline:
        return record.strategy
    changes = [str(config[key]) for key in ("readout", "attention") if config[key]]
    changes += [f"pad {config['pad_to']}"] if config["pad_to"] else []
    changes += [f"{key} {value:g}" for key, value in config["adapter"].items() if value is not None]
    return record.strategy + (f" ({', '.join(changes)})" if changes else "")


def heading(record: Record) -> str:
    """What ran on what."""
    config, data = record.config, record.data
    sizes = f" ({data.sizes['train']:,} / {data.sizes['validation']:,} / {data.sizes['test']:,})" if data else ""
    if record.strategy_source.is_baseline:  # one of several that need not depend on the same
        return f"baselines · {data.name if data else config['data']['name']}{sizes}"
    training = config["training"]
    weights = record.model.weights if record.model.weights in ("random", "pretrained") else "own"
    return " · ".join(
        [
            f"{record.model.name}, {weights} weights",
            f"{data.name if data else config['data']['name']}{sizes}",
            f"{training['epochs']} epochs, batch {training['batch_size']}, lr {config['optimizer']['learning_rate']:g}",
            f"{record.precision}, {engine_name(record)} x {record.engine.world_size}, {record.environment['device']}",
        ]
        + (["plain path"] if config["plain"] else [])
    )


def engine_name(record: Record) -> str:
    stage = record.engine.zero_stage
    return record.engine.name if stage is None else f"{record.engine.name} ZeRO {stage}"


def notes(records: list[Record]) -> list[str]:
    """What a reader must know to read the table right."""
    record = next((record for record in records if record.data), records[0])
    lines = [f"{what} chosen by {why}." for what, why in record.choices.items() if why.startswith("auto")]
    lines.append(
        "[95%]: Wilson interval for the size of the test set; how results vary from seed to seed is not in it."
    )
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
    if any(_reused(other) for other in records):
        lines.append("*: without the time of its frozen part, whose features another run had stored.")
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
    lines += notes_on_baselines(records)
    return list(dict.fromkeys(line[0].upper() + line[1:] for line in lines))


def print_table(console: Console, records: list[Record]) -> None:
    """A rich table for each group of comparable records, the best of each column marked."""
    for group in conditions(records):
        narrow = console.width < NARROW_COLUMNS
        shown = [number for number, column in enumerate(COLUMNS) if column.essential or not narrow]
        several_seeds = len({record.seed for record in group}) > 1
        table = Table(title=escape(heading(group[0])), box=box.SIMPLE_HEAD, title_style="bold", title_justify="left")
        table.add_column("strategy", style="cyan", overflow="fold")
        if several_seeds:
            table.add_column("seed", justify="right")
        for number in shown:
            table.add_column(COLUMNS[number].title, justify="right", no_wrap=True)
        for of_baselines in (False, True):
            for row in rows(group):
                if row.of_baseline == of_baselines:
                    cells = [f"[bold green]{row.cells[n]}[/]" if row.best[n] else escape(row.cells[n]) for n in shown]
                    table.add_row(escape(row.name), *([str(row.seed)] if several_seeds else []), *cells)
            table.add_section()
        console.print(table)
        for row in rows(group):
            if row.failure:
                console.print(f"  [bold red]{escape(row.name)}, seed {row.seed}: {escape(row.failure)}[/]")
        for line in notes(group):
            console.print(f"  [dim]{escape(line)}[/]", highlight=False)
        if narrow:
            console.print("  [dim]This terminal is narrow: table.md has all columns.[/]")


def last_line(error: str | None) -> str:
    return (error or "no reason recorded").splitlines()[-1]


def _bytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
