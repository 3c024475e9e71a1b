"""The parts of a record that its schema leaves open, as far as tables and checks read them: configuration and
environment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.config.schema import RunConfig
from harness.results.record import Record

Count = Annotated[int, Field(ge=1)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True)


class _Git(_Part):
    revision: str
    modified: bool


class _Versions(_Part):
    ftbench: str


class _Environment(_Part):
    """git: None where the code was installed. jobs: records of older versions lack it."""

    python: str
    platform: str
    device: str
    processor: str
    cores: Count
    threads: Count
    ram_bytes: Count
    versions: _Versions
    git: _Git | None
    code_sha256: str
    jobs: Count = 1


def free_part_problems(record: Record) -> Iterator[str]:
    """Keys that are unknown here are those of other versions."""
    for part, model, tree in (("config", RunConfig, record.config), ("environment", _Environment, record.environment)):
        yield from _mistakes(part, model, tree)


def revision_of(record: Record) -> str:
    """Git's in full, with ` modified` where there were changes, or the version of the installed package."""
    found = _Environment.model_validate(record.environment)
    if found.git is None:
        return found.versions.ftbench
    return f"{found.git.revision}{' modified' if found.git.modified else ''}"


def _mistakes(part: str, model: type[BaseModel], tree: dict[str, Any]) -> Iterator[str]:
    try:
        model.model_validate(tree)
    except ValidationError as error:
        for mistake in error.errors():
            if mistake["type"] != "extra_forbidden":
                yield f"{'.'.join(map(str, (part, *mistake['loc'])))}: {mistake['msg']}"
