"""Suites whose file lists rows, as they were run last: kept in the results, so that later tables show them again."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ValidationError

from harness.config.tree import first_mistake
from harness.files import write_atomically
from harness.planning.plan import PlannedRow
from harness.results.store import Store


class KeptSuite(BaseModel):
    """name: that of its file, and of its own below RESULTS/suites. source: where published figures are from."""

    name: str
    source: str | None
    rows: list[PlannedRow]

    @property
    def is_published(self) -> bool:
        """Whether its rows are judged against published figures; else they are compared with each other."""
        return any(row.published for row in self.rows)

    def save(self, results: Path) -> None:
        write_atomically(results / "suites" / f"{self.name}.json", self.model_dump_json(indent=2) + "\n")


def suites_in(results: Path) -> list[KeptSuite]:
    return _survey(results)[0]


def left_out(store: Store) -> list[str]:
    """What is wrong with each record and each suite that is damaged or of another version."""
    return [*store.unreadable(), *_survey(store.results)[1]]


def _survey(results: Path) -> tuple[list[KeptSuite], list[str]]:
    found, problems = [], []
    for path in sorted((results / "suites").glob("*.json")):
        try:
            found.append(KeptSuite.model_validate_json(path.read_bytes()))
        except ValidationError as error:
            problems.append(f"suite {path} is damaged or of another version ({first_mistake(error)}): run it again.")
    return found, problems
