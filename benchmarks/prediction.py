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

import numpy as np
import yaml

from harness.config.schema import DataConfig
from harness.config.suite import load_suite
from harness.data.dataset import load_dataset
from harness.planning.plan import resolve
from harness.planning.workspace import Workspace
from harness.prediction.machine import Machine
from harness.prediction.predict import Prediction, Predictor
from harness.results.record import Record
from harness.results.store import Store

STRATEGIES = ("head_only", "last_block", "mean_pool", "last_padded", "lora", "prompt_tuning", "full")
SHARED = ("last_block", "full")
ENGINES = (
    {"name": "ddp"},
    *({"name": "deepspeed", "zero_stage": stage} for stage in range(4)),
    {"name": "fsdp"},
)
# Of the SMS Spam Collection, for GPT-2 124M: an epoch of `full` takes seconds, not minutes.
MESSAGES = 120


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


def suites(folder: Path, only: str | None) -> Iterator[tuple[str, list[dict[str, object]]]]:
    """Rows that one group of workers does."""
    for model in ("mini", "gpt2"):
        if only in (None, model):
            common = _of_model(model, folder)
            yield (
                f"{model} alone",
                [
                    {"name": f"{model} {name} batch {batch}", "strategy": name, **_with(common, batch)}
                    for name in STRATEGIES
                    for batch in (8, 32)
                ],
            )
            precision = "fp64" if model == "mini" else "bf16"
            yield (
                f"{model} {precision}",
                [
                    {"name": f"{model} {name} {precision}", "strategy": name, **common, "precision": precision}
                    for name in ("head_only", "last_block", "full")
                ],
            )
            for engine in ENGINES:
                of_engine = {**engine, "processes": 2}
                label = " ".join(map(str, engine.values()))
                yield (
                    f"{model} {label}",
                    [
                        {"name": f"{model} {name} {label} x 2", "strategy": name, **common, "engine": of_engine}
                        for name in SHARED
                    ],
                )
    ...


def _of_model(model: str, folder: Path) -> dict[str, object]:
    data: dict[str, object] = {"name": "synthetic", "size": 600}
    if model == "gpt2":
        data = {"name": str(folder / "messages.csv")}
    epochs = 3 if model == "mini" else 2
    return {
        "model": {"name": model, "weights": "random"},
        "data": data,
        "precision": "fp32",
        "training": {"epochs": epochs},
    }


def _with(common: dict[str, object], batch: int) -> dict[str, object]:
    return {**common, "training": {**common["training"], "batch_size": batch}}


def compared(rows: list[dict[str, object]], folder: Path, cache: Path) -> list[Compared]:
    """Predict, then run, in a process of its own with an empty store of features."""
    engine = rows[0].pop("engine", {})
    of_rows = [{key: value for key, value in row.items() if key != "engine"} for row in rows]
    (folder / "suite.yaml").write_text(yaml.safe_dump({"rows": of_rows, "engine": engine}))
    suite, workspace = load_suite(folder / "suite.yaml", {}, []), Workspace(cache)
    predictor = Predictor(workspace, Machine.at_hand(cache, program_bytes=_program_bytes()))
    predictions = {one.planned.title: one for one in predictor.of_plan(resolve(suite, folder, workspace))}
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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--only", choices=("mini", "gpt2"))
    given = parser.parse_args()
    every: list[Compared] = []
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        texts = load_dataset(DataConfig(name="sms_spam"), base / "data").split["train"].iloc[:MESSAGES]
        texts.to_csv(base / "messages.csv", index=False)
        for number, (_, rows) in enumerate(suites(base, given.only)):
            folder = base / str(number)
            folder.mkdir()
            for one in compared(rows, folder, base / "calibrated"):
                every.append(one)
                phases = "  ".join(f"{name} {a:.2f}/{b:.2f}" for name, (a, b) in one.phases.items())
                print(
                    f"{one.name:40} {one.seconds[0]:7.2f} / {one.seconds[1]:7.2f} s {one.time_error:+5.0%}   "
                    f"{one.bytes[0] / 1e6:6.0f} / {one.bytes[1] / 1e6:6.0f} MB {one.memory_error:+5.0%}   {phases}",
                    flush=True,
                )
    times = np.abs([one.time_error for one in every])
    memory = np.abs([one.memory_error for one in every])
    print(
        f"{len(every)} arrangements: time within 25% for {(times <= 0.25).mean():.0%}, within 50% for "
        f"{(times <= 0.5).mean():.0%}; memory within 15% for {(memory <= 0.15).mean():.0%}"
    )


if __name__ == "__main__":
    main()
