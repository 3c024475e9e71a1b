"""Baselines: what needs no training loop. The registry of this folder's modules.

A baseline module has a docstring whose first line describes it; USES, the keys of a run's configuration that its
answers depend on; and `fit(task) -> Fitted`. Baselines draw nothing at random: each runs once, not once a seed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import strategies
from harness.errors import UserError
from harness.files import file_sha256

if TYPE_CHECKING:  # names need neither PyTorch nor pandas
    import torch

    from harness.config.schema import Precision
    from harness.data.encoding import Examples
    from harness.data.tokenizer import Tokenizer
    from harness.model.named.models import Model
    from harness.model.named.weights import Weights

NAMES = ("majority", "length_rule", "first_token_lookup", "tfidf", "zero_shot")


@dataclass(frozen=True)
class Part:
    """One part of the data: the texts as they are written, and as token ids with their labels."""

    texts: list[str]
    examples: Examples


@dataclass(frozen=True)
class LabelledTexts:
    """What a rule learns from."""

    train: Part
    classes: list[str]

    def counts(self, indices: np.ndarray | slice = slice(None)) -> np.ndarray:
        """How many training texts each class has, [classes], among those of `indices`."""
        return np.bincount(self.train.examples.labels[indices], minlength=len(self.classes))


@dataclass(frozen=True)
class Task(LabelledTexts):
    """What a baseline may learn from and work with. warn: is told what a reader of the progress should know."""

    precision: Precision
    model: Model
    weights: Weights
    tokenizer: Tokenizer
    device: torch.device
    warn: Callable[[str], None] = lambda text: None


@dataclass(frozen=True)
class Fitted:
    """probabilities: of each class, [examples, classes] float64.

    parameters, trained: numbers it computes with, and those among them that it took from the training texts; None for
    a rule, which has none worth comparing.
    """

    probabilities: Callable[[Part], np.ndarray]
    parameters: int | None = None
    trained: int | None = None


@dataclass(frozen=True)
class Baseline:
    """uses: dotted keys of a run's configuration. sha256: of the module."""

    name: str
    description: str
    uses: tuple[str, ...]
    fit: Callable[[Task], Fitted]
    sha256: str


def load(name: str) -> Baseline:
    """The baseline `name`, one of NAMES. Raises UserError where a plug-in has the same name."""
    if name in strategies.names():
        raise UserError(
            f"an installed plug-in has the name of the baseline {name!r}: rename its entry point, or uninstall the "
            "package."
        )
    module = importlib.import_module(f"{__name__}.{name}")
    assert module.__doc__, "a baseline describes itself"
    assert module.__file__, "it is a file of this folder"
    description = module.__doc__.strip().splitlines()[0]
    source_hash = file_sha256(Path(module.__file__))
    return Baseline(name, description, module.USES, module.fit, source_hash)
