"""Run by torchrun in `test_engines`: every strategy goes on from what a DeepSpeed engine saved.

resume_strategies.py ZERO_STAGE
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
from harness.distributed.process_group import World, connect, disconnect, leave
from harness.features.features import Features
from harness.features.loader import PrefixLoader
from harness.model.shapes import SHAPES
from harness.model.split import split
from harness.model.weights import RandomWeights, filled_backbone
from harness.training.batches import TrainingBatches
from harness.training.engines.deepspeed import DeepSpeedEngine
from harness.training.engines.protocol import Engine

SAVED_AFTER, STEPS = 3, 6
DATA, CACHE = DataConfig(name="synthetic", size=80), Path("never written")


def main() -> None:
    world = connect(120)
    for name in strategies.built_in_names():
        batches, engine = _prepared(name, world, seed=0, few_shapes=False)
        first = _steps(engine, batches, range(SAVED_AFTER))
        saved = world.gather(engine.save())[0]
        undisturbed = _steps(engine, batches, range(SAVED_AFTER, STEPS))
        engine.close()
        batches, other = _prepared(name, world, seed=1, few_shapes=True)
        other.load(saved, batches.local(batches.of_epoch(0)[0]))
        resumed = _steps(other, batches, range(SAVED_AFTER, STEPS))
        other.close()
        values = sum(key.startswith("value/") for key in saved)
        if world.rank == 0:
            print(f"RESUMED {name}: {values} trained, {first[0]:.4f}, {np.abs(undisturbed - resumed).max():.1e}")
    disconnect()


def _prepared(name: str, world: World, seed: int, few_shapes: bool) -> tuple[TrainingBatches, Engine]:
    """seed: of the head and the adapters, which `load` must replace. few_shapes: fill batches as on a GPU."""
    strategy = strategies.load(name).strategy
    data = load_dataset(DATA, CACHE)
    tokenizer = load_tokenizer("mini", CACHE, None)
    examples = encode_split(data.split, tokenizer, data.source.classes, RowRule(SHAPES["mini"].context))["train"]
    backbone = filled_backbone("mini", RandomWeights("gpt2", 123))
    torch.manual_seed(seed)
    prefix, suffix = split(backbone, strategy, 2)
    PrefixLoader(prefix, None, world.device, "fp32").load()
    kernels.optimize(suffix, world.device, "fp32")
    config = EngineConfig(name="deepspeed", zero_stage=int(sys.argv[1]), processes=world.size)
    engine = DeepSpeedEngine(world, "fp32", config, fused=True)
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
