"""The files of stored features: space reserved before, published when complete, the least recently used removed."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from filelock import FileLock


def reserve(path: Path, size: int) -> None:
    """Take the space in advance, so that a full disk is noticed here and not while a mapped page is written."""
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)


def publish(partial: Path, path: Path) -> None:
    """Give a complete file its name, once it is on the disk: a machine that goes down must not leave zeros."""
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def make_room(folder: Path, limit_bytes: int) -> None:
    """Bring the folder below the limit: partial files of killed runs go, then what was used least recently.

    What another process is about to write or to map stays; whoever has a file mapped keeps it.
    """
    for partial in folder.glob("*.partial"):
        _remove_if_free(partial)
    found = []
    for file in folder.glob("*.features"):
        with suppress(FileNotFoundError):  # another process makes room, too
            status = file.stat()
            found.append((status.st_mtime, status.st_size, file))
    total = 0
    for _, size, file in sorted(found, reverse=True):
        total += size
        if total > limit_bytes:
            _remove_if_free(file)


def _remove_if_free(file: Path) -> None:
    with suppress(OSError), FileLock(f"{file.with_suffix('.features')}.lock", timeout=0):  # held, or another user's
        file.unlink(missing_ok=True)
