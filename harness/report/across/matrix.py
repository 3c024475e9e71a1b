"""A table over several comparison tables, in the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.report.table.markdown import cell, markdown_table


@dataclass(frozen=True)
class Matrix:
    """cells: a row for each strategy, its name first."""

    heading: str
    titles: list[str]
    cells: list[list[str]]
    in_words: list[str]
    notes: list[str]


def print_matrix(console: Console, matrix: Matrix) -> None:
    console.print(f"[bold]{escape(matrix.heading)}[/]", highlight=False)  # a title would be folded to the table's width
    table = Table(box=box.SIMPLE_HEAD)
    for number, title in enumerate(matrix.titles):
        table.add_column(escape(title), justify="right" if number else "left", style=None if number else "cyan")
    for row in matrix.cells:
        table.add_row(*map(escape, row))
    console.print(table)
    if matrix.in_words:
        console.print(f"  {escape(' '.join(matrix.in_words))}\n", highlight=False)
    for note in matrix.notes:
        console.print(f"  [dim]{escape(note)}[/]", highlight=False)


def matrices_markdown(matrices: Sequence[Matrix]) -> str:
    return "".join(map(_markdown, matrices))


def _markdown(matrix: Matrix) -> str:
    lines = [
        f"### {cell(matrix.heading)}",
        "",
        *markdown_table([cell(title) for title in matrix.titles], [list(map(cell, row)) for row in matrix.cells]),
        "",
        *([cell(" ".join(matrix.in_words)), ""] if matrix.in_words else []),
        *(f"- {cell(note)}" for note in matrix.notes),
        "",
    ]
    return "\n".join([*lines, ""])
