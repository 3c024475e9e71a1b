"""`make perf`, second half: how time and memory grow with examples, epochs, seeds and the model.

Synthetic texts, random weights. Short mode grows the mini model, the long one (FULL=1) GPT-2 124M.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.processes import Measured, encoded, ours, trained_rows
from benchmarks.test_speed import FULL

MODEL = "gpt2" if FULL else "mini"
SIZES = [2000, 4000, 8000, 16000] if FULL else [1000, 4000]
SMALL = 400
# Sizes in turn, so often, and the medians: a shared machine's speed drifts by 10% within minutes. Features take longer
# than training and evaluation together: the first rounds compute them, the rest find them stored.
ROUNDS, FEATURE_ROUNDS = (8, 3) if FULL else (1, 1)
PHASES = ("features", "train", "evaluate", "total")


def test_examples(benchmark, tmp_path: Path) -> None:
    def grow() -> list[dict]:
        measured: dict[int, list[Measured]] = {size: [] for size in SIZES}
        for number, size in itertools.product(range(ROUNDS), SIZES):
            settings, cache = f"data.size={size}", tmp_path / str(min(number, FEATURE_ROUNDS - 1))
            measured[size].append(ours("last_block", "synthetic", 1, MODEL, settings=settings, cache=cache))
        rows = [_row_of_rounds(runs, size) for size, runs in measured.items()]
        seconds = [_by_phase(runs) for runs in measured.values()]
        for (before, smaller), (row, larger) in itertools.pairwise(zip(rows, seconds, strict=True)):
            row["marginal"] = {
                phase: 1000
                * _median_difference(larger[phase], smaller[phase])
                / (row["tokens"][phase] - before["tokens"][phase])
                for phase in row["tokens"]
            }
        return rows

    medians = f"medians of {ROUNDS}, features and total of {FEATURE_ROUNDS}"
    _keep(benchmark, f"examples (last_block, {MODEL}, 1 epoch, {medians})", grow)


@pytest.mark.skipif(not FULL, reason="each value is a process, and the short mode is short")
def test_epochs(benchmark) -> None:
    def grow() -> list[dict]:
        settings = f"data.size={SMALL}"
        return [_row(ours("last_block", "synthetic", epochs, MODEL, settings=settings), epochs) for epochs in (1, 2, 4)]

    _keep(benchmark, f"epochs (last_block, {MODEL}, {SMALL} texts)", grow)


def test_seeds(benchmark) -> None:
    def grow() -> list[dict]:
        run = ours("head_only", "synthetic", 5, MODEL, seeds="0..4", settings=f"data.size={SMALL}")
        return [_row(Measured([record], 0), number) for number, record in enumerate(run.records, start=1)]

    _keep(benchmark, f"seeds (head_only, {MODEL}, {SMALL} texts, each seed's own cost)", grow)


def test_model_size(benchmark) -> None:
    size = SMALL if FULL else 100

    def grow() -> list[dict]:
        models = ("mini", "gpt2", *(["gpt2-medium"] if FULL else []))
        return [
            _row(ours("last_block", "synthetic", 1, model, settings=f"data.size={size}"), model) for model in models
        ]

    _keep(benchmark, f"model (last_block, {size} texts)", grow)


def _tokens(run: Measured, size: int) -> dict[str, int]:
    """Real tokens that each phase works through."""
    parts = encoded("synthetic", MODEL, size)
    return {
        "features": run.record.prefix.computed_tokens,
        "train": int(trained_rows(parts["train"].lengths).sum()),
        "evaluate": sum(int(part.lengths.sum()) for part in parts.values()),
    }


def _row(run: Measured, value: object) -> dict:
    record = run.record
    phases = {name: getattr(record.seconds, name) for name in PHASES}
    start = record.memory.by_rank[0].at_start
    return {"value": str(value), **phases, "memory_megabytes": (record.memory.peak_bytes - start) / 1e6}


def _by_phase(runs: list[Measured]) -> dict[str, list[float]]:
    """Seconds of each round; of features and the total, of those that computed the features."""
    rounds = dict.fromkeys(PHASES, ROUNDS) | {"features": FEATURE_ROUNDS, "total": FEATURE_ROUNDS}
    return {phase: [getattr(run.record.seconds, phase) for run in runs[:count]] for phase, count in rounds.items()}


def _row_of_rounds(runs: list[Measured], size: int) -> dict:
    medians = {phase: statistics.median(seconds) for phase, seconds in _by_phase(runs).items()}
    memory = max(_row(run, size)["memory_megabytes"] for run in runs)
    return {"value": str(size), **medians, "memory_megabytes": memory, "tokens": _tokens(runs[0], size)}


def _median_difference(larger: list[float], smaller: list[float]) -> float:
    """Of two sizes' seconds in the same rounds."""
    return statistics.median(one - other for one, other in zip(larger, smaller, strict=True))


def _keep(benchmark, grows: str, grow: Callable[[], list[dict]]) -> None:
    rows = benchmark.pedantic(grow, rounds=1)
    benchmark.extra_info |= {"grows": grows, "rows": rows}
