"""The libraries of the Hugging Face hub: imported when they are needed, and silenced."""

from __future__ import annotations

import logging
import os
from types import ModuleType

from harness.data.downloads import TIMEOUT_SECONDS
from harness.packages import require


def import_huggingface_hub() -> ModuleType:
    # The library reads both when it is imported.
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", str(TIMEOUT_SECONDS))
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import huggingface_hub
    import huggingface_hub.errors

    return huggingface_hub


def import_transformers() -> ModuleType:
    """Raises UserError where `transformers` is not installed."""
    import torch  # here, as a command that only reads texts does without it

    # transformers imports deepspeed where that is installed, which otherwise probes for a device and logs about it.
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    require("transformers", "hf", "MODEL=hf:...")
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def import_datasets() -> ModuleType:
    """Raises UserError where `datasets` is not installed."""
    import_huggingface_hub()  # which reads its settings when it is first imported
    require("datasets", "data", "DATA=hf:...")
    import datasets

    datasets.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    return datasets


def one_line(error: Exception) -> str:
    """The type and message of a library's error, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
