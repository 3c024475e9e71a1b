"""Labelled texts of one's own: from files to texts with one label each, and the split that comes with them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from harness.config.schema import DataConfig
from harness.data.reading.arrow import read_parquet
from harness.data.reading.columns import SPLIT_NAME, Columns, find_columns, is_header
from harness.data.reading.content import DataFile, files_of
from harness.data.reading.decoding import decode
from harness.data.reading.delimited import read_delimited
from harness.data.reading.labels import check_classes, check_single
from harness.data.reading.objects import read_objects
from harness.data.reading.parts import part_of, without_number
from harness.data.reading.table import Table
from harness.data.splits import SPLITS
from harness.errors import UserError

_HIDDEN = ("-1", "")
JOINT = "\n"  # between texts that are joined


@dataclass(frozen=True)
class OwnData:
    """texts: columns `label` and `text` (str), by row; of pairs also `second_at`, where in `text` the second begins.

    part: train, validation or test of each row; None where the data has no split of its own. config: with what was
    found out of the data. notes: what to say of it.
    """

    texts: pd.DataFrame
    part: pd.Series | None
    sha256: str
    config: DataConfig
    notes: list[str]


def load_own_data(config: DataConfig) -> OwnData:
    """Read what `config.name`, a path, names. Raises UserError, with line numbers, for what can't be used."""
    files = files_of(config.name)
    by_part: dict[str | None, list[DataFile]] = {}
    for file in files:
        by_part.setdefault(part_of(file.stem) if len(files) > 1 else None, []).append(file)
    others = by_part.pop(None, [])
    if by_part:
        _check_shards(config.name, by_part)
        return _load(config, by_part, [f"not used: {', '.join(file.name for file in others)}"] if others else [])
    if len(others) > 1:
        raise UserError(
            f"data {config.name!r} holds {len(others)} data files, none of which is named train, validation or test: "
            f"{', '.join(file.name for file in others[:5])}; name one of them, or rename them."
        )
    return _load(config, {None: others}, [])


def _check_shards(name: str, by_part: Mapping[str | None, list[DataFile]]) -> None:
    """Raises UserError where several files are one part, unless they differ in the number of a shard only."""
    for part, files in by_part.items():
        if len({without_number(file.name) for file in files}) > 1:
            raise UserError(
                f"data {name!r} holds several files of the part {part}: {', '.join(file.name for file in files[:5])}; "
                f"move away or rename all but one; shards have numbers ({part}-1, {part}-2)."
            )


def _load(config: DataConfig, by_part: Mapping[str | None, list[DataFile]], notes: list[str]) -> OwnData:
    digest, tables, found = hashlib.sha256(), {}, []
    for part in sorted(by_part, key=lambda part: part != "train"):  # which has the most texts to judge by
        for file in by_part[part]:
            content = file.read()
            digest.update(content if part is None else f"{part}\0".encode() + hashlib.sha256(content).digest())
            table, settings = _read(file, content, config)
            tables.setdefault(part, []).append(table)
            found.append(settings)
            if settings.get("header") is False:  # in a few rows of another part it can't be seen
                config = config.model_copy(update={"header": False})
    same = {key: value for key, value in found[0].items() if all(one.get(key) == value for one in found)}
    data = combine(config.model_copy(update=same), tables)
    return OwnData(data.texts, data.part, digest.hexdigest(), data.config, [*data.notes, *notes])


def _read(file: DataFile, content: bytes, config: DataConfig) -> tuple[Table, dict[str, Any]]:
    """The table, and how it was read, by key of the configuration."""
    if file.kind == ".parquet":
        return read_parquet(file.name, content), {"encoding": config.encoding}
    text = decode(file.name, content, config.encoding)
    settings: dict[str, Any] = {"encoding": text.encoding}
    if file.kind in (".json", ".jsonl"):
        table = read_objects(file.name, text)
    else:
        table, quoting = read_delimited(
            file.name, text, file.kind, config.quoting, config.header, lambda row: is_header(row, config)
        )
        settings |= {"quoting": quoting, "header": table.has_header}
    table.notes.extend(filter(None, [text.note]))
    return table, settings


