"""The bytes of data files: single ones, compressed ones, and the members of a folder or an archive."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from harness.data.libraries import one_line
from harness.errors import UserError

FILE_TYPES = (".csv", ".tsv", ".txt", ".jsonl", ".json", ".parquet")
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
_COMPRESSED = (".gz", ".zst")
_DAMAGED = (zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError)
EXPECTED = (
    f"a name that ends in one of {', '.join(FILE_TYPES)}, also with .gz, .zst or .zip, or a folder or an archive "
    f"({', '.join(ARCHIVES)}) with train, validation and test files"
)


@dataclass(frozen=True)
class DataFile:
    """A file of labelled texts, read when its content is asked for.

    name: as messages show it. stem: its name without folder and endings, such as "train". kind: one of FILE_TYPES.
    """

    name: str
    stem: str
    kind: str
    read: Callable[[], bytes]


@contextmanager
def unpacking(name: str) -> Iterator[None]:
    """Raises UserError for a compressed file or an archive that can't be unpacked."""
    try:
        yield
    except (OSError, EOFError, ValueError, RuntimeError, *_DAMAGED) as error:
        raise UserError(f"data file {name!r} can't be unpacked ({one_line(error)}): pack it again.") from error


def is_data_path(given: str) -> bool:
    """Whether `given` names data by its ending, or is a folder or a file without an ending that exists."""
    path = Path(given).expanduser()
    return given.lower().endswith((*FILE_TYPES, *ARCHIVES, *_COMPRESSED)) or path.is_dir() or _is_bare(path)


def files_of(given: str) -> list[DataFile]:
    """The data files that `given` names: itself, or those of a folder or an archive, in the order of their names.

    Raises UserError where there is none.
    """
    path = Path(given).expanduser()
    if not is_data_path(given):
        missing = "" if path.exists() else " there is no such file or folder;"
        raise UserError(f"data file {given!r}:{missing} expected {EXPECTED}.")
    if path.is_dir():
        files = list(_in_folder(given.rstrip("/"), path))
    elif path.is_file():
        files = list(_in_file(given, path))
    else:
        raise UserError(f"data file {given!r} does not exist: check the path; a relative one counts from {Path.cwd()}.")
    if not files:
        raise UserError(f"data {given!r} holds no data file: expected {EXPECTED}.")
    return files


def _is_bare(path: Path) -> bool:
    """A file without an ending, as published collections have: read as text."""
    return not path.suffix and path.is_file()


def _bytes_of(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"data file {name!r} can't be read ({error.strerror}): check its permissions.") from error


def _in_folder(given: str, folder: Path) -> Iterator[DataFile]:
    for path in sorted([*folder.glob("*"), *folder.glob("*/*")]):
        inside = path.relative_to(folder).as_posix()
        if path.is_file() and _is_data(inside):
            name = f"{given}/{inside}"
            yield _data_file(name, partial(_bytes_of, name, path))


def _in_file(given: str, path: Path) -> Iterator[DataFile]:
    lower = path.name.lower()
    if not lower.endswith(ARCHIVES):
        yield _data_file(given, partial(_bytes_of, given, path))
        return
    content = _bytes_of(given, path)
    with unpacking(given):
        names, read = (_zip_members if lower.endswith(".zip") else _tar_members)(content)
        for name in sorted(filter(_is_data, names)):
            yield _data_file(f"{given}/{name}", partial(read, name))


def _zip_members(content: bytes) -> tuple[list[str], Callable[[str], bytes]]:
    archive = zipfile.ZipFile(io.BytesIO(content))
    return [name for name in archive.namelist() if not name.endswith("/")], archive.read


def _tar_members(content: bytes) -> tuple[list[str], Callable[[str], bytes]]:
    archive = tarfile.open(fileobj=io.BytesIO(content))  # noqa: SIM115 - read from as long as its files are

    def read(name: str) -> bytes:
        opened = archive.extractfile(name)
        assert opened, "regular files can be opened"
        return opened.read()

    return [member.name for member in archive.getmembers() if member.isfile()], read


def _data_file(name: str, read: Callable[[], bytes]) -> DataFile:
    plain = _plain_name(name)
    kind = next((kind for kind in FILE_TYPES if plain.endswith(kind)), ".txt")
    return DataFile(name, PurePosixPath(plain).stem, kind, lambda: _decompressed(name, read))


def _is_data(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return _plain_name(name).endswith(FILE_TYPES) and not any(part.startswith((".", "__MACOSX")) for part in parts)


def _plain_name(name: str) -> str:
    """The name in lower case, without the ending of a compression."""
    lower = name.lower()
    return next((lower.removesuffix(ending) for ending in _COMPRESSED if lower.endswith(ending)), lower)


def _decompressed(name: str, read: Callable[[], bytes]) -> bytes:
    with unpacking(name):
        content = read()
        if name.lower().endswith(".gz"):
            return gzip.decompress(content)
        if name.lower().endswith(".zst"):
            import pyarrow as pa  # slow to import, and few files are compressed so

            with pa.CompressedInputStream(pa.BufferReader(content), "zstd") as stream:
                return stream.read()
        return content
