"""Atomic writes, hashes of files, and errors of a full or read-only disk."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import tempfile
from pathlib import Path
from typing import TypeGuard

from harness.errors import UserError

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)


def unwritable(cache: Path, error: OSError) -> UserError:
    return UserError(f"cache folder {str(cache)!r} can't be written ({error.strerror}): name another with CACHE.")


def is_disk_error(error: BaseException) -> TypeGuard[OSError]:
    """Whether the error is about space or permissions; those of a network are instances of OSError, too."""
    return isinstance(error, OSError) and error.errno in _DISK_ERRORS


def try_writing(folder: Path) -> None:
    """Make the folder, if it is not there, and a file in it that is gone at once. Raises OSError where that fails."""
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file, and the folders above it, so that readers see all of it or nothing.

    Writers on different machines don't collide. Raises OSError, and leaves no partial file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def open_to_readers(path: Path) -> None:
    """Give a file that a library wrote for its owner alone the permissions of any new file."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
