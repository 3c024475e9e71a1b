"""Which engine a configuration names. Each is imported where it is used: DeepSpeed takes seconds."""

from __future__ import annotations

from harness.config.schema import EngineConfig, Precision
from harness.distributed.process_group import World
from harness.training.engines.protocol import Engine


def engine_at_work(config: EngineConfig, ranks: int) -> str:
    """The name of the one that computes: one rank has nobody to share with, so that FSDP is DDP there."""
    return "ddp" if config.name == "fsdp" and ranks == 1 else config.name


def open_engine(config: EngineConfig, precision: Precision, world: World, fused: bool) -> Engine:
    """The engine that the configuration names. fused: AdamW as one kernel."""
    name = engine_at_work(config, world.size)
    if name == "deepspeed":
        from harness.training.engines.deepspeed import DeepSpeedEngine

        return DeepSpeedEngine(world, precision, config, fused)
    if name == "fsdp":
        from harness.training.engines.fsdp import FSDPEngine

        return FSDPEngine(world, precision, config, fused)
    from harness.training.engines.ddp import DDPEngine

    return DDPEngine(world, precision, fused)
