"""A saved classifier at work: texts in, labels and probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pydantic import ValidationError
from torch import Tensor, nn

import strategies
from harness import kernels
from harness.config.schema import Precision
from harness.config.strategy import Strategy
from harness.config.tree import first_mistake
from harness.data.encoding import Examples, RowRule, encode_split
from harness.data.tokenizer import Tokenizer
from harness.distributed.process_group import device_of, single_process
from harness.errors import UserError
from harness.features.features import Features
from harness.features.loader import PrefixLoader
from harness.features.token_budget import TokenBudget
from harness.files import file_sha256
from harness.model.assembly import assemble
from harness.model.device_settings import apply_settings
from harness.model.named.models import Model
from harness.model.packing import PackedBatch
from harness.model.precision import InPrecision
from harness.model.split import Prefix, Suffix
from harness.planning.resolve import ResolvedModel, resolve_model
from harness.planning.strategy import ResolvedStrategy
from harness.planning.workspace import Workspace
from harness.results import saved_classifier
from harness.results.saved_classifier import SavedClassifier
from harness.training.engines.optimizer import trained_parameters
from harness.training.evaluation import predict, probabilities


@dataclass(frozen=True)
class Predictions:
    """labels: [texts]. probabilities: [texts, classes], calibrated. cut: how many texts were longer than a row is."""

    labels: list[str]
    probabilities: np.ndarray
    cut: int

    @property
    def confidence(self) -> np.ndarray:
        """[texts], the probability of the label that was given."""
        return self.probabilities.max(axis=1)


@dataclass(frozen=True)
class Classifier:
    """about: its manifest. context: the most tokens of a row. scorer: the suffix in its precision. model: that it was
    trained on."""

    about: SavedClassifier
    strategy: Strategy
    tokenizer: Tokenizer
    context: int
    prefix: Prefix
    suffix: Suffix
    scorer: nn.Module
    device: torch.device
    precision: Precision
    model: Model

    @classmethod
    def load(cls, folder: Path, cache: Path, precision: Precision | None = None) -> Classifier:
        """precision: None for the one that it was trained in.

        Raises UserError where the folder holds no complete classifier, or the weights below it are not here.
        """
        about = saved_classifier.read(folder)
        tensors, workspace = saved_classifier.tensors_of(folder, about), Workspace(cache)
        _check_strategy(about)
        resolved = _model_below(folder, about, workspace)
        model, strategy = workspace.model(resolved.name), _strategy(folder, about)
        weights = model.weights(resolved.config, resolved.weights_path)
        prefix, suffix, fill = assemble(strategy, model, weights, len(about.classes), about.config.seed)
        trained = trained_parameters(suffix)
        assert trained.keys() == tensors.keys(), "the file's hash was right: it was written for this very strategy"
        for name, parameter in trained.items():
            parameter.data = tensors[name]
        device, precision = device_of(0), precision or about.config.precision
        apply_settings(about.config.deterministic, about.config.tf32)
        PrefixLoader(prefix, fill, device, precision).load().eval()
        kernels.optimize(suffix, device, precision)
        scorer = InPrecision(suffix, precision, device).eval()
        tokenizer = workspace.tokenizer(resolved.name)
        room = model.context - strategy.positions_before
        return cls(about, strategy, tokenizer, room, prefix, suffix, scorer, device, precision, model)

    def predict(self, texts: Sequence[str]) -> Predictions:
        """Raises UserError where there is no text, for one that is empty, or one that has no token of the model."""
        examples = self.encode(texts)
        world, features = single_process(), Features.computed(self.prefix, examples, self.device)
        budget = TokenBudget.of(world, self.suffix.width, self.precision)
        logits = predict(self, features, world, budget=budget)
        labels = [self.about.classes[choice] for choice in logits.argmax(axis=1)]
        return Predictions(labels, probabilities(logits / self.about.temperature), examples.cut_texts)

    def encode(self, texts: Sequence[str]) -> Examples:
        """The texts as the rows that it was trained on."""
        if len(texts) == 0:
            raise UserError("no text is given: a classifier needs at least one.")
        empty = [number for number, text in enumerate(texts, start=1) if not text.strip()]
        if empty:
            raise UserError(f"text {empty[0]} of {len(texts)} is empty: a classifier needs a text.")
        frame = pd.DataFrame({"text": list(texts), "label": self.about.classes[0]})
        if self.about.config.data.pair:
            frame["second_at"] = [_second_at(number, text) for number, text in enumerate(texts, start=1)]
        return encode_split({"train": frame}, self.tokenizer, self.about.classes, self.row_rule)["train"]

    @property
    def row_rule(self) -> RowRule:
        return RowRule.of(self.about.config.data, self.context, self.about.pad_to)

    @torch.no_grad()
    def logits(self, features: Tensor, batch: PackedBatch) -> Tensor:
        """[rows, classes], as an engine's."""
        return self.scorer(features, batch)


def _second_at(number: int, text: str) -> int:
    """Where the second text of a pair begins."""
    first, tab, second = text.partition("\t")
    if not first.strip() or not second.strip():
        raise UserError(
            f"text {number}: this classifier was trained on pairs; expected two texts with a tab between them."
        )
    return len(first) + len(tab)


def _check_strategy(about: SavedClassifier) -> None:
    """A file is looked at before its code runs."""
    name, file = about.config.strategy, Path(about.config.strategy)
    of_file = file.suffix == ".py" and file.is_file()
    found = file_sha256(file) if of_file else strategies.load(name).sha256
    if found != about.strategy_source.sha256:
        raise UserError(
            f"strategy {name!r} is not what the classifier was trained with (its code has changed): "
            f"bring the code of sha256 {about.strategy_source.sha256[:12]} back, or train it again."
        )


def _strategy(folder: Path, about: SavedClassifier) -> Strategy:
    try:
        return ResolvedStrategy.model_validate(about.resolved).strategy()
    except ValidationError as error:
        path = folder / saved_classifier.MANIFEST
        reason = first_mistake(error)
        raise UserError(f"{path} is no classifier of this version ({reason}): {saved_classifier.TRAIN_ONE}.") from error


def _model_below(folder: Path, about: SavedClassifier, workspace: Workspace) -> ResolvedModel:
    """The model that it was trained on, found on this machine; random weights are drawn again."""
    found = resolve_model(about.config.model, workspace)
    if found.weights_sha256 != about.weights_sha256:
        raise UserError(
            f"the classifier {str(folder)!r} stands on weights of {about.config.model.name} with sha256 "
            f"{about.weights_sha256}, those here have {found.weights_sha256}: bring the file back, or train it again."
        )
    return found
