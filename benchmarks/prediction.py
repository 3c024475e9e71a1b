"""`ftbench plan` beside what was measured: strategies, batch sizes, ranks, engines and precisions on two models.

    python -m benchmarks.prediction [--results FOLDER] [--only mini|gpt2]

Each arrangement is a run of its own texts; none was used to set a constant. The machine is calibrated first.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from harness.config.schema import DataConfig
from harness.config.suite import load_suite
from harness.data.dataset import load_dataset
from harness.files import write_atomically
from harness.planning.plan import resolve
from harness.planning.workspace import Workspace
from harness.prediction.machine import Machine
from harness.prediction.predict import Predictor
from harness.prediction.prediction import PHASES, Prediction
from harness.results.record import Record
from harness.results.store import Store

# With how often each goes through the texts, so that no run is over at once.
STRATEGIES = {
    "head_only": 40,
    "last_block": 10,
    "first_token": 10,
    "last_padded": 8,
    "mean_pool": 4,
    "lora": 2,
    "prompt_tuning": 2,
    "full": 2,
}
SHARED = ("last_block", "full")
BATCHES = (4, 16)
ENGINES = (
    {"name": "ddp"},
    *({"name": "deepspeed", "zero_stage": stage} for stage in range(4)),
    {"name": "fsdp"},
)
# Of the SMS Spam Collection, for GPT-2 124M: an epoch of `full` takes seconds, not minutes.
MESSAGES = 100
TEXTS = 500  # synthetic ones, for the embedded model


@dataclass(frozen=True)
class Compared:
    """Of one arrangement: what was predicted and what was measured, seconds and bytes."""

    name: str
    seconds: tuple[float, float]
    bytes: tuple[float, float]
    phases: dict[str, tuple[float, float]]

    @property
    def time_error(self) -> float:
        return self.seconds[0] / self.seconds[1] - 1

    @property
    def memory_error(self) -> float:
        return self.bytes[0] / self.bytes[1] - 1


def suites(folder: Path, only: str | None) -> Iterator[list[dict[str, Any]]]:
    """Rows of arrangements that one group of workers does."""
    for model, precision in (("mini", "fp64"), ("gpt2", "bf16")):
        if only not in (None, model):
            continue
        data = {"name": "synthetic", "size": TEXTS} if model == "mini" else {"name": str(folder / "messages.csv")}
        common = {"model": {"name": model, "weights": "random"}, "data": data, "precision": "fp32"}
        yield [_row(common, name, batch, f"batch {batch}") for name in STRATEGIES for batch in BATCHES]
        other = {**common, "precision": precision}
        yield [_row(other, name, 8, precision) for name in ("head_only", *SHARED)]
        for engine in ENGINES:
            shared = {**common, "engine": {**engine, "processes": 2}}
            yield [_row(shared, name, 8, f"{' '.join(map(str, engine.values()))} x 2") for name in SHARED]


def _row(common: dict[str, Any], strategy: str, batch: int, label: str) -> dict[str, Any]:
    training = {"epochs": STRATEGIES[strategy], "batch_size": batch}
    return {
        "name": f"{common['model']['name']} {strategy} {label}",
        "strategy": strategy,
        **common,
        "training": training,
    }


def compared(rows: list[dict[str, Any]], folder: Path, cache: Path) -> list[Compared]:
    """Predict, then run, in a process of its own with an empty store of features."""
    engine = rows[0].get("engine", {})
    of_rows = [{key: value for key, value in row.items() if key != "engine"} for row in rows]
    (folder / "suite.yaml").write_text(yaml.safe_dump({"rows": of_rows, "engine": engine}))
    suite, workspace = load_suite(folder / "suite.yaml", {}, []), Workspace(cache)
    predictor = Predictor(workspace, Machine.at_hand(cache, program_bytes=_program_bytes()))
    found = predictor.of_plan(resolve(suite, folder, workspace))
    predictions = {one.planned.title: one for one in found if isinstance(one, Prediction)}
    predictor.keep()
    command = [sys.executable, "-m", "harness", "run", "--config", str(folder / "suite.yaml"), "--quiet"]
    command += ["--results", str(folder / "results"), "--cache", str(folder / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    records = {
        (record.strategy, json.dumps(record.config["training"])): record for record in Store(folder / "results").all()
    }
    return [
        _compared(title, prediction, records[prediction.planned.name, json.dumps(prediction.planned.used["training"])])
        for title, prediction in predictions.items()
    ]


def _compared(title: str, prediction: Prediction, record: Record) -> Compared:
    assert record.memory
    measured = {name: getattr(record.seconds, name) or 0.0 for name in prediction.seconds}
    return Compared(
        title,
        (prediction.total_seconds, record.seconds.total),
        (prediction.bytes.peak, record.memory.peak_bytes),
        {name: (prediction.seconds[name], measured[name]) for name in measured},
    )


def _program_bytes() -> float:
    """Of a process that has imported what a worker does."""
    code = "import harness.launch.worker, harness.measure.memory as m\n"
    code += "m.settle_memory(); print(m.anonymous_bytes())"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def line(one: Compared) -> str:
    times = f"{one.seconds[0]:.1f} | {one.seconds[1]:.1f} | {one.time_error:+.0%}"
    memory = f"{one.bytes[0] / 1e6:.0f} | {one.bytes[1] / 1e6:.0f} | {one.memory_error:+.0%}"
    steps = " | ".join(f"{predicted:.1f} / {measured:.1f}" for predicted, measured in one.phases.values())
    return f"| {one.name} | {times} | {memory} | {steps} |"


def summary(every: list[Compared]) -> str:
    times, memory = (np.abs([getattr(one, name) for one in every]) for name in ("time_error", "memory_error"))
    return (
        f"{len(every)} arrangements: time within 25% for {(times <= 0.25).mean():.0%}, within 50% for "
        f"{(times <= 0.5).mean():.0%}; memory within 15% for {(memory <= 0.15).mean():.0%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--only", choices=("mini", "gpt2"))
    given = parser.parse_args()
    every: list[Compared] = []
    lines = ["| run | s | was | | MB | was | | " + " | ".join(PHASES) + " |", "| --- " * (7 + len(PHASES)) + "|"]
    print("\n".join(lines))
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        texts = load_dataset(DataConfig(name="sms_spam"), base / "data").split["train"].iloc[:MESSAGES]
        texts.to_csv(base / "messages.csv", index=False)
        for number, rows in enumerate(suites(base, given.only)):
            folder = base / str(number)
            folder.mkdir()
            for one in compared(rows, folder, base / "calibrated"):
                every.append(one)
                lines.append(line(one))
                print(lines[-1], flush=True)
    lines += ["", summary(every), ""]
    print(lines[-2])
    write_atomically(given.results / "prediction.md", "\n".join(lines))


if __name__ == "__main__":
    main()
