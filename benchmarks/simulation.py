"""Simulated scaling beside what was measured: three strategies and three engines on 1, 2 and 4 ranks.

    python -m benchmarks.simulation [--model mini|gpt2] [--seeds N] [--results FOLDER]

The simulation is calibrated on 1 and 2 ranks, and on 1, 2 and 4; then 4 ranks are foretold by the first, and all by the
second. Throughput is the median over seeds; each seed does all arrangements before the next, so that a machine that
gets slower does so for all. Each rank has one thread. With FOLDER, runs that it holds are not done again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from harness.report.analysis.scaling import ScalingRow, scaling
from harness.report.analysis.simulation import calibrate
from harness.results.store import Store

STRATEGIES = "last_block,full,lora"
ENGINES = (("ddp",), ("deepspeed", "--zero", "2"), ("fsdp",))
RANKS = (1, 2, 4)
CALIBRATED_ON = ((1, 2), (1, 2, 4))
TARGET = 0.20
# Of each model: 20 steps or more after the warm-up.
OPTIONS = {
    "mini": ("--set", "data.size=400 training.batch_size=32", "--epochs", "4"),
    "gpt2": ("--weights", "random", "--set", "data.size=90 training.batch_size=8", "--epochs", "4"),
}


@dataclass(frozen=True)
class Compared:
    """Examples per second: measured, and simulated after calibration on each of CALIBRATED_ON."""

    title: str
    row: ScalingRow
    simulated: list[float]

    @property
    def errors(self) -> list[float]:
        return [value / self.row.examples_per_second - 1 for value in self.simulated]


def run(model: str, seeds: int, results: Path) -> None:
    for seed in range(seeds):
        for ranks in RANKS:
            for engine, *more in ENGINES:
                command = [sys.executable, "-m", "harness", "run", "--strategy", STRATEGIES, "--seeds", str(seed)]
                command += ["--model", model, "--data", "synthetic", *OPTIONS[model], "--nproc", str(ranks)]
                command += ["--engine", engine, *more, "--results", str(results), "--cache", str(results / "cache")]
                subprocess.run([*command, "--quiet"], env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)


def compared(results: Path) -> Iterator[Compared]:
    for title, rows in scaling(Store(results).all()):
        for row in rows:
            if row.ranks > 1:
                costs = [calibrate([one for one in rows if one.ranks in ranks], row.engine) for ranks in CALIBRATED_ON]
                texts, cores = row.batch / row.ranks, row.cores / row.ranks
                seconds = [one.step_seconds(row.ranks, texts, cores) for one in costs if one]
                yield Compared(title, row, [row.batch / one for one in seconds])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=OPTIONS, default="mini")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = given.results or Path(folder)
        run(given.model, given.seeds, results)
        found = list(compared(results))
    show(found)


def show(found: list[Compared]) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    calibrations = [f"from {', '.join(map(str, ranks))}" for ranks in CALIBRATED_ON]
    titles = [title for name in calibrations for title in (name, "error")]
    for name in ("strategy", "engine", "ranks", "examples/s", *titles):
        table.add_column(name, justify="left" if name in ("strategy", "engine") else "right", no_wrap=True)
    for one in found:
        strategy = one.title.removeprefix("Scaling of ").split(" on ")[0]
        pairs = zip(one.simulated, one.errors, strict=True)
        cells = [cell for value, error in pairs for cell in (f"{value:,.0f}", f"{error:+.0%}")]
        table.add_row(strategy, one.row.engine, str(one.row.ranks), f"{one.row.examples_per_second:,.0f}", *cells)
    console = Console(width=120)
    console.print(table)
    for number, name in enumerate(calibrations):
        within = sum(abs(one.errors[number]) <= TARGET for one in found)
        worst = max(abs(one.errors[number]) for one in found)
        console.print(f"{name}: {within} of {len(found)} within {TARGET:.0%}, the worst {worst:.0%} off")


if __name__ == "__main__":
    main()
