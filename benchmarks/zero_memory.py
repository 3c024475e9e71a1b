"""What a rank holds under each ZeRO stage and under FSDP, beside what the arithmetic says.

    python -m benchmarks.zero_memory

Trains all of GPT-2 124M for two steps in float32 on 2 and on 4 ranks of this machine, and prints a table. The
arithmetic is that of Rajbhandari et al. (2020, arXiv:1910.02054) with 4 bytes for a gradient and 8 for AdamW's two
moments: stage 1 shares the moments among the ranks, stage 2 the gradients too, stage 3 and FSDP the parameters as well.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.distributed.tensor import DTensor

import strategies
from harness.config.schema import EngineConfig, OptimizerConfig
from harness.distributed.process_group import connect, disconnect
from harness.features.features import Features
from harness.measure.memory import MemoryMeter
from harness.model.named.weights import RandomWeights, filled_backbone
from harness.model.split import split
from harness.training.engines.factory import open_engine
from harness.training.micro_batch import MicroBatch

RANKS = (2, 4)
ENGINES = {
    **{f"ZeRO {stage}": EngineConfig(name="deepspeed", zero_stage=stage) for stage in range(4)},
    "FSDP": EngineConfig(name="fsdp"),
}


def expected(parameters: int, ranks: int, config: EngineConfig) -> dict[str, float]:
    """Bytes on one rank."""
    stage = 3 if config.zero_stage is None else config.zero_stage
    return {
        "optimizer_state": 8 * parameters / (ranks if stage >= 1 else 1),
        "gradients": 4 * parameters / (ranks if stage >= 2 else 1),
        "parameters": 4 * parameters / (ranks if stage >= 3 else 1),
    }


def measure(name: str) -> None:
    """On each rank of a group: two steps, then what this rank held, as JSON in the folder given."""
    world = connect(600)
    torch.manual_seed(0)
    _, suffix = split(filled_backbone("gpt2", RandomWeights("gpt2", 123)), strategies.load("full").strategy, 2)
    engine: Any = open_engine(ENGINES[name], "fp32", world, fused=True)
    engine.prepare(suffix, OptimizerConfig(learning_rate=5e-5))
    optimizer = engine._optimizer if name == "FSDP" else engine._engine.basic_optimizer
    trained, held = engine._named, {}

    def at_update(*_: object) -> None:
        own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        held["gradients"] = _bytes(parameter.grad for parameter in [*own, *trained.values()])
        # Stage 3 leaves the whole parameters empty and keeps its part of each beside them.
        held["parameters"] = _bytes(getattr(parameter, "ds_tensor", parameter) for parameter in trained.values())

    optimizer.register_step_pre_hook(at_update)
    meter = MemoryMeter(world.device)
    for _ in range(2):
        with meter.phase("step"):
            engine.step([_micro_batch()], global_count=world.size)
    held["optimizer_state"] = _bytes(
        value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)
    )
    held["peak"] = meter.peaks["step"]
    held["trained"] = sum(getattr(parameter, "ds_numel", parameter.numel()) for parameter in trained.values())
    (Path(sys.argv[2]) / f"{world.rank}.json").write_text(json.dumps(held))
    engine.close()
    disconnect()


def _micro_batch() -> MicroBatch:
    row = Features(torch.arange(12), np.array([0]), np.array([12]), torch.device("cpu"))
    return MicroBatch.of(row, np.array([0]), np.array([1]), counts=True)


def _bytes(tensors: Iterable[Tensor | None]) -> int:
    """Of the storages behind them, each once."""
    here = [one.to_local() if isinstance(one, DTensor) else one for one in tensors if one is not None]
    storages = [one.untyped_storage() for one in here]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def main() -> None:
    table = Table(title="GPT-2 124M, full, float32: GB on the rank that holds most", box=box.MARKDOWN)
    for title in ("ranks", "engine", "optimizer state", "expected", "gradients", "expected", "parameters", "expected"):
        table.add_column(title, justify="right")
    table.add_column("peak of a step", justify="right")
    for ranks in RANKS:
        for name, config in ENGINES.items():
            of_ranks = _run(ranks, name)
            arithmetic = expected(of_ranks[0]["trained"], ranks, config)
            cells = []
            for what, right in arithmetic.items():
                cells += [f"{max(held[what] for held in of_ranks) / 1e9:.3f}", f"{right / 1e9:.3f}"]
            table.add_row(str(ranks), name, *cells, f"{max(held['peak'] for held in of_ranks) / 1e9:.2f}")
    Console(width=160).print(table)


def _run(ranks: int, name: str) -> list[dict[str, int]]:
    with tempfile.TemporaryDirectory() as folder:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        environment = {"OMP_NUM_THREADS": "1"} | os.environ
        command = [*torchrun, "-m", "benchmarks.zero_memory", name, folder]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        return [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]


if __name__ == "__main__":
    measure(sys.argv[1]) if "RANK" in os.environ else main()
