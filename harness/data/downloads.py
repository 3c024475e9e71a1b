"""Published files: looked for in the assets folder, then in the cache, then downloaded into the cache."""

from __future__ import annotations

import logging
import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError
from harness.files import file_sha256, unwritable, write_atomically

TIMEOUT_SECONDS = 5


@dataclass(frozen=True)
class Remote:
    """A published file.

    name: what people call it.
    path: where it lies below the assets folder and below the cache.
    sha256: of the file itself, not of an archive around it.
    member: its name inside the zip archive at `url`; None where `url` is the file.
    """

    name: str
    path: str
    url: str
    sha256: str
    member: str | None = None


class NotAvailable(Exception):
    """A published file is neither in the assets folder nor in the cache, and can't be downloaded; says why."""


def assets_folder() -> Path | None:
    """The folder that FTBENCH_ASSETS names; None where it is not set.

    Raises UserError where there is no such folder.
    """
    given = os.environ.get("FTBENCH_ASSETS")
    if not given:
        return None
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise UserError(f"FTBENCH_ASSETS={given!r} is no folder: unset it, or give a folder that exists.")
    return folder


def fetch(remote: Remote, cache: Path, assets: Path | None) -> Path:
    """The path of a local copy of the published file, with the right sha256.

    Raises NotAvailable where the file can't be had, UserError where a local copy is damaged or the cache can't be
    written.
    """
    for folder in filter(None, (assets, cache)):
        path = folder / remote.path
        if path.is_file():
            if file_sha256(path) != remote.sha256:
                raise UserError(f"{path} is not {remote.name} as published (its sha256 differs): replace or delete it.")
            return path
    content = _download(remote)
    path = cache / remote.path
    try:
        write_atomically(path, content)
    except OSError as error:
        raise unwritable(cache, error) from error
    return path


def _download(remote: Remote) -> bytes:
    import pooch  # here, as most commands find what they need

    pooch.get_logger().setLevel(logging.WARNING)
    http = pooch.HTTPDownloader(timeout=TIMEOUT_SECONDS)
    with tempfile.TemporaryDirectory() as folder:
        try:
            pooch.retrieve(
                remote.url,
                known_hash=None,  # that of an archive is not known, so the file's is compared below
                fname="download",
                path=folder,
                processor=pooch.Unzip([remote.member], extract_dir=".") if remote.member else None,
                downloader=http,  # pyright: ignore[reportArgumentType] - pooch names its parameters otherwise
            )
        except OSError as error:  # those of requests included
            raise NotAvailable(f"{remote.name} can't be downloaded ({type(error).__name__})") from error
        except zipfile.BadZipFile as error:
            raise NotAvailable(f"{remote.url} holds no {remote.member}") from error
        file = Path(folder) / (remote.member or "download")
        if not file.is_file():
            raise NotAvailable(f"{remote.url} holds no {remote.member}")
        if file_sha256(file) != remote.sha256:
            raise NotAvailable(f"{remote.url} has changed (its sha256 differs from the published file's)")
        return file.read_bytes()
