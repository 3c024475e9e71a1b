"""A baseline from start to finish, as `harness.experiment.run` is for a strategy: data, fit, probabilities, metrics."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness import baselines
from harness.baselines import Part, Task
from harness.config.strategy import Input
from harness.data.dataset import load_dataset
from harness.data.encoding import encode_split
from harness.distributed.process_group import World
from harness.experiment.run import Observer, Outcome, data_facts, metrics_of, phase, tokenizer_of
from harness.model.models import model_of
from harness.planning.plan import PlannedRun


def run_baseline(planned: PlannedRun, cache: Path, world: World, observer: Observer, outcome: Outcome) -> None:
    """Do what `planned` says and leave what was measured in `outcome`. One rank does it alone: `world` has no other."""
    config, facts = planned.config, outcome.facts
    baseline = baselines.load(config.strategy)

    with phase("prepare", outcome, world, observer):
        dataset = load_dataset(config.data, cache)
        outcome.classes = dataset.source.classes
        tokenizer = tokenizer_of(config.model.name, cache)
        model = model_of(config.model.name, cache)
        examples = encode_split(dataset.split, tokenizer, outcome.classes, Input(), model.context, special_tokens=False)
        parts = {name: Part(dataset.split[name]["text"].tolist(), part) for name, part in examples.items()}
        facts["data"] = data_facts(dataset, examples)
        if "model" not in planned.used:  # it reads whole texts, not a model's tokens
            facts["data"]["cut_texts"] = 0

    with phase("train", outcome, world, observer):
        fitted = baseline.fit(
            Task(parts["train"], outcome.classes, config, planned.weights_path, model, tokenizer, world.device)
        )
    facts["parameters"] = {"parameters": fitted.parameters, "trainable_parameters": fitted.trained}

    with phase("evaluate", outcome, world, observer):
        shares = {name: fitted.probabilities(part) for name, part in parts.items()}

    # A class that was held to be impossible costs a finite loss, as in scikit-learn.
    logits = {name: np.log(np.maximum(part, np.finfo(float).eps)) for name, part in shares.items()}
    facts["metrics"] = metrics_of(logits, examples, dataset)
    outcome.test, outcome.test_shares = examples["test"], shares["test"]
