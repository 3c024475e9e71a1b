"""A saved classifier as a folder that other programs load: model, tokenizer and model card."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from safetensors import SafetensorError

from harness.errors import UserError
from harness.files import open_to_readers
from harness.packages import require
from harness.serving.classifier import Classifier
from harness.serving.export import onnx_graph
from harness.serving.export.library_model import library_config, library_model
from harness.serving.export.model_card import model_card
from harness.serving.export.tokenizer import exported_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Form = Literal["transformers", "onnx"]


def write_folder(classifier: Classifier, source: Path, target: Path, form: Form = "transformers") -> str:
    """Write the classifier of the folder `source` into `target`; uses it up. Returns what the model can be called.

    Raises UserError where the form can't express the classifier, `target` is not empty, or a package is missing.
    """
    _check_packages(form)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{str(target)!r} exists and is not an empty folder: name another.")
    tokenizer = exported_tokenizer(classifier)
    if form == "onnx":
        name, save = onnx_graph.FILE, _onnx(classifier, tokenizer)
    else:
        model = library_model(classifier, tokenizer)
        name, save = type(model).__name__, model.save_pretrained
    card = model_card(classifier, source, name)
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target) as temporary:
            partial = Path(temporary)
            save(partial)
            tokenizer.save_pretrained(partial)
            (partial / "README.md").write_text(card, encoding="utf-8")
            for file in partial.iterdir():
                open_to_readers(file)
                file.replace(target / file.name)
    except (OSError, SafetensorError) as error:  # safetensors wraps errors of the system
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{str(target)!r} can't be written ({reason}): name another.") from error
    return name


def _check_packages(form: Form) -> None:
    for name in ("transformers", "tokenizers", *(("onnx", "onnxruntime") if form == "onnx" else ())):
        require(name, "export", "ftbench export")


def _onnx(classifier: Classifier, tokenizer: PreTrainedTokenizerBase) -> Callable[[Path], None]:
    """What writes the graph into a folder, with a configuration that names the classes."""
    graph, config = onnx_graph.graph_of(classifier, tokenizer), library_config(classifier, tokenizer)

    def save(folder: Path) -> None:
        onnx_graph.write(graph, classifier, folder)
        config.save_pretrained(folder)

    return save
