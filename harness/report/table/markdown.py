"""Tables as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(titles: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> list[str]:
    """The lines of a table; the first `left` columns hold text, the others numbers. The caller escapes the cells."""
    alignment = "|" + " --- |" * left + " ---: |" * (len(titles) - left)
    return [_row(titles), alignment, *map(_row, rows)]


def cell(text: str) -> str:
    """Escaped."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
