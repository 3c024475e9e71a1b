"""What a run gives, typed: complete where it ended well, the beginning of it where it failed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from harness.results.quality import AllMetrics, Calibration, Forgetting
from harness.results.record import (
    Communication,
    DataFacts,
    Epochs,
    HeadFit,
    PrefixFacts,
    StepGraphs,
    TrainingCurve,
)


@dataclass(frozen=True)
class Predictions:
    """Of the test texts. index: [examples], the row in the source. labels: [examples], of `classes`.

    probabilities: [examples, classes].
    """

    index: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    classes: list[str]


@dataclass(frozen=True)
class Trained:
    """What a saved classifier is made of, and what forgetting is measured with.

    tensors: the trained parameters by name, on the first rank; of the token embedding all rows.
    pad_to: the tokens that every row is padded to, where the strategy pads.
    """

    tensors: dict[str, Tensor]
    classes: list[str]
    pad_to: int | None


@dataclass
class Outcome:
    """Filled in as the run goes. parameters, trainable_parameters: None for a baseline that is a rule."""

    data: DataFacts | None = None
    parameters: int | None = None
    trainable_parameters: int | None = None
    curve: TrainingCurve = field(default_factory=TrainingCurve)
    joint_runs: int | None = None
    resumed_from_step: int | None = None
    epochs: Epochs | None = None
    head_fit: HeadFit | None = None
    graphs: StepGraphs | None = None
    communication: Communication | None = None
    prefix: PrefixFacts | None = None
    metrics: AllMetrics | None = None
    calibration: Calibration | None = None
    forgetting: Forgetting | None = None
    test: Predictions | None = None
    trained: Trained | None = None
