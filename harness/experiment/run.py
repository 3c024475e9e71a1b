"""A run from start to finish: data, model, engine, features, training, evaluation, result. The page to read first."""

from __future__ import annotations

from harness import kernels
from harness.data.encoding import encode_split, longest_row
from harness.experiment.context import Context
from harness.experiment.facts import all_metrics, data_facts, measured_communication, prefix_facts, recipe_of
from harness.features.loader import PrefixLoader
from harness.features.store import FeatureStore, computed
from harness.kernels.occurring_tokens import train_occurring_tokens
from harness.model.assembly import assemble
from harness.model.split import parameter_counts
from harness.planning.plan import PlannedRun
from harness.planning.strategy import ResolvedStrategy
from harness.results.outcome import Outcome, Predictions, Trained
from harness.training.batches import TrainingBatches
from harness.training.checkpoints import Checkpoints
from harness.training.engines.factory import open_engine
from harness.training.evaluation import predict, probabilities
from harness.training.loop import train


def run(planned: PlannedRun, strategy: ResolvedStrategy, checkpoints: Checkpoints, context: Context, outcome: Outcome):
    """Do what `planned` says and leave what it gives in `outcome`, on every rank."""
    config, world, workspace = planned.config, context.world, context.workspace

    with context.phase("prepare"):
        strategy.check_code()
        declared, model = strategy.strategy(), workspace.model(planned.model.name)
        dataset, tokenizer = workspace.dataset(config.data), workspace.tokenizer(planned.model.name)
        classes = dataset.source.classes
        examples = encode_split(dataset.split, tokenizer, classes, declared.input, model.context)
        outcome.data = data_facts(dataset, examples)

        weights = model.weights(planned.model.config, planned.model.weights_path)
        prefix, suffix, fill = assemble(declared, model, weights, len(classes), config.seed)
        outcome.parameters, outcome.trainable_parameters = parameter_counts(prefix, suffix)
        full_table = None
        if not config.plain:
            kernels.optimize(suffix, world.device, config.precision)
            # A third party's `build` may count on the complete embedding.
            full_table = None if declared.build else train_occurring_tokens(suffix, examples)
        if not planned.save:
            full_table = None  # nobody asks for it: its memory is free
        engine = open_engine(config.engine, config.precision, world, fused=not config.plain)
        engine.prepare(suffix, config.optimizer)

    with context.phase("features"):
        loader = PrefixLoader(prefix, fill, world.device, config.precision, config.plain)
        if config.plain:
            features, report = computed(loader, examples, "the plain path recomputes it", longest_row(examples))
        else:
            features, report = feature_store(planned, context).open(
                loader,
                examples,
                suffix.width,
                recipe=None if declared.build else recipe_of(planned, strategy, prefix),
                code=strategy.source.sha256 if declared.build else "",
            )
        del fill

    with context.phase("train"):
        batches = TrainingBatches(features["train"], examples["train"], config.training, config.seed, world)
        outcome.curve, outcome.resumed_from_step = train(
            engine, batches, checkpoints, context.clock, context.observer.progress
        )
    for warning in checkpoints.warnings:
        context.observer.warning(warning)

    with context.phase("evaluate"):
        prefix.eval()
        batch_size = config.training.batch_size if config.plain else None
        logits = {name: predict(engine, part, world, batch_size) for name, part in features.items()}

    if planned.save:
        tensors = engine.values()
        if full_table:
            tensors = full_table.complete(tensors, config.optimizer, steps=len(outcome.curve))
        pad_to = int(examples["test"].lengths[0]) if strategy.pad_to else None
        outcome.trained = Trained(tensors, classes, pad_to)
    outcome.communication = measured_communication(engine, batches, config.precision)
    engine.close()
    assert not any(parameter.requires_grad for parameter in prefix.parameters()), "the prefix was unfrozen in mid-run"
    outcome.prefix = prefix_facts(prefix, report, world)
    outcome.metrics = all_metrics(logits, examples, dataset, batches)
    test = examples["test"]
    outcome.test = Predictions(test.index, test.labels, probabilities(logits["test"]), classes)


def feature_store(planned: PlannedRun, context: Context) -> FeatureStore:
    world, folder = context.world, context.workspace.cache / "features"
    # Machines that share a cache folder keep their features separate: each fills its folder with its own ranks.
    folder = folder if world.local_size == world.size else folder / f"machine-{world.machine}"
    limit_bytes = int(planned.config.features.limit_gigabytes * 1e9)
    return FeatureStore(folder, limit_bytes, world, context.workspace.known_tensors)
