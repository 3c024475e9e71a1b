"""Files written atomically, their hashes, and what a full or read-only disk says."""

from __future__ import annotations

import errno
import hashlib
import secrets
from pathlib import Path

from harness.errors import UserError


def unwritable(cache: Path, error: OSError) -> UserError:
    return UserError(f"cache folder {str(cache)!r} can't be written ({error.strerror}): name another with CACHE.")


def is_of_the_disk(error: BaseException) -> bool:
    """Whether it is about room or permissions; what goes wrong on a network is an OSError, too."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file so that whoever reads it sees it whole or not at all, and writers on any machine don't collide."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
