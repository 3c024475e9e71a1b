"""Write `docs/record.md`, the reference of the record's fields, and `record.schema.json`, its JSON Schema, from the
code that defines them."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from harness.results.record import SCHEMA_FILE, SCHEMA_VERSION, Record, json_schema

PAGE = Path(__file__).parents[1] / "docs" / "record.md"
HEADER = f"""# The record of a run

`results/runs/<run_id>/record.json`, one for each run, whatever became of it. This page, and the
same as JSON Schema, `harness/results/record.schema.json` (schema version {SCHEMA_VERSION}), are made from
`harness/results/record.py` by `python -m tools.record_reference`.
Where a part is null, the run ended before it was measured, or it does not apply. Fractions are between 0 and 1, sizes
in bytes. [Measuring](measuring.md) says how each figure is taken.

Beside it lie `predictions.csv`, the test texts (index in the source, label, predicted class and the probability of each
class), and `losses.csv`, of each training step the loss of its batch in nats and the share of it that was answered
right.
"""


def reference() -> str:
    return "\n".join([HEADER, *map(_section, parts_of(Record))])


def parts_of(model: type[BaseModel]) -> list[type[BaseModel]]:
    """The model and those that its fields hold, each once, in the order in which a reader meets them."""
    found = [model]
    for part in found:
        below = (inner for field in part.model_fields.values() for inner in _models_in(field.annotation))
        found += [inner for inner in dict.fromkeys(below) if inner not in found]
    return found


def _models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models_in(inner)]


def _section(model: type[BaseModel]) -> str:
    told = inspect.cleandoc(model.__doc__ or "") if model is not Record else ""
    rows = [_row(name, field) for name, field in model.model_fields.items()]
    table = ["| field | type | |", "| --- | --- | --- |", *rows]
    return "\n".join([f"## {model.__name__}", "", *([told, ""] if told else []), *table, ""])


def _row(name: str, field: FieldInfo) -> str:
    return f"| `{name}` | {_type(field.annotation)} | {field.description or ''} |"


def _type(annotation: object) -> str:
    models = _models_in(annotation)
    named = inspect.formatannotation(annotation)
    for prefix in ("typing.", "harness.results.record."):
        named = named.replace(prefix, "")
    named = named.replace("NoneType", "null").replace("None", "null").replace("|", "\\|")
    for model in models:
        named = named.replace(model.__name__, f"[{model.__name__}](#{model.__name__.lower()})", 1)
    return named


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
    SCHEMA_FILE.write_text(json_schema(), encoding="utf-8")
