"""Which engine a configuration names. Each is imported where it is used: DeepSpeed takes seconds."""

from __future__ import annotations

from harness.config import EngineConfig, Precision
from harness.engine.protocol import Engine
from harness.engine.world import World


def open_engine(config: EngineConfig, precision: Precision, world: World, fused: bool) -> Engine:
    """The engine that the configuration names. fused: AdamW as one kernel."""
    if config.name == "deepspeed":
        from harness.engine.deepspeed import DeepSpeedEngine

        return DeepSpeedEngine(world, precision, config, fused)
    from harness.engine.ddp import DDPEngine

    return DDPEngine(world, precision, fused)
