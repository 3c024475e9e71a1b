"""GGUF files: converted once into a folder that `transformers` reads."""

from __future__ import annotations

import io
import tempfile
from contextlib import redirect_stderr
from pathlib import Path

from filelock import FileLock

from harness.data.libraries import import_transformers, one_line
from harness.data.model_files.model_folder import WEIGHTS
from harness.errors import UserError
from harness.files import file_sha256, is_disk_error, unwritable
from harness.packages import require


def converted(gguf: Path, cache: Path) -> Path:
    """The folder below the cache that holds the model of a GGUF file, in float32.

    Reading the GGUF file takes seconds, reading the folder a fraction of one, and every rank of every run reads it.
    Raises UserError for a file that can't be read, or a cache that can't be written.
    """
    folder = cache / "gguf" / f"{gguf.stem}-{file_sha256(gguf)[:16]}"
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
    import torch  # here, as a command that only reads texts does without it
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    transformers = import_transformers()
    require("gguf", "hf", gguf.name)
    options = {"gguf_file": gguf.name, "trust_remote_code": False}
    try:
        with redirect_stderr(io.StringIO()):  # a progress bar that no setting of the library turns off
            model = transformers.AutoModel.from_pretrained(gguf.parent, dtype=torch.float32, **options)
        model.config.__dict__.pop("quantization_config", None)  # the tensors that were read are not quantised
        model.config.save_pretrained(folder)
        save_file(model.state_dict(), folder / WEIGHTS, {"format": "pt"})
        transformers.AutoTokenizer.from_pretrained(gguf.parent, **options).save_pretrained(folder)
    except SafetensorError as error:  # raised where the file can't be written
        raise UserError(f"{folder} can't be written ({error}): name another folder with CACHE.") from error
    except Exception as error:  # the library raises anything for a damaged file
        if is_disk_error(error):
            raise
        raise UserError(f"{gguf} is damaged, or not of a known kind ({one_line(error)}): download it again.") from error
