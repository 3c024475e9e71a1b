"""What is timed: ftbench, its plain path and the Hugging Face Trainer, each a process of its own with a cold cache."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from platformdirs import user_cache_path

from harness.config.places import is_hub
from harness.config.schema import DataConfig, Precision, TrainingConfig
from harness.data.batching import global_batches
from harness.data.dataset import load_dataset
from harness.data.downloads import assets_folder
from harness.data.encoding import Examples, RowRule, encode_split
from harness.data.tokenizer import load_tokenizer
from harness.model.named.shapes import SHAPES
from harness.model.precision import choose
from harness.results.record import Record, Seconds
from harness.results.store import Store

ROOT = Path(__file__).parents[1]
CACHE = user_cache_path("ftbench", appauthor=False)


def precision_of(model: str) -> Precision:
    """What `auto` stands for on this machine."""
    return choose("auto", model)[0]


PRECISION = precision_of("gpt2")


@dataclass(frozen=True)
class Measured:
    """A run: its record (one for each seed), and seconds of the whole process."""

    records: list[Record]
    process_seconds: float

    @property
    def record(self) -> Record:
        return self.records[0]


def ours(
    strategy: str,
    data: str,
    epochs: int,
    model: str = "gpt2",
    *,
    seeds: str = "0",
    settings: str = "",
    cache: Path | None = None,
    without: str | None = None,
) -> Measured:
    """cache: with the features of earlier runs; by default an empty one. without: a kernel that is left out."""
    with tempfile.TemporaryDirectory() as folder:
        program = ["benchmarks.ablation", without] if without else ["harness"]
        command = [sys.executable, "-m", *program, "run", "--strategy", strategy, "--data", data, "--model", model]
        weights = "pretrained" if is_hub(model) else "random"
        options = ["--weights", weights, "--epochs", str(epochs), "--seeds", seeds]
        options += ["--results", folder, "--cache", str(cache or f"{folder}/cache")]
        options += ["--set", settings] if settings else []
        started = time.perf_counter()
        subprocess.run([*command, *options], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        records = sorted(Store(Path(folder)).all(), key=lambda record: record.seed)
    return Measured(records, seconds)


def plain_seconds(strategy: str, data: str, epochs: int) -> float:
    """The plain path is timed over one epoch: it does the same in each."""
    return seconds_of_epochs(ours(strategy, data, epochs=1, settings="plain=true").record.seconds, 1, epochs)


def seconds_of_epochs(seconds: Seconds, measured: int, epochs: int) -> float:
    """Of a run of `epochs`, from one of `measured`: its training seconds multiplied."""
    assert seconds.train is not None, "a run that ended well has trained"
    return seconds.total + (epochs / measured - 1) * seconds.train


def trainer_seconds(strategy: str, data: str, epochs: int, model: str = "gpt2") -> float:
    command = [sys.executable, "-m", "benchmarks.peer_trainer", strategy, data, str(epochs), PRECISION, model]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])["seconds"]


def product_rate(precision: str) -> float:
    """FLOP/s of the MLP's own products, the faster of few and many tokens: what utilisation is measured against."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    weight = torch.randn(3072, 768, dtype=dtype, device=device)
    return max(_rate(torch.randn(tokens, 768, dtype=dtype, device=device), weight) for tokens in (256, 512, 1024))


def _rate(hidden: torch.Tensor, weight: torch.Tensor) -> float:
    seconds = []
    for _ in range(25):
        started = time.perf_counter()
        torch.nn.functional.linear(hidden, weight)
        if hidden.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return 2 * hidden.shape[0] * weight.numel() / statistics.median(seconds[5:])


def encoded(data: str, model: str = "gpt2", size: int | None = None) -> dict[str, Examples]:
    """The parts of a data set as a run sees them."""
    config = DataConfig(name=data, **({"size": size} if size else {}))
    dataset = load_dataset(config, CACHE)
    tokenizer = load_tokenizer(model, CACHE, assets_folder())
    return encode_split(dataset.split, tokenizer, dataset.source.classes, RowRule(SHAPES[model].context))


def trained_rows(lengths: np.ndarray) -> np.ndarray:
    """The lengths of the rows that the first epoch of seed 0 trains on: an incomplete batch is dropped."""
    return lengths[np.concatenate(global_batches(len(lengths), TrainingConfig().batch_size, 0, 0, drop_last=True))]
