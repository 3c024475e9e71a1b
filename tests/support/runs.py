"""Runs of the command, and what they leave."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import psutil

from harness.config.schema import DataConfig
from harness.data.dataset import load_dataset
from harness.data.tokenizer import load_tokenizer
from harness.results.record import Record

ROOT = Path(__file__).parents[2]


def command(folder: Path, *arguments: str) -> list[str]:
    options = ["--results", str(folder / "results"), "--cache", str(folder / "cache")]
    return [sys.executable, "-m", "harness", *arguments, *options]


def losses_of(folder: Path, record: Record) -> list[float]:
    return curve_of(folder, record)["loss"].tolist()


def exchanged_parameters(record: Record) -> int:
    """Whose gradients ranks exchange: all trained ones of mini, but the 128 of each token that does not occur."""
    if record.strategy != "full":
        return record.model.trainable_parameters
    parts = load_dataset(DataConfig(name="synthetic", size=record.config["data"]["size"]), Path()).split.values()
    tokenizer = load_tokenizer("mini", Path(), None)
    rows = (ids for part in parts for ids in tokenizer.encode_ordinary_batch(part["text"].tolist()))
    occurring = {0}.union(*rows)
    return record.model.trainable_parameters - 128 * (640 - len(occurring))


def curve_of(folder: Path, record: Record) -> pd.DataFrame:
    """step, loss and accuracy of each training step."""
    return pd.read_csv(folder / "runs" / record.run_id / "losses.csv")


def predicted_by(folder: Path, record: Record) -> list[str]:
    return pd.read_csv(folder / "runs" / record.run_id / "predictions.csv")["predicted"].tolist()


def records_below(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("record.json")}


def assert_refused(code: int, out: str, told: str) -> None:
    assert code == 2
    assert told.startswith("Error: ")
    assert told.count("\n") == 1, "one message, on one line"
    assert "Traceback" not in out + told
    assert out == "", "nothing is announced that will not run"


def workers_of(process: subprocess.Popen) -> list[psutil.Process]:
    """The ranks below a command that runs several."""
    return [child for child in psutil.Process(process.pid).children(recursive=True) if _is_worker(child)]


def _is_worker(process: psutil.Process) -> bool:
    try:
        arguments = process.cmdline()
    except psutil.NoSuchProcess:  # ended while it was looked at
        return False
    return "harness.launch.worker" in arguments and "torch.distributed.run" not in arguments
