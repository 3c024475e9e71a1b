"""Files of a model that `hf:` names: a repository of the Hugging Face hub, a folder, or a GGUF file."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import io
import json
import logging
import os
import re
import tempfile
from contextlib import redirect_stderr
from pathlib import Path
from types import ModuleType
from typing import Any

import requests
import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import save_file

from harness.data.downloads import TIMEOUT_SECONDS, NotAvailable, assets_folder
from harness.errors import UserError
from harness.files import is_of_the_disk, unwritable

PREFIX = "hf:"
_KNOWN = "expected hf: and a hub id (owner/name), a folder with a config.json, or a .gguf file"
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_INDEX = "model.safetensors.index.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
# Never pickles, never code.
_WANTED = ["config.json", "model*.safetensors", _INDEX, "tokenizer*", "vocab.*", "merges.txt", "special_*", "spiece.*"]


def is_hub(model: str) -> bool:
    return model.startswith(PREFIX)


@functools.cache
def locate(model: str, cache: Path) -> Path:
    """The folder of the model that `model` ("hf:...") names. A hub id is looked for below FTBENCH_ASSETS/models, then
    in the cache, into which it is downloaded; what a GGUF file holds is written there as a folder, once.

    Raises NotAvailable where the hub can't be reached, UserError where there is no such model.
    """
    found = _find(model, cache)
    return found if found.is_dir() else _converted(found, cache)


def _find(model: str, cache: Path) -> Path:
    """A folder or a GGUF file."""
    given = model.removeprefix(PREFIX)
    path, mirror = Path(given).expanduser(), assets_folder()
    if not path.exists() and path.suffix != ".gguf" and _HUB_ID.fullmatch(given):
        mirrored = mirror and _in_folder(mirror / "models" / given)
        return mirrored or _download(given, cache)
    if path.is_file() and path.suffix == ".gguf":
        return path.resolve()
    if not path.is_dir():
        problem = "is neither a folder nor a GGUF file" if path.exists() else "does not exist"
        raise UserError(f"MODEL={model}: {str(path)!r} {problem}; {_KNOWN}.")
    found = _in_folder(path)
    if not found:
        raise UserError(f"MODEL={model}: the folder has no config.json, nor is there one GGUF file in it; {_KNOWN}.")
    return found


def _in_folder(folder: Path) -> Path | None:
    """The folder where it holds a model of the library; else the one GGUF file in it."""
    if (folder / "config.json").is_file():
        return folder.resolve()
    alone = list(folder.glob("*.gguf"))
    return alone[0].resolve() if len(alone) == 1 else None


def _download(repository: str, cache: Path) -> Path:
    hub = huggingface_hub()
    wanted = {"repo_id": repository, "cache_dir": cache, "allow_patterns": _WANTED}
    try:
        folder = Path(hub.snapshot_download(**wanted, local_files_only=True))
        if _is_whole(folder):
            return folder
    except hub.errors.LocalEntryNotFoundError:
        pass  # not in the cache yet
    except hub.errors.HFValidationError as error:
        raise UserError(f"MODEL=hf:{repository}: this can't be the name of a model of the hub; {_KNOWN}.") from error
    try:
        ask_once(repository, "config.json")
        folder = Path(hub.snapshot_download(**wanted))
    except hub.errors.RepositoryNotFoundError as error:  # one that is not public is one
        raise UserError(
            f"MODEL=hf:{repository}: the hub has no such public model; check the spelling (a folder on this machine "
            "is named by its path: hf:./folder)."
        ) from error
    except Exception as error:  # whatever the network, or the library that talks to it, makes of it
        if is_of_the_disk(error):
            raise unwritable(cache, error) from error
        raise NotAvailable(f"the Hugging Face hub could not be reached ({type(error).__name__})") from error
    if not (folder / "config.json").is_file():
        raise UserError(f"MODEL=hf:{repository}: it has no config.json, so that nobody knows its architecture.")
    return folder


def _converted(gguf: Path, cache: Path) -> Path:
    """Reading a GGUF file takes seconds: as a folder it is read in a fraction of one, by every rank and run."""
    with gguf.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    folder = cache / "gguf" / f"{gguf.stem}-{sha256[:16]}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"), tempfile.TemporaryDirectory(dir=folder.parent) as partial:
            if not folder.exists():
                _convert(gguf, Path(partial) / "model")
                (Path(partial) / "model").replace(folder)
    except OSError as error:
        raise unwritable(cache, error) from error
    return folder


def _convert(gguf: Path, folder: Path) -> None:
    transformers = library()
    if importlib.util.find_spec("gguf") is None:
        raise UserError("a GGUF file needs the package gguf; `pip install 'ftbench[hf]'` brings it, `make setup` too.")
    options = {"gguf_file": gguf.name, "trust_remote_code": False}
    try:
        with redirect_stderr(io.StringIO()):  # a progress bar that no setting of the library turns off
            model = transformers.AutoModel.from_pretrained(gguf.parent, dtype=torch.float32, **options)
        model.config.__dict__.pop("quantization_config", None)  # what was read is not quantised any more
        model.config.save_pretrained(folder)
        save_file(model.state_dict(), folder / "model.safetensors", {"format": "pt"})
        transformers.AutoTokenizer.from_pretrained(gguf.parent, **options).save_pretrained(folder)
    except SafetensorError as error:  # its name for what goes wrong while a file is written
        raise UserError(f"{folder} can't be written ({error}): name another folder with CACHE.") from error
    except Exception as error:  # whatever the library makes of a stranger's file
        if is_of_the_disk(error):
            raise
        raise UserError(f"{gguf} is damaged, or not of a known kind ({told(error)}): download it again.") from error


def _is_whole(folder: Path) -> bool:
    return (folder / "config.json").is_file() and bool(weight_files(folder)) and not missing_shards(folder)


def huggingface_hub() -> ModuleType:
    # Read when it is imported, so that an unreachable hub is noticed soon.
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", str(TIMEOUT_SECONDS))
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import huggingface_hub
    import huggingface_hub.errors

    return huggingface_hub


def ask_once(repository: str, filename: str) -> None:
    """Raises requests.RequestException where the hub does not answer, or not with the file.

    The library's own downloads would try an unreachable hub for half a minute.
    """
    hub = huggingface_hub()
    if not hub.constants.HF_HUB_OFFLINE:
        answer = requests.head(hub.hf_hub_url(repository, filename), timeout=TIMEOUT_SECONDS)
        if answer.status_code not in (401, 404):  # the library words these better
            answer.raise_for_status()


def library() -> ModuleType:
    """`transformers`, without its chatter. Raises UserError where it is not installed."""
    # It imports deepspeed where that is installed, which would look for a device, and tell.
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    try:
        import transformers
    except ImportError as error:
        raise UserError(
            "MODEL=hf:...: the package transformers is not installed; `pip install 'ftbench[hf]'` brings it, "
            "`make setup` too."
        ) from error
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def told(error: Exception) -> str:
    """What the library says of it, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def read_config(folder: Path) -> dict[str, Any]:
    """Its config.json. Raises UserError where it is none."""
    try:
        content = json.loads((folder / "config.json").read_bytes())
    except ValueError as error:
        raise UserError(f"{folder / 'config.json'} is no JSON ({error}): download the model again.") from error
    except OSError as error:
        raise UserError(f"{folder / 'config.json'} can't be read ({error.strerror}): check its permissions.") from error
    if not isinstance(content, dict):
        raise UserError(f"{folder / 'config.json'} holds no keys and values: download the model again.")
    return content


def has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _TOKENIZERS)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that the library reads: one, or else those that an index names, there or not.

    Raises UserError where the index is none.
    """
    alone, index = folder / "model.safetensors", folder / _INDEX
    if alone.is_file() or not index.is_file():
        return [alone] if alone.is_file() else []
    try:
        return sorted({folder / name for name in json.loads(index.read_bytes())["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index} is no index of weights ({told(error)}): download the model again.") from error


def missing_shards(folder: Path) -> list[str]:
    """Files that the index of a folder names, and that are not there."""
    return [file.name for file in weight_files(folder) if not file.is_file()]


@functools.cache
def content_sha256(folder: Path, weights: bool) -> str:
    """Of all that determines tokens and architecture, and of the weights where these are used."""
    kinds = (".json", ".txt", ".model", *((".safetensors",) if weights else ()))
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.iterdir() if file.suffix in kinds):
        with file.open("rb") as content:
            digest.update(f"{file.name}\0".encode() + hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()
