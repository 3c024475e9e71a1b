"""The exception for a user's mistake, and the question that often ends it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something that a user gave is wrong.

    The message names what was given, what was expected and the remedy. The CLI prints it
    without a traceback and exits with code 2; any other exception is a bug or a failed run.
    """


def nearest(given: str, known: Iterable[str], most: int = 1) -> list[str]:
    """Up to `most` of the known names, those that a misspelt one may stand for. Upper and lower case count as equal."""
    names = {name.lower(): name for name in known}
    return [names[near] for near in difflib.get_close_matches(given.lower(), names, n=most)]


def did_you_mean(given: str, known: Iterable[str], most: int = 1) -> str:
    """Asks for the nearest names, with a space behind the question; empty where none is near."""
    near = nearest(given, known, most)
    return f"did you mean {' or '.join(map(repr, near))}? " if near else ""
