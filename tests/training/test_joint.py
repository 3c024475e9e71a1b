"""Runs trained as one batched model are the runs one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.config.schema import OptimizerConfig, TrainingConfig
from harness.config.strategy import Strategy
from harness.data.encoding import Examples
from harness.distributed.process_group import World
from harness.features.features import Features
from harness.model.assembly import assemble
from harness.model.named.models import GPT2Model
from harness.model.named.weights import RandomWeights
from harness.training.batches import TrainingBatches
from harness.training.engines.ddp import DDPEngine
from harness.training.joint import Member, train_jointly
from harness.training.schedule import learning_rate

CPU, ALONE = torch.device("cpu"), World(0, 1, torch.device("cpu"))
LENGTHS = np.random.default_rng(0).integers(1, 30, 20)
LABELS = np.random.default_rng(1).integers(0, 2, 20)
HIDDEN = 128  # of mini


def _features(reads: bool) -> Features:
    """Of 20 texts: a vector each, or one a token."""
    lengths = np.ones_like(LENGTHS) if reads else LENGTHS
    flat = torch.from_numpy(np.random.default_rng(2).normal(size=(int(lengths.sum()), HIDDEN)))
    return Features(flat, np.cumsum(lengths) - lengths, lengths, CPU)


def _examples() -> Examples:
    ids = np.zeros(int(LENGTHS.sum()), dtype=np.int32)
    offsets = np.concatenate([[0], np.cumsum(LENGTHS)])
    return Examples(ids, offsets, LENGTHS, LABELS, np.arange(20), LABELS > 1, None)


def _members(strategy: Strategy, training: TrainingConfig, optimizer: OptimizerConfig) -> list[Member]:
    found = []
    for seed, rate in ((0, 1e-3), (1, 1e-3), (1, 1e-2)):
        model = GPT2Model("mini")
        _, suffix, _ = assemble(strategy.resolved_for("causal"), model, RandomWeights("gpt2", 5), 2, seed)
        batches = TrainingBatches(_features(not strategy.trainable), _examples(), training, seed, ALONE)
        found.append(Member(suffix, batches, optimizer.model_copy(update={"learning_rate": rate})))
    return found


def _one_by_one(member: Member) -> tuple[dict[str, torch.Tensor], list[list[float]]]:
    engine, order = DDPEngine(ALONE, "fp64", fused=True), member.batches.of_all_epochs()
    engine.prepare(member.suffix, member.optimizer)
    curve = []
    for step, indices in enumerate(order):
        engine.set_learning_rate(learning_rate(member.optimizer, step, len(order)))
        curve.append(engine.step(member.batches.local(indices, step), len(indices)).tolist())
    return engine.values(), curve


@pytest.mark.parametrize(
    ("strategy", "training", "optimizer"),
    [
        (Strategy(), {}, {}),
        (Strategy(), {"drop_last": False, "class_weights": "balanced"}, {"clip_norm": 0.01, "schedule": "cosine"}),
        (Strategy(trainable=("block.-1", "final_norm")), {}, {"decay_norms_and_biases": False}),
        (Strategy(trainable=("block.-1",), readout="first", rate_decay=0.5), {"label_smoothing": 0.1}, {"warmup": 0.5}),
    ],
    ids=["head", "head with a recipe", "last block", "last block with a recipe"],
)
def test_joint_runs_equal_runs_one_by_one(
    strategy: Strategy, training: dict[str, object], optimizer: dict[str, object]
) -> None:
    configs = TrainingConfig(epochs=2, batch_size=6, **training), OptimizerConfig(weight_decay=0.1, **optimizer)
    trained = train_jointly(_members(strategy, *configs), "fp64", lambda: False, lambda *shown: None)
    for member, one in zip(_members(strategy, *configs), trained, strict=True):
        values, curve = _one_by_one(member)
        assert values.keys() == one.values.keys()
        for name, value in values.items():
            assert torch.allclose(one.values[name], value, rtol=0, atol=1e-11), name
        losses, accuracies = zip(*curve, strict=True)
        assert np.allclose(one.curve.losses, losses, rtol=0, atol=1e-11)
        assert np.allclose(one.curve.accuracies, accuracies, rtol=0, atol=1e-6), "the engine has them in float32"


def test_whoever_asks_to_stop_is_heard() -> None:
    members = _members(Strategy(), TrainingConfig(epochs=2, batch_size=6), OptimizerConfig())
    with pytest.raises(KeyboardInterrupt):
        train_jointly(members, "fp64", lambda: True, lambda *shown: None)
