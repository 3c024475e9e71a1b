"""What storing features in bfloat16 would do to a pretrained model: `python -m benchmarks.feature_storage MODEL`.

Each strategy is trained on the features as the harness stores them (float32), and on the same file rounded to bfloat16;
both in bfloat16 and in float32 arithmetic. Shown are test accuracy, and how far the probabilities of the same messages
lie from those of float32 arithmetic and storage, over all seeds. About 5 minutes for a model of 135M parameters on 2
cores.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from harness import commands
from harness.config.suite import load_suite
from harness.results.record import Record
from harness.results.store import Store

STRATEGIES = ["last_block", "head_only"]
SEEDS = list(range(3))
VARIANTS = [("fp32", False), ("fp32", True), ("bf16", False), ("bf16", True)]


def main(model: str) -> None:
    console = Console(width=None if sys.stdout.isatty() else 120)
    with tempfile.TemporaryDirectory() as name:
        folder, found = Path(name), {}
        for precision, rounded in VARIANTS:
            cache = folder / f"cache {precision}"
            if rounded:
                for path in (cache / "features").glob("*.features"):
                    _round(path)
            found[precision, rounded] = _run(model, precision, folder / f"results {precision} {rounded}", cache)
        console.print(_table(model, found))


def _run(model: str, precision: str, results: Path, cache: Path) -> dict[str, list[tuple[Record, np.ndarray]]]:
    """Of each strategy its records with their test probabilities of the first class, by seed."""
    options = {"strategy": STRATEGIES, "seed": SEEDS, "model.name": model, "data.name": "sms_spam"}
    commands.run_suite(
        Console(quiet=True), load_suite(None, options | {"precision": precision}, []), results, cache, False
    )
    found: dict[str, list[tuple[Record, np.ndarray]]] = {name: [] for name in STRATEGIES}
    for record in sorted(Store(results).all(), key=lambda record: record.seed):
        predictions = pd.read_csv(results / "runs" / record.run_id / "predictions.csv")
        found[record.strategy].append((record, predictions.iloc[:, 3].to_numpy()))
    return found


def _round(path: Path) -> None:
    values = np.memmap(path, np.float32, "r+")
    for start in range(0, len(values), 1 << 24):
        part = values[start : start + (1 << 24)]
        part[:] = torch.from_numpy(part.copy()).bfloat16().float().numpy()
    values.flush()


def _table(model: str, found: dict[tuple[str, bool], dict[str, list[tuple[Record, np.ndarray]]]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=f"{model}: {len(SEEDS)} seeds")
    for column in (
        "strategy",
        "arithmetic",
        "stored in",
        "test %",
        "seeds differ by",
        "probabilities: mean",
        "99%",
        "max",
    ):
        table.add_column(column, justify="left" if column in ("strategy", "arithmetic", "stored in") else "right")
    for name in STRATEGIES:
        base = np.stack([shares for _, shares in found["fp32", False][name]])
        for (precision, rounded), runs in found.items():
            accuracies = [100 * record.metrics.test.accuracy for record, _ in runs[name]]
            moved = np.abs(np.stack([shares for _, shares in runs[name]]) - base)
            table.add_row(
                name,
                precision,
                "bf16" if rounded else "fp32",
                f"{np.mean(accuracies):.2f}",
                f"{np.std(accuracies, ddof=1):.2f}",
                *(f"{value:.4f}" for value in (moved.mean(), np.quantile(moved, 0.99), moved.max())),
            )
    return table


if __name__ == "__main__":
    main(sys.argv[1])
