"""Which engine a configuration names. Each is imported where it is used: DeepSpeed takes seconds."""

from __future__ import annotations

from harness.config.schema import EngineConfig, Precision
from harness.distributed.process_group import World
from harness.training.engines.protocol import Engine


def open_engine(config: EngineConfig, precision: Precision, world: World, fused: bool) -> Engine:
    """The engine that the configuration names. fused: AdamW as one kernel."""
    if config.name == "deepspeed":
        from harness.training.engines.deepspeed import DeepSpeedEngine

        return DeepSpeedEngine(world, precision, config, fused)
    if config.name == "fsdp" and world.size > 1:  # one process has nobody to share with
        from harness.training.engines.fsdp import FSDPEngine

        return FSDPEngine(world, precision, config, fused)
    from harness.training.engines.ddp import DDPEngine

    return DDPEngine(world, precision, fused)
