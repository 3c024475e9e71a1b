"""Files of a model that `hf:` names: a repository of the Hugging Face hub, a folder, or a GGUF file."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import requests

from harness import UserError
from harness.data.fetch import TIMEOUT_SECONDS, NotAvailable, assets_folder

PREFIX = "hf:"
# Never pickles, never code.
_WANTED = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*",
    "vocab.*",
    "merges.txt",
    "special_*",
)
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_KNOWN = "expected hf: and a hub id (owner/name), a folder with a config.json, or a .gguf file"


def is_hub(model: str) -> bool:
    return model.startswith(PREFIX)


@functools.cache
def locate(model: str, cache: Path) -> Path:
    """The folder, or the GGUF file, that `model` ("hf:...") names. A hub id is looked for below FTBENCH_ASSETS/models,
    then in the cache, into which it is downloaded.

    Raises NotAvailable where the hub can't be reached, UserError where there is no such model.
    """
    given = model.removeprefix(PREFIX)
    mirror, path = assets_folder(), Path(given).expanduser()
    if _HUB_ID.fullmatch(given) and mirror and (mirror / "models" / given).is_dir():
        path = mirror / "models" / given
    if path.is_dir():
        alone = list(path.glob("*.gguf"))
        if not (path / "config.json").is_file() and len(alone) != 1:
            raise UserError(
                f"MODEL={model}: the folder has no config.json, nor is there one GGUF file in it; {_KNOWN}."
            )
        return path.resolve() if (path / "config.json").is_file() else alone[0].resolve()
    if path.is_file() and path.suffix == ".gguf":
        return path.resolve()
    if path.exists() or path.suffix == ".gguf" or not _HUB_ID.fullmatch(given):
        problem = "is neither a folder nor a GGUF file" if path.exists() else "does not exist"
        raise UserError(f"MODEL={model}: {str(path)!r} {problem}; {_KNOWN}.")
    return _download(given, cache)


def _download(repository: str, cache: Path) -> Path:
    # Read when huggingface_hub is imported, so that an unreachable hub is noticed soon.
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", str(TIMEOUT_SECONDS))
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    wanted = {"repo_id": repository, "cache_dir": cache, "allow_patterns": list(_WANTED)}
    try:
        return Path(huggingface_hub.snapshot_download(**wanted, local_files_only=True))
    except LocalEntryNotFoundError:
        pass  # not in the cache yet
    try:
        # snapshot_download would try an unreachable hub for half a minute; this asks once.
        requests.head(huggingface_hub.hf_hub_url(repository, "config.json"), timeout=TIMEOUT_SECONDS)
        folder = Path(huggingface_hub.snapshot_download(**wanted))
    except (RepositoryNotFoundError, GatedRepoError) as error:
        raise UserError(
            f"MODEL=hf:{repository}: the hub has no such public model; check the spelling (a folder on this machine "
            "is named by its path: hf:./folder)."
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise NotAvailable(f"the Hugging Face hub could not be reached ({type(error).__name__})") from error
    if not (folder / "config.json").is_file():
        raise UserError(f"MODEL=hf:{repository}: it has no config.json, so that nobody knows its architecture.")
    return folder


def weight_files(path: Path) -> list[Path]:
    """Of a folder its safetensors files; a GGUF file is one itself."""
    return [path] if path.is_file() else sorted(path.glob("*.safetensors"))


@functools.cache
def content_sha256(path: Path, weights: bool) -> str:
    """Of all that determines tokens and architecture, and of the weights where these are used."""
    described = (
        [path]
        if path.is_file()
        else [file for file in sorted(path.iterdir()) if file.suffix in (".json", ".txt", ".model")]
    )
    digest = hashlib.sha256()
    for file in sorted({*described, *(weight_files(path) if weights else [])}):
        with file.open("rb") as content:
            digest.update(f"{file.name}\0".encode() + hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def read_config(path: Path) -> dict[str, Any]:
    """A folder's config.json. Raises UserError where it is none."""
    try:
        return json.loads((path / "config.json").read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path / 'config.json'} is no JSON ({error}): download the model again.") from error
