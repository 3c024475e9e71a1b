"""Learning curves over labels: tables that differ in the number of training texts only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.config.tree import get_key
from harness.report.across.family import Cell, Family, alike
from harness.report.across.matrix import Matrix
from harness.report.table.comparison_table import ComparisonTable
from harness.statistics import Verdict


@dataclass(frozen=True)
class LabelCurves:
    """sizes: how many training texts each table of the family has, rising."""

    family: Family
    sizes: list[int]

    @property
    def heading(self) -> str:
        return f"How many labels: {self.family.tables[-1].heading}"


def label_curves(tables: Sequence[ComparisonTable]) -> list[LabelCurves]:
    """One for each family of tables of several sizes."""
    return [
        LabelCurves(Family.of(family), [_size(table) for table in family])
        for family in alike(tables, _without_size, _size)
        if any(get_key(table.conditions, "training.texts") for table in family)
    ]


def _size(table: ComparisonTable) -> int:
    return next(entry.ok[0].ok_data.sizes["train"] for entry in table.entries if entry.ok)


def _without_size(conditions: dict[str, Any]) -> dict[str, Any]:
    """Fewer texts are trained on in more epochs."""
    rest = {key: value for key, value in conditions.get("training", {}).items() if key not in ("texts", "epochs")}
    return {**conditions, "training": rest}


def label_matrix(curves: LabelCurves) -> Matrix:
    family = curves.family
    title = family.tables[-1].metric.title
    epochs = [get_key(table.conditions, "training.epochs") for table in family.tables]
    cells = [[name, *(cell.text if cell else "-" for cell in row)] for name, row in family.rows.items()]
    notes = [
        f"{title[0].upper()}{title[1:]} on test, %, [95%], by number of training texts: each seed draws its own "
        "stratified part, which holds its smaller ones. Test and validation texts are the same.",
        f"↑, ↓: better or worse than {family.reference}, at a 5% error over all {family.comparisons} comparisons of "
        "this table together (Holm).",
        f"Epochs: {', '.join(f'{count} for {size:,}' for count, size in zip(epochs, curves.sizes, strict=True))}.",
        "Each size has a table of its own in table.md.",
    ]
    titles = ["training texts", *(f"{size:,}" for size in curves.sizes)]
    return Matrix(curves.heading, titles, cells, list(curves_in_words(curves)), notes)


def curves_in_words(curves: LabelCurves) -> Iterator[str]:
    """From how many texts on which is better: only what is shown at every larger size of the curve, too."""
    reference, rows = curves.family.reference, curves.family.rows
    others = {name: row for name, row in rows.items() if name != reference}
    beaten = _by_size(others, "worse", curves.sizes)
    if beaten:
        parts = [f"than {', '.join(names)} from {size:,} training texts on" for size, names in beaten.items()]
        yield f"{reference} is shown to be better {', and '.join(parts)}."
    for size, names in _by_size(others, "better", curves.sizes).items():
        verb = "are" if len(names) > 1 else "is"
        yield f"{', '.join(names)} {verb} shown to be better than {reference} from {size:,} training texts on."
    for name, row in others.items():
        for verdict in ("better", "worse"):
            at = [size for size, cell in zip(curves.sizes, row, strict=True) if cell and cell.verdict == verdict]
            if at and _since(row, verdict) is None:
                sizes = ", ".join(f"{size:,}" for size in at)
                yield f"{name} is shown to be {verdict} than {reference} at {sizes} training texts, not at more."
    open_rows = [name for name, row in others.items() if not any(cell and _is_clear(cell) for cell in row)]
    if open_rows:
        yield f"At no size is a difference to {reference} shown for {', '.join(open_rows)}."


def _is_clear(cell: Cell) -> bool:
    return cell.verdict in ("better", "worse")


def _by_size(rows: dict[str, list[Cell | None]], verdict: Verdict, sizes: list[int]) -> dict[int, list[str]]:
    """Names of rows by the size from which on the verdict is theirs, rising."""
    found: dict[int, list[str]] = {}
    for name, row in rows.items():
        if (since := _since(row, verdict)) is not None:
            found.setdefault(sizes[since], []).append(name)
    return dict(sorted(found.items()))


def _since(row: list[Cell | None], verdict: Verdict) -> int | None:
    """The first position from which on, to the last, every cell has the verdict; None where the last has not."""
    since = None
    for position in range(len(row) - 1, -1, -1):
        cell = row[position]
        if cell is None or cell.verdict != verdict:
            break
        since = position
    return since
