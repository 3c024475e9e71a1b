"""A contribution to shared results: a folder with records of one machine, and a file that says whose they are.

It holds `contribution.yaml` and, as a results folder does, `runs/<run_id>/record.json` and `predictions.csv`.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from harness.config.tree import explain, read_file
from harness.errors import UserError
from harness.results.record import Record
from harness.results.store import Store

MANIFEST, RECORD, PREDICTIONS = "contribution.yaml", "record.json", "predictions.csv"
MOST_BYTES = 10_000_000
_NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class About(BaseModel):
    """What `contribution.yaml` says.

    by: a name or a handle. machine: in words. revision: of the code, git's in full, or the version of the installed
    package. licence: of the records.
    """

    model_config = ConfigDict(extra="forbid")

    by: Text
    machine: Text
    date: datetime.date
    revision: Text
    licence: Literal["CC0-1.0", "CC-BY-4.0"]
    notes: str = ""


@dataclass(frozen=True)
class Contribution:
    """about: None where it can't be read. runs: the records that can be read, by the name of their folder. problems: of
    reading it."""

    folder: Path
    about: About | None
    runs: dict[str, Record]
    problems: list[str]

    @property
    def records(self) -> list[Record]:
        """The oldest first."""
        return sorted(self.runs.values(), key=lambda record: (record.finished_at, record.run_id))

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def store(self) -> Store:
        return Store(self.folder)

    @property
    def known_about(self) -> About:
        """Of a contribution without problems."""
        assert self.about is not None, f"{self.name} has no {MANIFEST} that can be read"
        return self.about


def contributions_in(folder: Path) -> list[Contribution]:
    """Every folder below `folder`, by name. Raises UserError where there is none."""
    if (folder / MANIFEST).exists() or (folder / "runs").exists():
        raise UserError(f"{str(folder)!r} is one contribution: name the folder that holds all of them.")
    found = sorted(path for path in folder.glob("*") if path.is_dir())
    if not found:
        raise UserError(f"no contributions below {str(folder)!r}: expected folders, each with a {MANIFEST}.")
    return [_read(path) for path in found]


def _read(folder: Path) -> Contribution:
    about, problems = _about(folder / MANIFEST)
    if not _NAME.fullmatch(folder.name):
        problems.append(f"the folder's name {folder.name!r}: use a to z, 0 to 9, and - . _ between them")
    problems += _stray_files(folder)
    runs, store = {}, Store(folder)
    for path in sorted(store.runs.glob(f"*/{RECORD}")):
        try:
            runs[path.parent.name] = store.read(path.parent.name)
        except UserError as problem:
            problems.append(str(problem))
    if not runs:
        problems.append(f"no records below {str(store.runs)!r}")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > MOST_BYTES:
        problems.append(
            f"{size / 1e6:.1f} MB, of which at most {MOST_BYTES / 1e6:.0f} are taken: leave strategies out, or make "
            "several contributions"
        )
    return Contribution(folder, about, runs, problems)


def _about(path: Path) -> tuple[About | None, list[str]]:
    if not path.is_file():
        return None, [f"no {MANIFEST}: write one with {', '.join(About.model_fields)}"]
    try:
        return About.model_validate(read_file(path)), []
    except UserError as problem:
        return None, [str(problem)]
    except ValidationError as error:
        return None, [f"{MANIFEST}: {line}" for line in explain(error, About).splitlines()]


def _stray_files(folder: Path) -> Iterator[str]:
    """What is no part of a contribution; folders without files say nothing."""
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        of_run = len(inside.parts) == 3 and inside.parts[0] == "runs" and path.name in (RECORD, PREDICTIONS)
        if path.is_symlink() or (path.is_file() and not of_run and inside != Path(MANIFEST)):
            yield f"{inside}: no part of a contribution; delete it (`git clean -fdX` deletes what a run leaves)"
        elif path.parent == folder / "runs" and path.is_dir() and not (path / RECORD).exists() and any(path.iterdir()):
            yield f"{inside}: no {RECORD}; add it, or delete the folder"
