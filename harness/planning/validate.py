"""Whether the resolved parts of a run fit each other."""

from __future__ import annotations

import torch

from harness.config.places import is_hub
from harness.config.schema import OptimizerConfig, RunConfig, TrainingConfig
from harness.config.strategy import PadTo, Strategy
from harness.data.dataset import Dataset
from harness.errors import UserError
from harness.planning.resolve import NotHere
from harness.planning.workspace import Workspace
from harness.training.schedule import warmup_steps


def check_precision(precision: str, model: str, workspace: Workspace) -> None:
    if precision == "fp64" and not workspace.model(model).computes_in_float64:
        raise UserError(
            f"PRECISION=fp64 with MODEL={model}: the library has its rotary positions in float32; use PRECISION=fp32."
        )


def check_ranks(config: RunConfig) -> None:
    """Whether each rank has an example of every batch."""
    processes, nodes, batch_size = config.engine.processes, config.engine.nodes, config.training.batch_size
    if config.engine.world_size > batch_size:
        given = f"NPROC={processes}" if nodes == 1 else f"NNODES={nodes} x NPROC={processes}"
        problem = f"{given} ranks can't share a batch of {batch_size}"
        remedy = f'use at most {batch_size} ranks, or a larger batch (SET="training.batch_size=...").'
        raise NotHere(problem, f"{problem}: {remedy}")


def check_gpus(processes: int) -> None:
    if torch.cuda.is_available() and processes > torch.cuda.device_count():
        raise UserError(f"NPROC={processes}, but this machine has {torch.cuda.device_count()} GPU(s): one rank a GPU.")


def check_texts(training: TrainingConfig, dataset: Dataset) -> None:
    if training.texts is None:
        return
    labels = dataset.split["train"]["label"]
    given = f"training.texts={training.texts}"
    if training.texts > len(labels):
        raise UserError(
            f"{given}: {dataset.source.name} has {len(labels)} training texts; use fewer, or all of them (leave it "
            "out, or `all` in SIZES)."
        )
    if training.texts < (classes := labels.nunique()):
        raise UserError(
            f"{given}: the training texts of {dataset.source.name} have {classes} classes, each of which needs a text; "
            f"use {classes} or more."
        )


def check_steps(config: RunConfig, texts: int) -> None:
    """texts: for training."""
    _check_batch(config.training, texts)
    _check_patience(config.training)
    _check_schedule(config.optimizer, config.training, texts)


def _check_batch(training: TrainingConfig, texts: int) -> None:
    if training.epochs and training.drop_last and texts < training.batch_size:
        raise UserError(
            f"training.batch_size={training.batch_size} is more than the {texts} training texts, and an incomplete "
            'batch is dropped: nothing would be trained. Use a smaller batch, or SET="training.drop_last=false".'
        )


def _check_schedule(optimizer: OptimizerConfig, training: TrainingConfig, texts: int) -> None:
    steps = training.epochs * training.steps_of_epoch(texts)
    if steps and warmup_steps(optimizer, steps) == steps:
        raise UserError(
            f"optimizer.warmup={optimizer.warmup:g} takes all of the {steps} training steps: use a smaller part, or "
            "more epochs."
        )


def _check_patience(training: TrainingConfig) -> None:
    if training.patience and training.patience >= training.epochs:
        raise UserError(
            f"training.patience={training.patience} ends no run of {training.epochs} epochs early: use a smaller "
            "number, or more epochs."
        )
    if training.validation_metric and not training.judges_epochs:
        raise UserError(
            f"training.validation_metric={training.validation_metric} without training.keep=best or training.patience: "
            "the validation texts decide on nothing; set one of these."
        )


def check_every_class_occurs(strategy: str, dataset: Dataset) -> None:
    """A class without a training text has no finite logit in a head that is fitted exactly."""
    occurring = set(dataset.split["train"]["label"])
    missing = [name for name in dataset.source.classes if name not in occurring]
    if missing:
        raise UserError(
            f"strategy {strategy!r} fits its head to the training texts, of which none has the label "
            f"{', '.join(map(repr, missing))}: use another split, or a strategy that takes steps only."
        )


def check_room(strategy: Strategy, name: str, max_tokens: int | None, model: str, workspace: Workspace) -> None:
    """Whether the trained vectors before a row leave room for its tokens. name: the strategy's."""
    context, before, pad_to = workspace.model(model).context, strategy.positions_before, strategy.input.pad_to
    asked = max(1, max_tokens or 1, pad_to if isinstance(pad_to, int) else 1)
    if before and before + asked > context:
        raise UserError(
            f"strategy {name!r} puts {before} trained vectors before each row, which leave room for "
            f"{max(context - before, 0)} tokens in the context of {model} ({context}): expected room for {asked} "
            "(data.max_tokens, pad_to); use fewer vectors, or shorter rows."
        )


def check_padding(pad_to: PadTo | None, model: str, workspace: Workspace) -> None:
    context = workspace.model(model).context
    if isinstance(pad_to, int) and pad_to > context:
        raise UserError(f"pad_to={pad_to} is beyond the context of {model}: at most {context}.")
    if pad_to and is_hub(model) and workspace.tokenizer(model).pad_token is None:
        raise UserError(
            f"pad_to={pad_to}: the tokenizer of {model} has no pad token; choose a strategy that does not pad, or name "
            "a `pad_token` in its tokenizer_config.json."
        )
