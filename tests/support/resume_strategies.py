"""Run by torchrun in `test_engines`: every strategy goes on in one engine from what another saved.

resume_strategies.py FIRST THEN, each of them `ddp`, `fsdp`, `zero-STAGE`, or `alone`: one process.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

import strategies
from harness import kernels
from harness.config.schema import DataConfig, EngineConfig, OptimizerConfig, TrainingConfig
from harness.data.dataset import load_dataset
from harness.data.encoding import RowRule, encode_split
from harness.data.tokenizer import load_tokenizer
from harness.distributed.process_group import World, connect, disconnect, leave, single_process
from harness.features.features import Features
from harness.features.loader import PrefixLoader
from harness.model.named.shapes import SHAPES
from harness.model.named.weights import RandomWeights, filled_backbone
from harness.model.split import split
from harness.training.batches import TrainingBatches
from harness.training.engines.factory import open_engine
from harness.training.engines.protocol import Engine

SAVED_AFTER, STEPS = 3, 6
DATA, CACHE = DataConfig(name="synthetic", size=80), Path("never written")


def main() -> None:
    world = connect(120)
    first, then = sys.argv[1:]
    for name in strategies.built_in_names():
        batches, engine = _prepared(name, first, world, seed=0, few_shapes=False)
        losses = _steps(engine, batches, range(SAVED_AFTER))
        saved = world.gather(engine.save())[0]
        undisturbed = _steps(engine, batches, range(SAVED_AFTER, STEPS))
        engine.close()
        batches, other = _prepared(name, then, world, seed=1, few_shapes=True)
        other.load(saved, batches.local(batches.of_epoch(0)[0]))
        resumed = _steps(other, batches, range(SAVED_AFTER, STEPS))
        other.close()
        values = sum(key.startswith("value/") for key in saved)
        if world.rank == 0:
            print(f"RESUMED {name}: {values} trained, {losses[0]:.4f}, {np.abs(undisturbed - resumed).max():.1e}")
    disconnect()


def _prepared(name: str, arrangement: str, world: World, seed: int, few_shapes: bool) -> tuple[TrainingBatches, Engine]:
    """seed: of the head and the adapters, which `load` must replace. few_shapes: fill batches as on a GPU."""
    if arrangement == "alone":
        arrangement, world = "ddp", single_process()
    strategy = strategies.load(name).strategy
    data = load_dataset(DATA, CACHE)
    tokenizer = load_tokenizer("mini", CACHE, None)
    examples = encode_split(data.split, tokenizer, data.source.classes, RowRule(SHAPES["mini"].context))["train"]
    backbone = filled_backbone("mini", RandomWeights("gpt2", 123))
    torch.manual_seed(seed)
    prefix, suffix = split(backbone, strategy, 2)
    PrefixLoader(prefix, None, world.device, "fp32").load()
    kernels.optimize(suffix, world.device, "fp32")
    kind, _, stage = arrangement.replace("zero", "deepspeed").partition("-")
    config = EngineConfig.model_validate({"name": kind, "zero_stage": stage or None, "processes": world.size})
    engine = open_engine(config, "fp32", world, fused=True)
    engine.prepare(suffix, OptimizerConfig(learning_rate=1e-3))
    features = Features.computed(prefix, examples, world.device)
    return TrainingBatches(features, examples, TrainingConfig(), 0, world, few_shapes), engine


def _steps(engine: Engine, batches: TrainingBatches, steps: range) -> np.ndarray:
    losses = []
    for step in steps:
        indices = batches.of_epoch(0)[step]
        loss, _ = engine.step(batches.local(indices), len(indices))
        losses.append(batches.world.sum(loss.double()).item())
    return np.array(losses)


if __name__ == "__main__":
    main()
    leave(0)
