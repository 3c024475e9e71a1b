"""The texts of a run as token ids: all of them, whose features are stored, and those that it trains on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.data.dataset import Dataset
from harness.data.encoding import Examples, RowRule, encode_split
from harness.experiment.context import Context
from harness.features.features import Features
from harness.planning.plan import PlannedRun
from harness.planning.strategy import ResolvedStrategy


@dataclass(frozen=True)
class Texts:
    """dataset, examples: with the training texts of this run. every: examples of all texts, the same for each size of
    a learning curve, so that their features are computed once. chosen: positions of the training texts in `every`;
    None: all."""

    dataset: Dataset
    examples: dict[str, Examples]
    every: dict[str, Examples]
    chosen: np.ndarray | None

    def features(self, of_every: dict[str, Features]) -> dict[str, Features]:
        """Those of `examples`, of those of `every`."""
        if self.chosen is None:
            return of_every
        return {**of_every, "train": of_every["train"].take(self.chosen)}


def load_texts(planned: PlannedRun, strategy: ResolvedStrategy, context: Context) -> Texts:
    """Padding to the longest training text is to that of all, whatever part of them is trained on."""
    dataset, model = planned.dataset(context.workspace), context.workspace.model(planned.model.name)
    tokenizer, config = context.workspace.tokenizer(planned.model.name), planned.config
    room = model.context - strategy.strategy().positions_before
    rule = RowRule.of(config.data, room, strategy.pad_to)
    every = encode_split(dataset.split, tokenizer, dataset.source.classes, rule)
    if config.training.texts is None:
        return Texts(dataset, every, every, None)
    chosen = dataset.drawn(config.training.texts, config.seed)
    return Texts(dataset.trained_on(chosen), {**every, "train": every["train"].take(chosen)}, every, chosen)
