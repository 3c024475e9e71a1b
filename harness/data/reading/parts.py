"""Official splits: which part of the data a file or a row belongs to, by its name."""

from __future__ import annotations

import re

NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "development": "validation",
    "test": "test",
    "testing": "test",
}
# The name by itself, at the end of a longer one, or before the number of a shard.
_STEM = re.compile(rf"(?:.*[-_. ])?({'|'.join(sorted(NAMES, key=len, reverse=True))})(?:[-_.]\d.*)?")
_NUMBER = re.compile(r"[-_.]\d[^/]*?(?=(\.[a-z]+)*$)")


def part_of(name: str) -> str | None:
    """The part that a file's stem or the value of a `split` column names; None where it names none."""
    found = _STEM.fullmatch(name.strip().lower())
    return NAMES[found[1]] if found else None


def without_number(name: str) -> str:
    """The name of a file without the number of its shard: the same for all shards of a part."""
    return _NUMBER.sub("", name.lower())
