"""Which records stand together in one table."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import strategies
from harness import baselines
from harness.config.places import without_places
from harness.config.tree import merged
from harness.results.names import row_name
from harness.results.record import Record
from harness.results.suites import SavedSuite

AXES = ("strategy", "seed", "readout", "readout_layer", "attention", "pad_to", "adapter")
NO_CONDITION = ("features", "forgetting")
# Settings that affect how a run is done, but nothing that a table shows.
NO_CONDITIONS = {
    "training": ("checkpoint_steps",),
    "engine": ("timeout_seconds", "restarts"),
    "data": ("pair", "header", "encoding", "quoting"),  # of a file, whose content is a condition
}
# Settings that older records lack, and how they ran.
ADDED: dict[str, Any] = {
    "deterministic": False,
    "tf32": False,
    "optimizer": {
        "schedule": "constant",
        "warmup": 0.0,
        "betas": [0.9, 0.999],
        "eps": 1e-8,
        "decay_norms_and_biases": True,
    },
    "training": {
        "texts": None,
        "class_weights": "none",
        "label_smoothing": 0.0,
        "dropout": 0.0,
        "gradient_checkpointing": False,
        "keep": "last",
        "patience": None,
        "validation_metric": None,
    },
    "data": {"subset": None, "revision": None, "split_sizes": [70, 10, 20], "max_tokens": None, "cut": "head"},
}
# Joins the names of rows that are the same runs.
SAME = " = "


@dataclass(frozen=True)
class Group:
    """The records of one table, in the order of its rows. name_of: the name of a record's row.

    suite: the name of the suite whose rows they are, if they come from one. notes: what a reader must know about rows
    that are missing. conditions: what the records have in common otherwise.
    """

    records: list[Record]
    name_of: Callable[[Record], str] = row_name
    suite: str | None = None
    notes: list[str] = field(default_factory=list)
    conditions: dict[str, object] = field(default_factory=dict)


def groups(records: list[Record], suites: Sequence[SavedSuite] = ()) -> list[Group]:
    """One for each table: each suite whose rows are compared with each other, then whatever shares its conditions."""
    compared = [group for suite in suites if not suite.is_published and (group := _of_suite(suite, records)).records]
    shown = {record.run_id for group in compared for record in group.records}
    return [*compared, *_by_conditions([record for record in records if record.run_id not in shown])]


def _of_suite(suite: SavedSuite, records: list[Record]) -> Group:
    rows_by_runs: dict[tuple[str, ...], list[str]] = {}
    for row in suite.rows:  # two rows may be the same runs: one names what the other leaves to auto
        rows_by_runs.setdefault(tuple(row.identities), []).append(row.name)
    names = {identity: SAME.join(rows) for identities, rows in rows_by_runs.items() for identity in identities}
    order = list(names)
    found = sorted((one for one in records if one.identity in names), key=lambda one: order.index(one.identity))
    notes = [f"skipped: {row.name}, {row.skipped}." for row in suite.rows if row.skipped]
    return Group(found, lambda record: names[record.identity], suite.name, notes)


def _by_conditions(records: list[Record]) -> list[Group]:
    """Groups of records that differ in strategy, readout, input and seed only.

    A baseline stands at the end of each table that shares all conditions on which it depends.
    """
    tables = _tables_of_strategies([record for record in records if not record.strategy_source.is_baseline])
    ran = [record for record in records if record.strategy_source.is_baseline]
    # Where there is no strategy, the baseline that depends on most makes the table.
    for record in sorted(ran, key=lambda record: -len(record.config)):
        homes = [table for table in tables if _contains(_conditions(table[0]), _conditions(record))]
        for table in homes:
            table.append(record)
        if not homes:
            tables.append([record])
    known = [*strategies.names(), *baselines.NAMES]
    return [
        Group(sorted(table, key=lambda one: _position(one, known)), _names(table), conditions=_conditions(table[0]))
        for table in tables
    ]


def _tables_of_strategies(records: list[Record]) -> list[list[Record]]:
    tables: dict[str, list[Record]] = {}
    for record in records:
        if record.data:
            tables.setdefault(_conditions_key(record), []).append(record)
    for record in records:
        if not record.data:  # its process was killed before it had read the data
            homes = (key for key, table in tables.items() if _contains(_conditions(table[0]), _conditions(record)))
            tables.setdefault(next(homes, _conditions_key(record)), []).append(record)
    return list(tables.values())


def _names(table: list[Record]) -> Callable[[Record], str]:
    """Where a strategy's code has changed, or another file has its name, older records get a row of their own."""
    newest = {
        row_name(record): record.strategy_source.sha256
        for record in sorted(table, key=lambda record: record.finished_at)
    }

    def name_of(record: Record) -> str:
        name, code = row_name(record), record.strategy_source.sha256
        return name if code == newest[name] else f"{name} [code {code[:6]}]"

    return name_of


def _position(record: Record, known: list[str]) -> tuple[bool, int]:
    """Sorts rows regardless of when they ran: built-in strategies in the order of `ftbench list`, others, baselines."""
    return record.strategy_source.is_baseline, known.index(record.strategy) if record.strategy in known else len(known)


def recipe(record: Record) -> list[str]:
    """What its training has that is not the default, such as "schedule cosine"; a note names the metric of epochs, the
    heading the number of texts."""
    return [
        f"{key.replace('_', ' ')} {value}"
        for part in ("optimizer", "training")
        for key, default in ADDED[part].items()
        if (value := record.config.get(part, {}).get(key, default)) != default
        and key not in ("validation_metric", "texts")
    ]


def _conditions(record: Record) -> dict[str, object]:
    # Of training a baseline depends on the number of texts at most.
    of_baselines = {key for key in ADDED if key in record.config and key != "training"}
    added = {key: ADDED[key] for key in (of_baselines if record.strategy_source.is_baseline else ADDED)}
    config = merged(added, without_places(record.config))
    rest: dict[str, object] = {key: value for key, value in config.items() if key not in (*AXES, *NO_CONDITION)}
    for part, keys in NO_CONDITIONS.items():
        if part in rest:
            rest[part] = {key: value for key, value in config[part].items() if key not in keys}
    if record.sweep_around:
        rest["optimizer"] = {**config["optimizer"], "learning_rate": record.sweep_around}
    if record.data:
        rest["data sha256"] = record.data.sha256
    if record.model.weights:
        rest["weights sha256"] = record.model.weights_sha256
    return rest


def _conditions_key(record: Record) -> str:
    return json.dumps(_conditions(record), sort_keys=True)


def _contains(tree: dict[str, object], part: dict[str, object]) -> bool:
    """Whether `tree` has every entry of `part`, at any depth; None is as if it were absent."""

    def has(key: str, value: object) -> bool:
        inner = tree.get(key)
        if isinstance(value, dict):
            return _contains(inner if isinstance(inner, dict) else {}, value)
        return inner == value

    return all(has(key, value) for key, value in part.items())
