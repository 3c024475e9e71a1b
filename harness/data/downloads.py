"""Files that are downloaded once: looked for in the assets folder, then in the cache, then on the network."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import requests

from harness.errors import UserError
from harness.files import unwritable, write_atomically

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
