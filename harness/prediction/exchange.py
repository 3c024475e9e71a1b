"""What ranks exchange in a training step, and how long that takes by latency and bandwidth of each collective."""

from __future__ import annotations

from harness.config.schema import EngineConfig, Part

# How often a step hands all bytes of the trained parameters to each collective. DDP and ZeRO 0: gradients are summed.
# ZeRO 1 and 2 (Rajbhandari et al., 2020): each part of the gradients goes to the rank that updates it, which sends the
# updated part to all. ZeRO 3 and FSDP: parameters are gathered for the forward and for the backward pass.
COLLECTIVES = {
    "ddp": {"all_reduce": 1},
    "deepspeed 0": {"all_reduce": 1},
    "deepspeed 1": {"all_reduce": 1, "all_gather": 1},
    "deepspeed 2": {"all_reduce": 1, "all_gather": 1},
    "deepspeed 3": {"all_gather": 2, "reduce_scatter": 1},
    "fsdp": {"all_gather": 2, "reduce_scatter": 1},
}

# Of the parameters that one collective takes: DDP's bucket.
BUCKET_BYTES = 25_000_000


class GroupRates(Part):
    """Of a group of ranks. latency_seconds: of a collective without content. all_reduce, all_gather, reduce_scatter:
    seconds for each byte of the complete tensor."""

    latency_seconds: float
    all_reduce: float
    all_gather: float
    reduce_scatter: float


def collectives_of(engine: EngineConfig) -> dict[str, int]:
    """What a step of this engine calls, and how often with all bytes of the trained parameters."""
    return COLLECTIVES[engine.name if engine.zero_stage is None else f"{engine.name} {engine.zero_stage}"]


def exchange_seconds(
    rates: GroupRates, engine: EngineConfig, trained_bytes: float, gathered_bytes: float = 0.0
) -> float:
    """Of one step. gathered_bytes: of frozen parameters that ranks share; they are gathered as the trained ones are."""
    of_trained = sum(
        times * _collective_seconds(rates, name, trained_bytes) for name, times in collectives_of(engine).items()
    )
    if not gathered_bytes:
        return of_trained
    return of_trained + collectives_of(engine)["all_gather"] * _collective_seconds(rates, "all_gather", gathered_bytes)


def _collective_seconds(rates: GroupRates, name: str, content: float) -> float:
    """In pieces of BUCKET_BYTES."""
    pieces = max(1, round(content / BUCKET_BYTES))
    return pieces * rates.latency_seconds + content * getattr(rates, name)
