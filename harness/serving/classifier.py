"""A saved classifier at work: texts in, labels and probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import strategies
from harness.config.schema import Precision
from harness.config.strategy import Input, Strategy
from harness.data.downloads import assets_folder
from harness.data.encoding import Examples, encode_split
from harness.data.tokenizer import Tokenizer, load_tokenizer
from harness.distributed.process_group import single_process
from harness.errors import UserError
from harness.features.features import Computed
from harness.files import file_sha256
from harness.model.assembly import assemble
from harness.model.models import model_of
from harness.model.packing import Rows
from harness.model.precision import InPrecision
from harness.model.split import Prefix, Suffix
from harness.planning.plan import find_model
from harness.planning.resolve import NotHere
from harness.planning.strategy import effective_strategy
from harness.results import saved_classifier
from harness.results.saved_classifier import Kept
from harness.training.evaluation import predict, probabilities


@dataclass(frozen=True)
class Predictions:
    """labels: [texts]. probabilities: [texts, classes] float64. cut: the number of texts that were longer than a
    row may be."""

    labels: list[str]
    probabilities: np.ndarray
    cut: int

    @property
    def confidence(self) -> np.ndarray:
        """[texts], the probability of the predicted label."""
        return self.probabilities.max(axis=1)


@dataclass(frozen=True)
class Classifier:
    """about: its manifest. context: the most tokens that a row may have. scorer: the suffix, as
    it is called."""

    about: Kept
    strategy: Strategy
    tokenizer: Tokenizer
    context: int
    prefix: Prefix
    suffix: Suffix
    scorer: InPrecision
    device: torch.device

    @classmethod
    def load(cls, folder: Path, cache: Path, precision: Precision | None = None) -> Classifier:
        """precision: None for the one that it was trained in.

        Raises UserError where the folder holds no complete classifier, or its weights or strategy are not available.
        """
        about = saved_classifier.read(folder)
        tensors, config = saved_classifier.tensors_of(folder, about), about.config
        _check_strategy(about)
        weights_path = _weights_path(folder, about, cache)
        model = model_of(config.model.name, cache)
        strategy = effective_strategy(config, model)
        tokenizer = load_tokenizer(config.model.name, cache, assets_folder())
        prefix, suffix, fill = assemble(config, strategy, model, weights_path, len(about.classes))
        trained = {name: parameter for name, parameter in suffix.named_parameters() if parameter.requires_grad}
        assert trained.keys() == tensors.keys(), "a file with the right hash was written for this very strategy"
        for name, parameter in trained.items():
            parameter.data = tensors[name]
        device = single_process().device
        prefix.place(device, precision or config.precision, fill)
        prefix.eval()
        scorer = InPrecision(suffix, precision or config.precision, device)
        scorer.eval()
        return cls(about, strategy, tokenizer, model.context, prefix, suffix, scorer, device)

    def predict(self, texts: Sequence[str]) -> Predictions:
        """Raises UserError where there is no text, and for a text that is empty or has no token of the model."""
        examples = self.encode(texts)
        logits = predict(self, Computed(self.prefix, examples, self.device), single_process())
        labels = [self.about.classes[choice] for choice in logits.argmax(axis=1)]
        return Predictions(labels, probabilities(logits), cut=examples.cut_texts)

    def encode(self, texts: Sequence[str]) -> Examples:
        """The texts as rows, encoded as those that it was trained on."""
        if len(texts) == 0:
            raise UserError("no text is given: a classifier needs at least one.")
        empty = [number for number, text in enumerate(texts, start=1) if not text.strip()]
        if empty:
            raise UserError(f"text {empty[0]} of {len(texts)} is empty: a classifier needs a text.")
        frame = pd.DataFrame({"text": list(texts), "label": self.about.classes[0]})
        padding = Input(self.about.pad_to)
        return encode_split({"train": frame}, self.tokenizer, self.about.classes, padding, self.context)["train"]

    @torch.no_grad()
    def logits(self, features: Tensor, rows: Rows) -> Tensor:
        """features: of the prefix -> [rows, classes]; what `harness.training.evaluation.predict` calls."""
        return self.scorer(features, rows)


def _check_strategy(about: Kept) -> None:
    """Raises UserError where the strategy's code has changed. The hash of a file is compared before its code runs."""
    name, file = about.config.strategy, Path(about.config.strategy)
    of_file = file.suffix == ".py" and file.is_file()
    found = file_sha256(file) if of_file else strategies.load(name).sha256
    if found != about.strategy_source.sha256:
        raise UserError(
            f"strategy {name!r} is not what the classifier was trained with (its code has changed): "
            f"bring the code of sha256 {about.strategy_source.sha256[:12]} back, or train it again."
        )


def _weights_path(folder: Path, about: Kept, cache: Path) -> Path | None:
    """The checkpoint that it was trained on; None for random weights, which are drawn again.

    Raises UserError where it is missing or another one.
    """
    found = find_model(about.config.model, cache)
    if isinstance(found, NotHere):
        raise found
    _, path, sha256, _ = found
    if sha256 != about.weights_sha256:
        raise UserError(
            f"the classifier {str(folder)!r} stands on weights of {about.config.model.name} with sha256 "
            f"{about.weights_sha256}, those here have {sha256}: bring the file back, or train it again."
        )
    return path
