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
from harness.data.encoding import Examples, encode_split
from harness.data.tokenizer import load_tokenizer
from harness.distributed.process_group import World, connect, disconnect, leave
from harness.features.features import Features
from harness.features.loader import PrefixLoader
from harness.model.gpt2 import SHAPES
from harness.model.split import split
from harness.model.weights import RandomWeights, filled_backbone
from harness.training.batches import TrainingBatches
from harness.training.engines.deepspeed import DeepSpeedEngine
from harness.training.engines.protocol import Engine

SAVED_AFTER, STEPS, BATCH = 3, 6, 8
DATA, CACHE = DataConfig(name="synthetic", size=80), Path("never written")


def main() -> None:
    world = connect(120)
    for name in strategies.built_in_names():
        features, examples, engine = _prepared(name, world, seed=0)
        first = _steps(engine, features, examples, world, range(SAVED_AFTER))
        saved = world.gather(engine.save())[0]
        undisturbed = _steps(engine, features, examples, world, range(SAVED_AFTER, STEPS))
        engine.close()
        features, examples, other = _prepared(name, world, seed=1)
        warm_up = TrainingBatches(features, examples, TrainingConfig(), 0, world).local(np.arange(BATCH))
        other.load(saved, warm_up)
        resumed = _steps(other, features, examples, world, range(SAVED_AFTER, STEPS))
        other.close()
        values = sum(key.startswith("value/") for key in saved)
        if world.rank == 0:
            print(f"RESUMED {name}: {values} trained, {first[0]:.4f}, {np.abs(undisturbed - resumed).max():.1e}")
    disconnect()


def _prepared(name: str, world: World, seed: int) -> tuple[Features, Examples, Engine]:
    """seed: of the head and the adapters, which `load` must replace."""
    strategy = strategies.load(name).strategy
    data = load_dataset(DATA, CACHE)
    tokenizer = load_tokenizer("mini", CACHE, None)
    examples = encode_split(data.split, tokenizer, data.source.classes, strategy.input, SHAPES["mini"].context)["train"]
    backbone = filled_backbone("mini", RandomWeights("gpt2", 123))
    torch.manual_seed(seed)
    prefix, suffix = split(backbone, strategy, 2)
    PrefixLoader(prefix, None, world.device, "fp32").load()
    kernels.optimize(suffix, world.device, "fp32")
    config = EngineConfig(name="deepspeed", zero_stage=int(sys.argv[1]), processes=world.size)
    engine = DeepSpeedEngine(world, "fp32", config, fused=True)
    engine.prepare(suffix, OptimizerConfig(learning_rate=1e-3))
    return Features.computed(prefix, examples, world.device), examples, engine


def _steps(engine: Engine, features: Features, examples: Examples, world: World, steps: range) -> np.ndarray:
    losses = []
    for step in steps:
        batch = np.arange(step * BATCH, (step + 1) * BATCH)
        loss, _ = engine.step(TrainingBatches(features, examples, TrainingConfig(), 0, world).local(batch), BATCH)
        losses.append(world.sum(loss.double()).item())
    return np.array(losses)


if __name__ == "__main__":
    main()
    leave(0)
