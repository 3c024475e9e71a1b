"""SIZES=32,100,all: every strategy and baseline on several numbers of training texts.

Each seed draws its own stratified part, which holds the smaller ones of that seed, so that the interval over seeds is
over draws of labelled texts, too. Test and validation texts stay the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from harness.config.schema import RunConfig, TrainingConfig
from harness.config.suite import SuiteConfig, SuiteRow
from harness.data.dataset import Dataset
from harness.errors import UserError

# Few texts need more epochs: in as many as suffice for thousands a model is not trained yet (Mosbach et al.,
# arXiv:2006.04884; Zhang et al., arXiv:2006.05987).
FEWEST_STEPS = 500


def at_sizes(suite: SuiteConfig, dataset_of: Callable[[RunConfig], Dataset]) -> SuiteConfig:
    """The suite's runs at each of its sizes. Raises UserError for one that is not below that of the training part."""
    runs = []
    for run in suite.runs():
        available = len(dataset_of(run).split["train"])
        for size in suite.sizes:
            if size is not None and size >= available:
                raise UserError(
                    f"SIZES={size}: {run.data.name} has {available:,} training texts; use smaller sizes, and `all`."
                )
            runs.append(run if size is None else _at(run, size, available))
    return suite.model_copy(update={"rows": [SuiteRow(name=None, runs=runs)]})


def _at(run: RunConfig, size: int, available: int) -> RunConfig:
    training = run.training.model_copy(update={"texts": size, "epochs": epochs_at(run.training, size, available)})
    return run.model_copy(update={"training": training})


def epochs_at(training: TrainingConfig, size: int, available: int) -> int:
    """The configured epochs; more where these are fewer than FEWEST_STEPS steps: then as many as make these, or the
    steps of the whole training part, if those are fewer."""
    steps, fewest = (
        training.steps_of_epoch(size),
        min(FEWEST_STEPS, training.epochs * training.steps_of_epoch(available)),
    )
    return max(training.epochs, math.ceil(fewest / steps)) if steps else training.epochs
