"""Measures a run of the harness: its record, and the kernels of a few steps more."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.jobs import Job, Result
from benchmarks.gpu.texts import Texts
from benchmarks.processes import seconds_of_epochs
from harness import commands
from harness.config.suite import load_suite
from harness.experiment import run
from harness.measure.flops import forward_flops, training_flops
from harness.model.named.shapes import SHAPES
from harness.planning import workspace
from harness.results.record import Record
from harness.results.store import Store
from harness.training.batches import TrainingBatches
from harness.training.engines.protocol import Engine

# That are profiled, and timed without the profiler right before: so many, or fewer that take so long.
MOST_STEPS, PROFILED_SECONDS = 20, 1.0
# More rows than this at once, padded and in float32, do not fit a card of 80 GB.
LARGEST_PLAIN_BATCH = 64


def rate_of_product(rows: int, inner: int, columns: int, repeats: int = 30) -> float:
    """FLOP/s of a bfloat16 product [rows, inner] x [inner, columns], over products one after the other."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    left, right = (torch.randn(shape, device=device).bfloat16() for shape in ((rows, inner), (inner, columns)))
    return 2 * rows * inner * columns / _seconds(lambda: torch.mm(left, right), repeats, device)


def _seconds(do: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Of one of many calls after a first one, once the device has done all of them."""
    do()
    _wait(device)
    started = time.perf_counter()
    for _ in range(repeats):
        do()
    _wait(device)
    return (time.perf_counter() - started) / repeats


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass
class Steps:
    """What steps after the last evaluation gave. lengths: of the training texts as they are computed, [texts]."""

    kernels: float | None = None
    busy: float | None = None
    lengths: np.ndarray = field(default_factory=lambda: np.ones(1, dtype=np.int64))
    not_captured: str | None = None


@contextmanager
def _profiled_after_the_evaluation(found: Steps):
    """Where a run of several ranks measures its communication: nothing uses the results of these steps."""

    def measure(engine: Engine, batches: TrainingBatches, _: object) -> None:
        found.lengths, found.not_captured = batches.examples.lengths, engine.not_captured
        if batches.world.device.type == "cuda":
            found.kernels, found.busy = _profiled(engine, batches)

    original = run.measured_communication
    run.measured_communication = measure
    try:
        yield
    finally:
        run.measured_communication = original


def _profiled(engine: Engine, batches: TrainingBatches) -> tuple[float, float] | tuple[None, None]:
    """Kernels in a step, and the share of its time that the device spends in them; None where the profiler sees none.

    The profiler slows the host down: the time is that of the same steps without it.
    """
    every, device = batches.of_epoch(0)[:MOST_STEPS], batches.world.device

    def steps() -> None:
        for indices in every:
            engine.step(batches.local(indices), len(indices))

    one = _seconds(lambda: engine.step(batches.local(every[0]), len(every[0])), 1, device)
    every = every[: max(2, int(PROFILED_SECONDS / one))]
    wall = _seconds(steps, 1, device)
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        steps()
        _wait(device)
    events = [event for event in profiler.events() or [] if _is_work(event)]
    kernels = [event for event in events if not event.name.startswith(("Memcpy", "Memset"))]
    if not kernels:
        return None, None
    at_work = sum(event.time_range.elapsed_us() for event in events) / 1e6
    return len(kernels) / len(every), at_work / wall


def _is_work(event: Any) -> bool:
    return event.device_type == DeviceType.CUDA and not getattr(event, "is_user_annotation", False)


def of_harness(job: Job, texts: Texts, model: str) -> Result:
    """With an empty cache, in this process, which has used the device before."""
    steps, plain = Steps(), job.side == "plain path"
    with tempfile.TemporaryDirectory() as name, _profiled_after_the_evaluation(steps):
        folder = Path(name)
        if texts.generated:
            workspace.load_tokenizer = lambda *_: texts.tokenizer(model)
        suite = load_suite(None, _options(job, texts, model, plain), [])
        commands.run_suite(Console(quiet=True), suite, folder, folder / "cache", force=False, quiet=True)
        (record,) = Store(folder).all()
    if record.status != "ok":
        return Result(job=job, note=f"{record.status}: {record.reason}")
    result = _of_record(job, record)
    result.kernels, result.busy = steps.kernels, steps.busy
    if plain:
        result.note = "float32, padded to the longest text"
    else:
        rate = record.throughput.examples_per_second if record.throughput else None
        result.flops = (rate and rate * _flops_of_a_text(record, model, steps.lengths)) or None
        result.note = f"not captured: {steps.not_captured}" if steps.not_captured else "captured"
    return result


def _options(job: Job, texts: Texts, model: str, plain: bool) -> dict[str, object]:
    row = job.row
    data = texts.full if row.full_collection else texts.balanced
    options = {f"data.{name}": value for name, value in data.model_dump(exclude_defaults=True).items()}
    options |= {"model.name": model, "model.weights": "random", "strategy": [row.strategy], "plain": plain}
    options |= {"training.batch_size": row.batch_size, "training.epochs": job.epochs}
    if plain and row.batch_size > LARGEST_PLAIN_BATCH:
        options["training.micro_batch_size"] = LARGEST_PLAIN_BATCH
    return options


def _of_record(job: Job, record: Record) -> Result:
    steps, throughput = record.step_milliseconds, record.throughput
    return Result(
        job=job,
        step_p50=steps and steps.p50,
        step_p95=steps and steps.p95,
        tokens=throughput and throughput.real_tokens_per_second,
        seconds=seconds_of_epochs(record.seconds, job.epochs, job.row.epochs),
        peak_bytes=record.memory and record.memory.grown_bytes,
        accuracy=record.ok_metrics.test.accuracy,
    )


def _flops_of_a_text(record: Record, model: str, lengths: np.ndarray) -> float:
    """That training needs on average. LoRA's frozen matrices have no gradients; its adapters are left out."""
    assert record.prefix is not None, "a run that ended well has one"
    shape = SHAPES[model]
    stages = ["embeddings", *(f"block.{number}" for number in range(shape.blocks)), "final_norm", "head"]
    suffix = stages[stages.index(record.prefix.boundary) :]
    if record.strategy == "lora":
        return 2 * forward_flops(shape, suffix, lengths, reads_one_token=True) / len(lengths)
    return training_flops(shape, suffix, lengths, reads_one_token=True) / len(lengths)
