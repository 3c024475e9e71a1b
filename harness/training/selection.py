"""Which epoch's parameters are kept, and when training ends early: what the validation texts say after each epoch.

The scores of the epochs so far and the best one's parameters are all there is to it; checkpoints hold both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from harness.config.schema import TrainingConfig
from harness.metrics import METRICS, MetricName
from harness.results.record import Epochs, EpochScore
from harness.training.engines.protocol import Engine
from harness.training.evaluation import mean_loss


def score(logits: np.ndarray, labels: np.ndarray, metric: MetricName) -> EpochScore:
    """logits: [examples, classes]. labels: [examples]."""
    return EpochScore(value=float(METRICS[metric](labels, logits.argmax(axis=1))), loss=mean_loss(logits, labels))


@dataclass
class Selection:
    """Among the epochs of one run.

    validate: scores the engine's parameters as they are, the same on every rank; every rank calls it. scores: of the
    epochs so far. values: the best epoch's parameters, on the first rank, where they are to be kept.
    """

    training: TrainingConfig
    validate: Callable[[], EpochScore]
    scores: list[EpochScore] = field(default_factory=list)
    values: dict[str, Tensor] = field(default_factory=dict)

    @property
    def is_asked_for(self) -> bool:
        return self.training.judges_epochs

    @property
    def is_over(self) -> bool:
        """Whether as many epochs as patience allows have brought no better one."""
        patience = self.training.patience
        return patience is not None and bool(self.scores) and len(self.scores) - self._best >= patience

    @property
    def kept(self) -> int:
        """The number of the epoch whose parameters are the result, from 1, once there is one."""
        return self._best if self.training.keep == "best" else len(self.scores)

    @property
    def _best(self) -> int:
        """The earliest of those with the highest value, ties broken by the loss: as the best classifier of a suite is
        chosen."""
        ranks = [(one.value, -one.loss) if math.isfinite(one.loss) else (-math.inf, -math.inf) for one in self.scores]
        return 1 + ranks.index(max(ranks))

    def after_epoch(self, engine: Engine) -> None:
        self.scores.append(self.validate())
        if self.kept == len(self.scores) and self.training.keep == "best":
            self.values = engine.values()

    def finish(self, engine: Engine) -> None:
        """Give the engine the parameters of the epoch that is kept."""
        if self.training.keep == "best" and self.scores:
            engine.set_values(self.values)

    def facts(self) -> Epochs | None:
        """What the record says; None where no epoch was judged."""
        metric = self.training.validation_metric
        if not self.scores:
            return None
        assert metric is not None, "a plan resolves it"
        return Epochs(kept=self.kept, metric=metric, scores=self.scores)
