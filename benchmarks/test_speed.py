"""`make perf`, first half: ftbench against its own plain path, the Hugging Face Trainer, and the machine's ceiling.

Every comparison is a pair measured side by side: in each round the peer runs first (as pytest-benchmark's set-up), then
ftbench. What is compared are the seconds from the data to the final evaluation of all three splits.

Short mode (the default) uses a few texts and `full` is left to the long one: `make perf FULL=1`. Fixed costs (loading
124M weights) weigh more on few texts, so the short mode's ratios are lower bounds.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable

import pandas as pd
import pytest

from benchmarks.processes import (
    CACHE,
    PRECISION,
    Measured,
    encoded,
    ours,
    plain_seconds,
    product_rate,
    trained_rows,
    trainer_seconds,
)
from harness.config.schema import DataConfig
from harness.data.dataset import load_dataset
from harness.data.downloads import NotAvailable
from harness.measure.flops import forward_flops, training_flops
from harness.model.named.shapes import SHAPES
from harness.results.record import Record
from tools.wheel_models import DECODER, fetch_models

FULL = bool(os.environ.get("FTBENCH_PERF_FULL"))
ROUNDS = int(os.environ.get("FTBENCH_PERF_ROUNDS", "1" if FULL else "2"))
TEXTS, EPOCHS = (None, 5) if FULL else (18, 5)
STRATEGIES = ["head_only", "last_block", "last_padded", *(["full"] if FULL else [])]


def real_messages() -> pd.DataFrame:
    """The training part of the real messages; skips where they can't be had."""
    try:
        return load_dataset(DataConfig(name="sms_spam"), CACHE).split["train"]
    except NotAvailable as error:
        pytest.skip(f"{error}: set FTBENCH_ASSETS")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The real messages; in short mode a few of them, the longest among them, since the plain path pads to it."""
    train = real_messages()
    if FULL:
        return "sms_spam"
    few = train.iloc[:TEXTS]
    longest = train.loc[[train["text"].str.len().idxmax()]]
    path = tmp_path_factory.mktemp("data") / "sms.csv"
    pd.concat([few, longest]).to_csv(path, index=False)
    return str(path)


def _compare(benchmark, strategy: str, data: str, peer: Callable[..., float], model: str = "gpt2") -> Record:
    """Returns the record of our last run."""
    given = strategy, data, EPOCHS, *([] if model == "gpt2" else [model])
    theirs: list[float] = []
    runs: list[Measured] = []
    benchmark.pedantic(
        lambda: runs.append(ours(*given)),
        setup=lambda: theirs.append(peer(*given)),
        rounds=ROUNDS,
    )
    totals = [run.record.seconds.total for run in runs]
    ratios = [a / b for a, b in zip(theirs, totals, strict=True)]
    benchmark.extra_info |= {
        "strategy": strategy if model == "gpt2" else f"{strategy}, {model.rpartition('/')[2]}",
        "peer": peer.__name__.removesuffix("_seconds"),
        "precision": runs[0].record.precision,
        "peer_seconds": theirs,
        "seconds": totals,
        "process_seconds": [run.process_seconds for run in runs],
        "ratio": statistics.median(ratios),
        "ratios": ratios,
    }
    return runs[-1].record


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_against_the_plain_path(benchmark, data: str, strategy: str) -> None:
    record = _compare(benchmark, strategy, data, plain_seconds)
    if strategy != "last_padded":
        # Right after the run, since a shared machine's speed drifts.
        benchmark.extra_info["phases"] = _phases(record, data, product_rate(PRECISION))


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "last_padded"])
def test_against_the_trainer(benchmark, data: str, strategy: str) -> None:
    _compare(benchmark, strategy, data, trainer_seconds)


@pytest.mark.skipif(not FULL, reason="fetches a pretrained model of 93 MB")
def test_a_hub_model_against_the_trainer(benchmark, data: str) -> None:
    _compare(benchmark, "last_block", data, trainer_seconds, f"hf:{fetch_models() / 'models' / DECODER.hub_id}")


def _phases(record: Record, data: str, ceiling: float) -> dict[str, dict[str, float]]:
    """Each phase's seconds, the rate of the products it needs, and that rate over the ceiling, FLOP/s."""
    needed = _needed_flops(record, data)
    seconds = record.seconds.model_dump()
    return {
        name: {
            "seconds": seconds[name],
            "teraflops": flops / seconds[name] / 1e12,
            "ceiling_teraflops": ceiling / 1e12,
            "utilisation": flops / seconds[name] / ceiling,
        }
        for name, flops in needed.items()
        if flops
    }


def _needed_flops(record: Record, data: str) -> dict[str, int]:
    shape = SHAPES["gpt2"]
    names = ["embeddings", *(f"block.{number}" for number in range(shape.blocks)), "final_norm", "head"]
    cut = names.index(record.prefix.boundary)
    prefix, suffix = names[:cut], names[cut:]
    parts = encoded(data)
    reads_below = not any(name.startswith("block.") for name in suffix)
    rows = {tuple(part.token_ids[start:end]) for part in parts.values() for start, end in _ends(part)}
    distinct = pd.Series(list(rows)).map(len).to_numpy()
    return {
        "features": forward_flops(shape, prefix, distinct, reads_below),
        "train": EPOCHS * training_flops(shape, suffix, trained_rows(parts["train"].lengths), True),
        "evaluate": sum(forward_flops(shape, suffix, part.lengths, True) for part in parts.values()),
    }


def _ends(part) -> list[tuple[int, int]]:
    return list(zip(part.offsets[:-1], part.offsets[1:], strict=True))
