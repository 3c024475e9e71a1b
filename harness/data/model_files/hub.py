"""Where the model lies that `hf:` names: in a repository of the Hugging Face hub, a folder, or a GGUF file."""

from __future__ import annotations

import re
from pathlib import Path

from harness.config.places import HUB_PREFIX
from harness.data.downloads import TIMEOUT_SECONDS, NotAvailable, assets_folder
from harness.data.libraries import import_huggingface_hub
from harness.data.model_files.gguf import converted
from harness.data.model_files.model_folder import CONFIG, WEIGHTS_INDEX, is_complete
from harness.errors import UserError
from harness.files import is_disk_error, unwritable

_EXPECTED = "expected hf: and a hub id (owner/name), a folder with a config.json, or a .gguf file"
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
# Neither pickles nor code.
_DOWNLOADED = [
    CONFIG,
    "model*.safetensors",
    WEIGHTS_INDEX,
    "tokenizer*",
    "vocab.*",
    "merges.txt",
    "special_*",
    "README.md",
    "spiece.*",
]


def locate(model: str, cache: Path) -> Path:
    """The folder of the model that `model` ("hf:...") names.

    A hub id is looked for below FTBENCH_ASSETS/models, then in the cache, into which it is downloaded. A GGUF file is
    converted into a folder of the cache.
    Raises NotAvailable where the hub can't be reached, UserError where there is no such model.
    """
    found = _find(model, cache)
    return found if found.is_dir() else converted(found, cache)


def _find(model: str, cache: Path) -> Path:
    """A folder with a config.json, or a GGUF file."""
    given = model.removeprefix(HUB_PREFIX)
    path, assets = Path(given).expanduser(), assets_folder()
    if not path.exists() and path.suffix != ".gguf" and _HUB_ID.fullmatch(given):
        mirrored = assets and _model_in(assets / "models" / given)
        return mirrored or _download(given, cache)
    if path.is_file() and path.suffix == ".gguf":
        return path.resolve()
    if not path.is_dir():
        problem = "is neither a folder nor a GGUF file" if path.exists() else "does not exist"
        raise UserError(f"MODEL={model}: {str(path)!r} {problem}; {_EXPECTED}.")
    found = _model_in(path)
    if not found:
        raise UserError(f"MODEL={model}: the folder has no config.json, nor exactly one GGUF file; {_EXPECTED}.")
    return found


def _model_in(folder: Path) -> Path | None:
    """The folder itself where it has a config.json, else the only GGUF file in it."""
    if (folder / CONFIG).is_file():
        return folder.resolve()
    gguf_files = list(folder.glob("*.gguf"))
    return gguf_files[0].resolve() if len(gguf_files) == 1 else None


def _download(repository: str, cache: Path) -> Path:
    hub = import_huggingface_hub()
    wanted = {"repo_id": repository, "cache_dir": cache, "allow_patterns": _DOWNLOADED}
    try:
        folder = Path(hub.snapshot_download(**wanted, local_files_only=True))
        if is_complete(folder):
            return folder
    except hub.errors.LocalEntryNotFoundError:
        pass  # not in the cache yet
    except hub.errors.HFValidationError as error:
        raise UserError(f"MODEL=hf:{repository}: this can't be the name of a model of the hub; {_EXPECTED}.") from error
    try:
        check_reachable(repository, CONFIG)
        folder = Path(hub.snapshot_download(**wanted))
    except hub.errors.RepositoryNotFoundError as error:  # private and gated models included
        raise UserError(
            f"MODEL=hf:{repository}: the hub has no such public model; check the spelling (a folder on this machine "
            "is named by its path: hf:./folder)."
        ) from error
    except Exception as error:  # the library and the network raise anything
        if is_disk_error(error):
            raise unwritable(cache, error) from error
        raise NotAvailable(f"the Hugging Face hub could not be reached ({type(error).__name__})") from error
    if not (folder / CONFIG).is_file():
        raise UserError(f"MODEL=hf:{repository}: it has no config.json, so its architecture is unknown.")
    return folder


def check_reachable(repository: str, filename: str, repo_type: str = "model") -> None:
    """Raises requests.RequestException where the hub does not answer soon, or not with the file.

    The library's own downloads would try an unreachable hub for half a minute.
    """
    import requests  # here, as most commands ask nothing of a network

    hub = import_huggingface_hub()
    if not hub.constants.HF_HUB_OFFLINE:
        response = requests.head(hub.hf_hub_url(repository, filename, repo_type=repo_type), timeout=TIMEOUT_SECONDS)
        if response.status_code not in (401, 404):  # the library has better messages for these
            response.raise_for_status()
