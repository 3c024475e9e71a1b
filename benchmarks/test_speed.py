"""`make perf`: ftbench against its own plain path, the Hugging Face Trainer, and the machine's ceiling.

Every comparison is a pair measured side by side: in each round the peer runs first (as pytest-benchmark's set-up), then
ftbench with a cold cache, each as a process of its own. What is compared are the seconds from the data to the final
evaluation of all three splits; whole-process seconds are kept beside them.

Short mode (the default) uses a few texts and `full` is left to the long one: `make perf FULL=1`. Fixed costs (loading
124M weights) weigh more on few texts, so the short mode's ratios are lower bounds.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from platformdirs import user_cache_path

from harness.config import DataConfig
from harness.data.dataset import load_dataset
from harness.data.fetch import NotAvailable
from harness.engine.precision import choose
from harness.records import Record, Store

ROOT = Path(__file__).parents[1]
FULL = bool(os.environ.get("FTBENCH_PERF_FULL"))
ROUNDS = int(os.environ.get("FTBENCH_PERF_ROUNDS", "1" if FULL else "2"))
TEXTS, EPOCHS = (None, 5) if FULL else (40, 5)
STRATEGIES = ["head_only", "last_block", "last_padded", *(["full"] if FULL else [])]
PRECISION, _ = choose("auto", "gpt2", torch.cuda.is_available())


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The real messages; in short mode a few of them, the longest among them, since the plain path pads to it."""
    if FULL:
        return "sms_spam"
    try:
        train = load_dataset(DataConfig(name="sms_spam"), user_cache_path("ftbench", appauthor=False)).split["train"]
    except NotAvailable as error:
        pytest.skip(f"{error}: set FTBENCH_ASSETS")
    few = train.iloc[:TEXTS]
    longest = train.loc[[train["text"].str.len().idxmax()]]
    path = tmp_path_factory.mktemp("data") / "sms.csv"
    pd.concat([few, longest]).to_csv(path, index=False)
    return str(path)


def _run(strategy: str, data: str, *settings: str) -> tuple[Record, float]:
    """A run on the 124M architecture with a cold cache: its record, and the seconds of the whole process."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "harness", "run", "--strategy", strategy, "--data", data, "--model", "gpt2"]
        options = ["--weights", "random", "--epochs", str(EPOCHS), "--results", folder, "--cache", f"{folder}/cache"]
        started = time.perf_counter()
        changes = [part for setting in settings for part in ("--set", setting)]
        subprocess.run([*command, *options, *changes], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        (record,) = Store(Path(folder)).all()
    return record, seconds


def _plain(strategy: str, data: str) -> float:
    return _run(strategy, data, "plain=true")[0].seconds.total


def _trainer(strategy: str, data: str) -> float:
    command = [sys.executable, "benchmarks/peer_trainer.py", strategy, data, str(EPOCHS), PRECISION]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])["seconds"]


def _compare(benchmark, strategy: str, data: str, peer: Callable[[str, str], float]) -> None:
    theirs: list[float] = []
    ours: list[Record] = []
    processes: list[float] = []

    def fast() -> None:
        record, process = _run(strategy, data)
        ours.append(record)
        processes.append(process)

    benchmark.pedantic(fast, setup=lambda: theirs.append(peer(strategy, data)), rounds=ROUNDS)
    totals = [record.seconds.total for record in ours]
    ratios = [a / b for a, b in zip(theirs, totals, strict=True)]
    benchmark.extra_info |= {
        "strategy": strategy,
        "peer": peer.__name__.strip("_"),
        "precision": ours[0].precision,
        "peer_seconds": theirs,
        "seconds": totals,
        "process_seconds": processes,
        "phases": ours[0].seconds.model_dump(),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
    }


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_against_the_plain_path(benchmark, data: str, strategy: str) -> None:
    _compare(benchmark, strategy, data, _plain)


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "last_padded"])
def test_against_the_trainer(benchmark, data: str, strategy: str) -> None:
    _compare(benchmark, strategy, data, _trainer)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ceiling_of_matrix_products(benchmark, dtype: torch.dtype) -> None:
    """The machine's rate on the MLP's own shape: what utilisation is measured against."""
    hidden, weight = torch.randn(1024, 768, dtype=dtype), torch.randn(3072, 768, dtype=dtype)
    benchmark(torch.nn.functional.linear, hidden, weight)
    flops = 2 * 1024 * 768 * 3072
    benchmark.extra_info |= {"dtype": str(dtype), "teraflops": flops / benchmark.stats.stats.median / 1e12}


def test_ceiling_of_memory(benchmark) -> None:
    source = torch.empty(64_000_000)
    target = torch.empty_like(source)
    benchmark(target.copy_, source)
    benchmark.extra_info["gigabytes_per_second"] = 2 * source.nbytes / benchmark.stats.stats.median / 1e9
