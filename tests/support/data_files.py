"""Data files as people have them, written from texts and labels."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

Row = tuple[str, str]  # text, label
Parts = dict[str, list[Row]]  # of a split, by name
_WORDS = "you won a parcel see the invoice claim it today meeting garden bring code train £ é naïve Straße"
WORDS = _WORDS.split()
TEXT_NAMES = ["text", "sentence", "review", "content", "message", "v2", "Text"]
LABEL_NAMES = ["label", "class", "category", "sentiment", "intent", "v1", "Label"]


def rows_of(random: np.random.Generator, count: int, classes: int = 2, ascii_only: bool = False) -> list[Row]:
    """`count` texts, no two alike; every class has several."""
    words = [word for word in WORDS if word.isascii() or not ascii_only]
    return [
        (" ".join([f"note {number}", *random.choice(words, random.integers(1, 9))]), f"kind{number % classes}")
        for number in range(count)
    ]


@dataclass(frozen=True)
class Form:
    """How a table is written. kind: ending of the file. label_first: before the text. extra: further columns."""

    kind: str = ".csv"
    delimiter: str = ","
    encoding: str = "utf-8"
    names: tuple[str, str] | None = ("text", "label")
    label_first: bool = False
    extra: int = 0
    quoting: int = csv.QUOTE_MINIMAL
    spaces: bool = False
    compression: str = ""

    @property
    def ending(self) -> str:
        return self.kind + self.compression


def any_form(random: np.random.Generator) -> Form:
    """A form of one of the kinds that are read without options."""
    kind = str(random.choice([".csv", ".tsv", ".txt", ".json", ".jsonl", ".parquet"]))
    form = Form(
        kind=kind,
        delimiter=str(random.choice([",", ";", "\t"])),
        encoding=str(random.choice(["utf-8", "utf-8-sig", "utf-16", "cp1252"])),
        names=(str(random.choice(TEXT_NAMES)), str(random.choice(LABEL_NAMES))),
        label_first=bool(random.integers(2)),
        extra=int(random.integers(3)),
        quoting=int(random.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
        spaces=bool(random.integers(2)),
        compression=str(random.choice(["", "", ".gz", ".zip", ".zst"])),
    )
    if kind in (".csv", ".tsv", ".txt") and not random.integers(4):
        return replace(form, names=None, extra=0)
    return form


def content_of(rows: list[Row], form: Form) -> bytes:
    table = _columns(rows, form)
    if form.kind == ".parquet":
        buffer = io.BytesIO()
        pd.DataFrame(table).to_parquet(buffer)
        content = buffer.getvalue()
    elif form.kind in (".json", ".jsonl"):
        objects = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
        lines = [json.dumps(one, ensure_ascii=False) for one in objects]
        text = "[" + ",\n".join(lines) + "]" if form.kind == ".json" else "\n".join(lines) + "\n"
        content = text.encode(form.encoding)
    else:
        content = _delimited(table, form).encode(form.encoding)
    return _compressed(content, form)


def write(folder: Path, rows: list[Row], form: Form, stem: str = "data") -> Path:
    path = folder / f"{stem}{form.ending}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content_of(rows, form))
    return path


def _columns(rows: list[Row], form: Form) -> dict[str, list[str]]:
    text, label = form.names or ("1", "2")
    pair = {text: [text for text, _ in rows], label: [label for _, label in rows]}
    further = {f"column {number}": [f"{number}.{row}" for row in range(len(rows))] for number in range(form.extra)}
    return {**(dict(reversed(pair.items())) if form.label_first else pair), **further}


def _delimited(table: dict[str, list[str]], form: Form) -> str:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=form.delimiter, quoting=form.quoting, lineterminator="\n")  # pyright: ignore
    if form.names:
        writer.writerow([f" {name} " if form.spaces else name for name in table])
    writer.writerows(zip(*table.values(), strict=True))
    return buffer.getvalue()


def _compressed(content: bytes, form: Form) -> bytes:
    if form.compression == ".gz":
        return gzip.compress(content)
    if form.compression == ".zst":
        return pa.compress(content, "zstd", asbytes=True)
    if form.compression == ".zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"data{form.kind}", content)
        return buffer.getvalue()
    return content
