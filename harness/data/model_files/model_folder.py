"""The files of a model in a folder, as `transformers` saves them: configuration, tokenizer, weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from harness.data.libraries import one_line
from harness.errors import UserError
from harness.files import file_sha256

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def read_config(folder: Path) -> dict[str, Any]:
    """The content of config.json. Raises UserError where it can't be read as keys and values."""
    file = folder / CONFIG
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise UserError(f"{file} is not JSON ({error}): download the model again.") from error
    except OSError as error:
        raise UserError(f"{file} can't be read ({error.strerror}): check its permissions.") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} holds no keys and values: download the model again.")
    return content


def has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _TOKENIZERS)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that `transformers` reads: one, or all that an index names, whether they exist or not.

    Raises UserError for an index that can't be read.
    """
    single, index = folder / WEIGHTS, folder / WEIGHTS_INDEX
    if single.is_file() or not index.is_file():
        return [single] if single.is_file() else []
    try:
        return sorted({folder / name for name in json.loads(index.read_bytes())["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index} is no index of weights ({one_line(error)}): download the model again.") from error


def missing_shards(folder: Path) -> list[str]:
    """Names of the files that the index of the weights names, and that the folder lacks."""
    return [file.name for file in weight_files(folder) if not file.is_file()]


def is_complete(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and bool(weight_files(folder)) and not missing_shards(folder)


def content_sha256(folder: Path, weights: bool) -> str:
    """Hash of all files that determine tokens and architecture, and with `weights` of the weights."""
    kinds = (".json", ".txt", ".model", *((".safetensors",) if weights else ()))
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.iterdir() if file.suffix in kinds):
        digest.update(f"{file.name}\0".encode() + bytes.fromhex(file_sha256(file)))
    return digest.hexdigest()
