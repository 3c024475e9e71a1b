"""What a rank holds in each phase of a run, by arithmetic (Rajbhandari et al., 2020, arXiv:1910.02054, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

from harness.config.schema import EngineConfig
from harness.prediction.work.passes import RunWork
from harness.training.engines.deepspeed import LARGEST_BUCKET
from harness.training.engines.optimizer import MOMENTS


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
    work: RunWork, engine: EngineConfig, element: int, program: float, measured: float | None = None
) -> RankBytes:
    """element: bytes of a trained parameter. program: bytes that the process holds before the run. measured: what
    training holds beside it, where that is known: an engine holds more than its shards while it prepares, flattens and
    gathers."""
    ranks = engine.processes * engine.nodes
    trained = work.held.trained * element
    shards = _sharded(engine)
    weights = work.held.frozen_bytes + trained / (ranks if "parameters" in shards else 1)
    gradients = trained / (ranks if "gradients" in shards else 1)
    optimizer = 0.0 if engine.offload_optimizer else len(MOMENTS) * trained / (ranks if "optimizer" in shards else 1)
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


def _sharded(engine: EngineConfig) -> tuple[str, ...]:
    if engine.name == "ddp":
        return ()
    if engine.name == "fsdp":
        return ("optimizer", "gradients", "parameters")
    return ("optimizer", "gradients", "parameters")[: engine.zero_stage or 0]
