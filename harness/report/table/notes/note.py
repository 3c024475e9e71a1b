"""A note on a comparison table."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Note:
    """columns: names of those that it explains: where none of them is shown, it is not needed. None: it is on the
    table, whatever its columns."""

    text: str
    columns: tuple[str, ...] | None = None

    def is_needed(self, shown: Collection[str]) -> bool:
        return self.columns is None or any(name in shown for name in self.columns)


def as_notes(lines: Iterable[str | Note]) -> list[Note]:
    """Each once, as a sentence. A text without columns is on the table."""
    found = (line if isinstance(line, Note) else Note(line) for line in lines)
    return list(dict.fromkeys(replace(note, text=note.text[0].upper() + note.text[1:]) for note in found))
