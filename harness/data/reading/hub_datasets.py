"""Data sets of the Hugging Face hub, or a folder in its layout, read by the library `datasets`."""

from __future__ import annotations

import hashlib
import re
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.config.places import HUB_PREFIX
from harness.config.schema import DataConfig
from harness.data.downloads import NotAvailable
from harness.data.libraries import import_datasets, import_huggingface_hub, one_line
from harness.data.model_files.hub import check_reachable
from harness.data.reading.arrow import table_of
from harness.data.reading.own_data import OwnData, combine
from harness.data.reading.parts import part_of
from harness.data.reading.table import Table
from harness.errors import UserError
from harness.files import file_sha256, is_disk_error, unwritable

_EXPECTED = "expected hf: and a data set of the hub (owner/name), or a folder in its layout"
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
# Data and their description; no code.
_DOWNLOADED = ["*.parquet", "*.csv", "*.tsv", "*.json", "*.jsonl", "*.txt", "*.gz", "*.zst", "*.zip", "README.md"]
_COMPLETE = ".complete"  # beside the files of a download that came to its end
_SAVED = "dataset_dict.json"  # of a folder that `save_to_disk` wrote


def load_hub_dataset(config: DataConfig, cache: Path) -> OwnData:
    """The texts of the data set that `config.name` ("hf:...") names.

    Raises NotAvailable where the hub can't be reached and nothing is cached, UserError where there is no such data set.
    """
    given = config.name.removeprefix(HUB_PREFIX)
    folder, notes = Path(given).expanduser(), []
    if not folder.is_dir():
        if not _HUB_ID.fullmatch(given):
            raise UserError(f"DATA={config.name}: there is no such folder; {_EXPECTED}.")
        folder, notes = _download(given, config.revision, cache)
        config = config.model_copy(update={"revision": folder.name})
    splits = _load(config, folder, cache)
    tables, unused = _by_part(config.name, splits)
    if unused:
        notes.append(f"not used: {', '.join(unused)}")
    data = combine(config, tables)
    return OwnData(data.texts, data.part, _sha256(folder), data.config, [*data.notes, *notes])


def _download(repository: str, revision: str | None, cache: Path) -> tuple[Path, list[str]]:
    """The folder of a revision, named by its commit, and what to say of it."""
    hub = import_huggingface_hub()
    wanted = {"repo_id": repository, "repo_type": "dataset", "revision": revision, "cache_dir": cache}
    wanted["allow_patterns"] = _DOWNLOADED
    cached = _cached(hub, wanted)
    if cached and revision and _COMMIT.fullmatch(revision):
        return cached, []
    try:
        check_reachable(repository, "README.md", repo_type="dataset")
        folder = Path(hub.snapshot_download(**wanted))
        (folder / _COMPLETE).touch()
    except (hub.errors.RepositoryNotFoundError, hub.errors.RevisionNotFoundError) as error:  # private ones included
        at = f" with the revision {revision!r}" if revision else ""
        raise UserError(
            f"DATA=hf:{repository}: the hub has no such public data set{at}; check the spelling (a folder on this "
            "machine is named by its path: hf:./folder)."
        ) from error
    except Exception as error:  # the library and the network raise anything
        if is_disk_error(error):
            raise unwritable(cache, error) from error
        if cached:
            return cached, [f"as it is in the cache: the hub could not be reached ({type(error).__name__})"]
        raise NotAvailable(f"the Hugging Face hub could not be reached ({type(error).__name__})") from error
    return folder, [f"revision {folder.name[:12]}"]


def _cached(hub: ModuleType, wanted: dict[str, Any]) -> Path | None:
    try:
        folder = Path(hub.snapshot_download(**wanted, local_files_only=True))
    except hub.errors.LocalEntryNotFoundError:
        return None
    except hub.errors.HFValidationError as error:
        raise UserError(
            f"DATA=hf:{wanted['repo_id']}: this can't be the name of a data set of the hub; {_EXPECTED}."
        ) from error
    return folder if (folder / _COMPLETE).is_file() else None


def _load(config: DataConfig, folder: Path, cache: Path) -> dict[str, Any]:
    """The library's data set of each split."""
    datasets = import_datasets()
    try:
        if (folder / _SAVED).is_file():
            return dict(datasets.load_from_disk(str(folder)))
        return dict(datasets.load_dataset(str(folder), config.subset, cache_dir=str(cache / "datasets")))
    except Exception as error:  # the library raises anything for a damaged or unknown layout
        if is_disk_error(error):
            raise unwritable(cache, error) from error
        raise UserError(
            f"DATA={config.name}: it can't be read ({one_line(error)}); name one of its subsets with "
            'SET="data.subset=...", or choose another data set.'
        ) from error


def _by_part(name: str, splits: dict[str, Any]) -> tuple[dict[str | None, list[Table]], list[str]]:
    """The tables of each part, and the splits that are none."""
    tables: dict[str | None, list[Table]] = {}
    unused = []
    for split, dataset in splits.items():
        part = part_of(split) if len(splits) > 1 else None
        if len(splits) > 1 and (part is None or part in tables):
            unused.append(f"{split} ({len(dataset):,} rows)")
            continue
        names = {column: feature.names for column, feature in dataset.features.items() if hasattr(feature, "names")}
        table = table_of(f"{name}, {split}", dataset.with_format("arrow")[:], partial(_named, names))
        tables[part] = [table]
    if not tables:
        raise UserError(
            f"DATA={name}: none of its splits ({', '.join(splits)}) is train, validation or test; "
            "choose another subset."
        )
    return tables, unused


def _named(names: dict[str, list[str]], column: str, values: list[Any]) -> list[Any]:
    """The names of labels instead of their numbers; -1, a hidden label, has none."""
    known = names.get(column)
    if known is None:
        return values
    return [known[value] if isinstance(value, int) and value >= 0 else value for value in values]


def _sha256(folder: Path) -> str:
    """Of the names and contents of all its files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _COMPLETE):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{file_sha256(path)}".encode())
    return digest.hexdigest()
