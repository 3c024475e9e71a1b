"""What a record must not tell others: secrets, and where on whose machine it was made."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

PRIVATE = {
    "a token": re.compile(
        r"\b(hf_[A-Za-z0-9]{20,}|gh[opsu]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}|sk-[\w-]{20,}"
        r"|(AKIA|ASIA)[A-Z0-9]{16}|xox[abprs]-[\w-]{10,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,})"
    ),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a password": re.compile(r"://[^/\s:@]+:[^/\s@]+@|\b(password|passwd|secret|api_?key|token)\s*[=:]\s*\S{8}", re.I),
    # Not what follows a host, a drive or another folder: https://example.org/page, a/b.
    "an absolute path": re.compile(r"(?<![\w.:/~-])(~?/[\w.@+-]+/[\w.@+-]*|/(home|root|tmp)\b)|\b[A-Za-z]:\\"),
    "the name of a host": re.compile(r"\b[\w-]+\.(local|lan|internal|intranet|corp)\b", re.I),
    "the address of a host": re.compile(r"(?<![\d.-])(\d{1,3}\.){3}\d{1,3}(?![\d.-])"),
}


def private_parts(tree: Any) -> Iterator[str]:
    """Each text of a record, by its dotted key, that has the shape of something private, with what it seems to be."""
    for key, text in _texts(tree):
        for what, shape in PRIVATE.items():
            if found := shape.search(text):
                shown = found[0] if what not in ("a token", "a password") else f"{found[0][:6]}..."
                yield f"{key} has the shape of {what} ({shown})"


def _texts(tree: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(tree, str):
        yield key, tree
    elif isinstance(tree, dict):
        for name, value in tree.items():
            yield from _texts(value, f"{key}.{name}".lstrip("."))
            yield from [(f"a key of {key}", name)] if "/" in str(name) else []
    elif isinstance(tree, (list, tuple)):
        for value in tree:
            yield from _texts(value, key)
