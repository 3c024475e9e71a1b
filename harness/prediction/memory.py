"""What a rank holds in each phase of a run, by arithmetic (Rajbhandari et al., 2020, arXiv:1910.02054, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

from harness.config.schema import EngineConfig
from harness.prediction.work.passes import RunWork
from harness.training.engines.deepspeed import LARGEST_BUCKET
from harness.training.engines.optimizer import MOMENTS

# In the order of ZeRO's stages. parameters: trained ones.
SHARDED = ("optimizer", "gradients", "parameters", "frozen")


@dataclass(frozen=True)
class RankBytes:
    """Bytes of one rank. program: before the run, imports included. weights: of the suffix. prefix: its weights, in the
    phase `features` only where features are stored. activations: all other tensors at the peak of a training step.
    passing: the same of the pass that computes features. evaluating: of an evaluation."""

    program: float
    weights: float
    gradients: float
    optimizer: float
    buffers: float
    prefix: float
    activations: float
    passing: float
    evaluating: float
    prefix_stays: bool

    @property
    def state(self) -> float:
        """What training holds beside activations."""
        return self.weights + self.gradients + self.optimizer + self.buffers

    @property
    def training(self) -> float:
        stays = self.prefix if self.prefix_stays else 0.0
        return self.state + self.activations + stays

    @property
    def peak(self) -> float:
        """The most that is held at once in any phase."""
        features = self.weights + self.prefix + self.passing
        evaluate = self.training - self.gradients - self.activations + self.evaluating
        return self.program + max(self.training, features, evaluate)


def rank_bytes(
    work: RunWork, engine: EngineConfig, element: int, kind: str, program: float, measured: float | None = None
) -> RankBytes:
    """element: bytes of a trained parameter. kind: of the device, "cpu" or "cuda". program: bytes that the process
    holds before the run. measured: what training holds beside it, where that is known: an engine holds more than its
    shards while it prepares, flattens and gathers."""
    ranks = engine.world_size
    trained = work.held.trained * element
    parts = {what: 1 / ranks if what in sharded(engine) else 1.0 for what in SHARDED}
    weights = work.held.frozen_bytes * parts["frozen"] + trained * parts["parameters"]
    gradients = trained * parts["gradients"]
    # On a CPU it is offloaded to where it is.
    is_elsewhere = engine.offload_optimizer and kind == "cuda"
    optimizer = 0.0 if is_elsewhere else len(MOMENTS) * trained * parts["optimizer"]
    buffers = 0.0
    if engine.name == "deepspeed" and engine.zero_stage:
        # The flat copy of the part whose state this rank holds, and a bucket of gradients.
        buffers = trained / ranks + min(work.held.trained, LARGEST_BUCKET) * element
    # The walk counts gradients, which it makes, among what it holds.
    activations = work.step.largest * max(0.0, work.step.walk.peak_bytes - trained)
    stays = work.prefix_bytes if work.features is None else 0
    if measured is not None:
        buffers = max(0.0, measured - weights - gradients - optimizer - activations - stays)
    return RankBytes(
        program=program,
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        buffers=buffers,
        prefix=work.prefix_bytes,
        activations=activations,
        passing=work.features.peak_bytes if work.features else 0.0,
        evaluating=work.evaluate.peak_bytes,
        prefix_stays=work.features is None,
    )


def sharded(engine: EngineConfig) -> tuple[str, ...]:
    """What of SHARDED each rank holds its part of. ZeRO 3 cuts frozen parameters like others."""
    if engine.name == "ddp":
        return ()
    if engine.name == "fsdp":
        return SHARDED if engine.shard_frozen else SHARDED[:3]
    return SHARDED if engine.zero_stage == 3 else SHARDED[: engine.zero_stage or 0]
