"""What ranks exchange in a training step, and how long that takes: latency and bandwidth of each collective."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

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
TIMED_BYTES = 8_000_000
_REPEATS = 5


class GroupRates(Part):
    """Of a group of ranks. latency_seconds: of a collective without content. all_reduce, all_gather, reduce_scatter:
    seconds for each byte of the complete tensor. slowdown: how much longer a rank computes while all others do."""

    latency_seconds: float
    all_reduce: float
    all_gather: float
    reduce_scatter: float
    slowdown: float


def collectives_of(engine: EngineConfig) -> dict[str, int]:
    """What a step of this engine calls, and how often with all bytes of the trained parameters."""
    return COLLECTIVES[engine.name if engine.zero_stage is None else f"{engine.name} {engine.zero_stage}"]


def exchange_seconds(rates: GroupRates, engine: EngineConfig, trained_bytes: float, tensors: int) -> float:
    """Of one step. tensors: in how many pieces each collective is called at least."""
    return sum(
        times * (tensors * rates.latency_seconds + trained_bytes * getattr(rates, name))
        for name, times in collectives_of(engine).items()
    )


def measured_group(size: int, threads: int) -> GroupRates:
    """Start `size` ranks on this machine, with gloo, and measure them. threads: of each."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "rates.json"
        spawn(_measure, (size, threads, f"file://{folder}/group", result), size)
        return GroupRates.model_validate_json(result.read_text(encoding="utf-8"))


def _measure(rank: int, size: int, threads: int, group: str, result: Path) -> None:
    torch.set_num_threads(threads)
    one, other = torch.full((256, 768), 0.01), torch.full((768, 3072), 0.01)
    dist.init_process_group("gloo", init_method=group, rank=rank, world_size=size)
    whole = torch.zeros(TIMED_BYTES // 4 // size * size)
    part, tiny = torch.zeros(len(whole) // size), torch.zeros(1)
    alone = 0.0
    for turn in range(size):
        if rank == turn:
            alone = _median(lambda: one @ other)
        dist.barrier()
    together = _median(lambda: one @ other)
    rates = GroupRates(
        latency_seconds=_median(lambda: dist.all_reduce(tiny)),
        all_reduce=_median(lambda: dist.all_reduce(whole)) / whole.nbytes,
        all_gather=_median(lambda: dist.all_gather_into_tensor(whole, part)) / whole.nbytes,
        reduce_scatter=_median(lambda: dist.reduce_scatter_tensor(part, whole)) / whole.nbytes,
        slowdown=max(1.0, together / alone),
    )
    if rank == 0:
        result.write_text(json.dumps(rates.model_dump()), encoding="utf-8")
    dist.destroy_process_group()


def _median(call: Callable[[], object]) -> float:
    call()
    taken = []
    for _ in range(_REPEATS):
        begun = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)
