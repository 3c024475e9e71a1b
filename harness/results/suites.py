"""Suites whose file lists rows, as last run: saved in the results folder, so that later tables show them again."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ValidationError

from harness.config.suite import Published
from harness.config.tree import first_mistake
from harness.files import write_atomically
from harness.results.store import Store


class SavedRow(BaseModel):
    """A row of a suite's file: its runs by identity, and what `harness.config.suite.Row` says about it.

    changed: settings that differ from those of the published figures. skipped: the reason, where it could not run.
    """

    name: str
    published: Published | None
    changed: list[str]
    skipped: str | None
    identities: list[str]


class SavedSuite(BaseModel):
    """name: that of its file, and of its own in RESULTS/suites. source: where the published figures come from."""

    name: str
    source: str | None
    rows: list[SavedRow]

    @property
    def is_published(self) -> bool:
        """Whether its rows are judged against published figures; else they are compared with each other."""
        return any(row.published for row in self.rows)

    def save(self, results: Path) -> None:
        write_atomically(results / "suites" / f"{self.name}.json", self.model_dump_json(indent=2) + "\n")


def suites_in(results: Path) -> list[SavedSuite]:
    return _survey(results)[0]


def left_out(store: Store) -> list[str]:
    """A message for each record and each suite that is damaged or of another version."""
    return [*store.unreadable(), *_survey(store.results)[1]]


def _survey(results: Path) -> tuple[list[SavedSuite], list[str]]:
    found, problems = [], []
    for path in sorted((results / "suites").glob("*.json")):
        try:
            found.append(SavedSuite.model_validate_json(path.read_bytes()))
        except ValidationError as error:
            problems.append(f"suite {path} is damaged or of another version ({first_mistake(error)}): run it again.")
    return found, problems
