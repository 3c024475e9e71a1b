"""Files that are downloaded once: looked for in the assets folder, then in the cache, then on the network."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import secrets
import zipfile
from dataclasses import dataclass
from pathlib import Path

import requests

from harness import UserError

TIMEOUT_SECONDS = 5


@dataclass(frozen=True)
class Remote:
    """A published file: what people call it, its path below the assets folder and the cache, and its sha256.

    member: the file's name inside the archive at `url`, where that is a zip.
    """

    name: str
    path: str
    url: str
    sha256: str
    member: str | None = None


class NotAvailable(Exception):
    """A published file is in neither the assets folder nor the cache, and can't be downloaded; says why."""


def assets_folder() -> Path | None:
    """The folder that FTBENCH_ASSETS names, if it is set.

    Raises UserError where it names no folder.
    """
    given = os.environ.get("FTBENCH_ASSETS")
    if not given:
        return None
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise UserError(f"FTBENCH_ASSETS={given!r} is no folder: unset it, or give a folder that exists.")
    return folder


def fetch(remote: Remote, cache: Path, assets: Path | None) -> Path:
    """The path of a published file with the right hash.

    Raises NotAvailable where it can't be had, UserError where a local copy is damaged or the cache can't be written.
    """
    for folder in filter(None, (assets, cache)):
        path = folder / remote.path
        if path.is_file():
            if hashlib.sha256(path.read_bytes()).hexdigest() != remote.sha256:
                raise UserError(
                    f"{path} is not the published {remote.name} (its sha256 differs): replace or delete it."
                )
            return path
    content = _download(remote)
    path = cache / remote.path
    try:
        write_atomically(path, content)
    except OSError as error:
        raise unwritable(cache, error) from error
    return path


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


def _download(remote: Remote) -> bytes:
    try:
        response = requests.get(remote.url, timeout=TIMEOUT_SECONDS)
        response.raise_for_status()
    except requests.RequestException as error:
        raise NotAvailable(f"{remote.name} can't be downloaded ({type(error).__name__})") from error
    content = response.content
    if remote.member:
        try:
            content = zipfile.ZipFile(io.BytesIO(content)).read(remote.member)
        except (zipfile.BadZipFile, KeyError) as error:
            raise NotAvailable(f"{remote.url} holds no {remote.member}") from error
    if hashlib.sha256(content).hexdigest() != remote.sha256:
        raise NotAvailable(f"{remote.url} has changed (its sha256 differs from the published file's)")
    return content
