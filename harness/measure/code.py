"""Hashes of the harness's own source: they recognise a finished run, and stored features that can be used again."""

from __future__ import annotations

import hashlib
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
# What shows results but determines none: a change here leaves finished runs finished.
_SHOWS_ONLY = (
    "api",
    "report",
    "progress",
    "tracking",
    "prediction",
    "gate",
    "serving",
    "sharing",
    "starter",
    "cli.py",
    "commands.py",
    "__main__.py",
)
# What the bits of stored features depend on.
_FEATURES = ("data", "model", "kernels", "features")


def code_sha256(package: Path = PACKAGE) -> str:
    """Of all code."""
    return _sha256(package, list(package.iterdir()))


def results_code_sha256(package: Path = PACKAGE) -> str:
    """Of all code that can change the result of a run."""
    return _sha256(package, [path for path in package.iterdir() if path.name not in _SHOWS_ONLY])


def features_code_sha256(package: Path = PACKAGE) -> str:
    """Of all code that can change what a prefix computes."""
    return _sha256(package, [package / folder for folder in _FEATURES])


def _sha256(package: Path, parts: list[Path]) -> str:
    sources = [file for part in parts for file in ([part] if part.suffix == ".py" else part.rglob("*.py"))]
    digest = hashlib.sha256()
    for file in sorted(sources):
        digest.update(f"{file.relative_to(package).as_posix()}\0".encode() + file.read_bytes())
    return digest.hexdigest()
