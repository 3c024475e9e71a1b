"""A baseline from start to finish, as run.py is for a strategy: data, fit, probabilities, metrics."""

from __future__ import annotations

import numpy as np

from harness import baselines
from harness.baselines import Part, Task
from harness.data.encoding import RowRule, encode_split
from harness.experiment.context import Context
from harness.experiment.records.facts import all_metrics, calibration, data_facts
from harness.planning.plan import PlannedRun
from harness.results.outcome import Outcome, Predictions


def run_baseline(planned: PlannedRun, context: Context, outcome: Outcome) -> None:
    """Do what `planned` says and leave what it gives in `outcome`. One rank does it alone."""
    config, workspace = planned.config, context.workspace
    baseline = baselines.load(config.strategy)

    with context.phase("prepare"):
        dataset, model = planned.dataset(workspace), workspace.model(planned.model.name)
        tokenizer, classes = workspace.tokenizer(planned.model.name), dataset.source.classes
        if (size := config.training.texts) is not None:
            dataset = dataset.trained_on(dataset.drawn(size, config.seed))
        rule = RowRule.of(config.data, model.context)
        examples = encode_split(dataset.split, tokenizer, classes, rule, special_tokens=False)
        parts = {name: Part(dataset.split[name]["text"].tolist(), part) for name, part in examples.items()}
        outcome.data = data_facts(planned, dataset, examples)
        if "model" not in planned.used:  # it reads full texts, not a model's tokens
            outcome.data = outcome.data.model_copy(update={"cut_texts": 0})

    with context.phase("train"):
        weights = model.weights(planned.model.config, planned.model.weights_path)
        device, warn = context.world.device, context.observer.warning
        task = Task(parts["train"], classes, config.precision, model, weights, tokenizer, device, warn)
        fitted = baseline.fit(task)
    outcome.parameters, outcome.trainable_parameters = fitted.parameters, fitted.trained

    with context.phase("evaluate"):
        probabilities = {name: fitted.probabilities(part) for name, part in parts.items()}

    # A class that was held to be impossible costs a finite loss, as in scikit-learn.
    logits = {name: np.log(np.maximum(part, np.finfo(float).eps)) for name, part in probabilities.items()}
    outcome.metrics = all_metrics(logits, examples, dataset)
    outcome.calibration = calibration(logits, examples)
    test = examples["test"]
    outcome.test = Predictions(test.index, test.labels, probabilities["test"], classes)
