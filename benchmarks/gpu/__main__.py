"""`python -m benchmarks.gpu`: does all jobs within the time given, and shows each as it ends.

    python -m benchmarks.gpu --model mini --size 120 --products 64

does the same in small, on a CPU too.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from rich.console import Console

from benchmarks.gpu import report
from benchmarks.gpu.children import done
from benchmarks.gpu.jobs import Job, Result, jobs_in_order
from benchmarks.gpu.texts import texts_for
from benchmarks.gpu.worker import Peaks, Plan

# The rest of the four minutes is for Python's start and the tables.
SECONDS = 220.0
# Of that time, for what the harness does: the rest is the Trainer's.
SHARE_OF_HARNESS = 0.65


def main(given: argparse.Namespace) -> None:
    console = Console(width=None if Console().is_terminal else 250, highlight=False)
    started, peaks, results = time.monotonic(), None, list[Result]()
    with tempfile.TemporaryDirectory() as name:
        texts = texts_for(given.model, given.size, Path(name))
        console.print(f"{given.model} with random weights; {texts.about}")
        # In a process of its own: the Trainer changes settings of PyTorch that hold for all of a process.
        for of_trainer, share in ((False, SHARE_OF_HARNESS), (True, 1.0)):
            jobs = _jobs(given.strategies, of_trainer)
            plan = Plan(jobs=jobs, texts=texts, model=given.model, products=0 if of_trainer else given.products)
            for found in done(plan, deadline=started + share * given.seconds):
                if isinstance(found, Peaks):
                    peaks = found
                    continue
                results.append(found)
                console.print(f"{time.monotonic() - started:5.0f} s  {report.as_line(found)}", markup=False)
                written = report.write(given.results, results, peaks, given.model, texts.about)
    report.show(console, results, peaks, given.model, texts.about)
    console.print(f"Wrote {' and '.join(map(str, written))}.")


def _jobs(strategies: list[str] | None, of_trainer: bool) -> list[Job]:
    return [
        job
        for job in jobs_in_order()
        if job.side.startswith("Trainer") == of_trainer and (not strategies or job.row.strategy in strategies)
    ]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("--results", type=Path, default=Path("results"), help="the folder for perf_gpu.md and .json")
    parser.add_argument("--model", default="gpt2", help="gpt2, or mini for a rehearsal")
    parser.add_argument("--size", type=int, help="how many texts mini gets")
    parser.add_argument("--strategies", type=lambda given: given.split(","), help="these alone")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="what is not done by then is left out")
    parser.add_argument("--products", type=int, default=1, help="divides the sizes of the products that give the peaks")
    return parser.parse_args()


if __name__ == "__main__":
    main(_arguments())
