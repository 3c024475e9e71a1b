"""Runs of the command, and what they leave."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import psutil
import pytest
from rich.console import Console

from harness import cli, commands
from harness.config.schema import DataConfig
from harness.config.suite import load_suite
from harness.data.dataset import load_dataset
from harness.data.tokenizer import load_tokenizer
from harness.results.record import Record
from harness.results.store import Store

ROOT = Path(__file__).parents[2]
# Options of a run, and a baseline, that take little beyond what starting takes.
SMALL_RUN = ["--model=mini", "--data=synthetic", "--set=data.size=100", "--strategy=last_block,majority", "--epochs=1"]


def find_assets() -> Path | None:
    """The mirror of GPT-2's vocabulary and the SMS Spam Collection."""
    for folder in (os.environ.get("FTBENCH_ASSETS"), ROOT.parent / "shared" / "assets"):
        if folder and (Path(folder) / "tiktoken").is_dir():
            return Path(folder)
    return None


def command(folder: Path, *arguments: str) -> list[str]:
    """The command line, with results and cache below the folder."""
    return [sys.executable, "-m", "harness", *arguments, *_folders(folder)]


def run_command(folder: Path, *arguments: str, exit_code: int = 0) -> None:
    """The same in this process, which must end as said."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["ftbench", *arguments, *_folders(folder)])
        with pytest.raises(SystemExit) as exited:
            cli.main()
    assert (exited.value.code or 0) == exit_code


def _folders(folder: Path) -> list[str]:
    return ["--results", str(folder / "results"), "--cache", str(folder / "cache")]


def losses_of(folder: Path, record: Record) -> list[float]:
    return curve_of(folder, record)["loss"].tolist()


def exchanged_parameters(record: Record) -> int:
    """Whose gradients ranks exchange: all trained ones of mini, but the 128 of each token that does not occur."""
    if record.strategy not in ("full", "probe_then_full", "layer_decay"):
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


def untrained_run(folder: Path) -> tuple[Record, pd.DataFrame]:
    """A record and its predictions, from which tests of tables make those that they need."""
    options = {"model.name": "mini", "data.name": "synthetic", "data.size": 400, "training.epochs": 0}
    store = Store(folder / "results")
    suite = load_suite(None, {**options, "strategy": "head_only"}, [])
    commands.run_suite(Console(quiet=True), suite, store.results, folder / "cache", force=False)
    (record,) = store.all()
    predictions = store.predictions(record.run_id)
    assert predictions is not None
    return record, predictions