def combine(config: DataConfig, tables: Mapping[str | None, list[Table]]) -> OwnData:
    """The texts of all tables, which are of one part each, or of none; without their sha256."""
    empty = next((table for part in tables.values() for table in part if not len(table)), None)
    if empty is not None:
        raise UserError(f"data file {empty.name!r} is empty: expected rows with a text and a label.")
    first = next(iter(tables.get("train") or next(iter(tables.values()))))
    columns = find_columns(first, config)
    frames, notes = [], []
    for part in [part for part in (None, *SPLITS) if part in tables]:
        for table in tables[part]:
            frame = _texts_of(table, columns, may_be_hidden=part == "test")
            frames.append(frame if part is None else frame.assign(part=part))
            if part is None and "part" not in frame:
                notes += [
                    f"its column {column!r} is not used: its values are not train, validation and test alone"
                    for column in _split_columns(table)
                ]
            several = len(tables) > 1 or len(tables[part]) > 1
            notes += [f"{PurePosixPath(table.name).name}: {note}" if several else note for note in table.notes]
    texts = pd.concat(frames, ignore_index=True)
    hidden = texts["label"].isna()
    if hidden.any():
        notes.append(f"the labels of its {hidden.sum():,} test texts are hidden, so none of them is used")
        texts = texts[~hidden].reset_index(drop=True)
    if texts.empty:
        raise UserError(
            f"data file {first.name!r}: all labels in {columns.label!r} are hidden; give training texts too."
        )
    check_classes(first, columns.label, texts["label"].tolist(), texts["text"].tolist())
    part = texts.pop("part") if "part" in texts else None
    resolved = {"text_column": ",".join(columns.texts), "label_column": columns.label, "pair": columns.pair}
    return OwnData(texts, part, "", config.model_copy(update=resolved), [str(columns), *notes])


def _texts_of(table: Table, columns: Columns, may_be_hidden: bool) -> pd.DataFrame:
    """The column `label` is missing where labels are hidden, `part` where the table has no split of its own."""
    for column in columns.texts:
        _check_has(table, column)
    frame = _joined(table, columns)
    part = _part_column(table)
    if part is not None:
        frame["part"] = part
    tests = part == "test" if part is not None else pd.Series(may_be_hidden, frame.index)
    frame["label"] = _labels(table, columns.label, tests)
    return frame


def _joined(table: Table, columns: Columns) -> pd.DataFrame:
    values = [_filled(table, column, table.texts(column)) for column in columns.texts]
    frame = pd.DataFrame({"text": [JOINT.join(row) for row in zip(*values, strict=True)]}, dtype=object)
    if columns.pair:
        frame["second_at"] = [len(text) + len(JOINT) for text in values[0]]
    return frame


def _labels(table: Table, column: str, tests: pd.Series) -> pd.Series:
    """Without blanks around them; None for those of tests that are hidden: all the same, -1 or empty, or no column."""
    if column not in table.columns and tests.all():
        return pd.Series(None, tests.index, dtype=object)
    _check_has(table, column)
    check_single(table, column)
    labels = pd.Series([label.strip() for label in table.texts(column)], tests.index, dtype=object)
    if tests.any() and labels[tests].nunique() == 1 and labels[tests].iloc[0] in _HIDDEN:
        labels[tests] = None
    _filled(table, column, ["?" if label is None else label for label in labels])
    return labels


def _check_has(table: Table, column: str) -> None:
    if column not in table.columns:
        raise UserError(
            f"data file {table.name!r} has no column {column!r}, as the other parts have, only {table.samples()}: "
            "rename its columns."
        )


def _filled(table: Table, column: str, values: list[str]) -> list[str]:
    empty = [place for place, value in zip(table.places, values, strict=True) if not value.strip()]
    if empty:
        raise UserError(f"data file {table.name!r}: {column!r} is empty on {table.at_all(empty)}; fill or remove them.")
    return values


def _part_column(table: Table) -> pd.Series | None:
    """The parts of a `split` column, if it names nothing but parts, train among them."""
    named = _split_columns(table)
    if len(named) != 1:
        return None
    parts = pd.Series([part_of(value) for value in table.texts(named[0])], dtype=object)
    return parts if parts.notna().all() and "train" in set(parts) and parts.nunique() > 1 else None


def _split_columns(table: Table) -> list[str]:
    return [column for column in table.columns if column.lower() == SPLIT_NAME]
