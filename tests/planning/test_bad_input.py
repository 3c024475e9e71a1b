"""Wrong input as a user gives it: exit code 2, one clear message, no traceback, and no record written or lost."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.runs import assert_refused, records_below


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--strategy", "last_blok"], ["'last_blok'", "did you mean 'last_block'?", "head_only", ".py"]),
        (["--strategy", "head_only,lorra"], ["'lorra'", "did you mean 'lora'?"]),
        (["--strategy", "head_only,"], ["unknown strategy ''"]),
        (["--strategy", "nowhere/mine.py"], ["nowhere/mine.py", "does not exist"]),
        (["--strategy", "full,full"], ["'full'", "twice"]),
        (["--readout", "lst"], ["'lst'", "did you mean 'last'?", "'first', 'last', 'mean', 'max' or 'attention'"]),
        (["--engine", "dpd"], ["engine.name", "'dpd'", "did you mean 'ddp'?"]),
        (["--zero", "2"], ["ZERO=2", "ENGINE=deepspeed"]),
        (["--engine", "fsdp", "--zero", "3"], ["ZERO=3", "fsdp has no stages", "ENGINE=deepspeed"]),
        (["--engine", "fspd"], ["engine.name", "'fspd'", "did you mean 'fsdp'?"]),
        (["--engine", "fsdp", "--set", "engine.offload_optimizer=true"], ["fsdp can't", "ENGINE=deepspeed"]),
        (["--set", "engine.shard_frozen=true"], ["engine.shard_frozen", "ddp can't", "ENGINE=fsdp"]),
        (["--engine", "deepspeed", "--zero", "4"], ["engine.zero_stage", "4", "less than or equal to 3"]),
        (["--set", "engine.offload_optimizer=true"], ["engine.offload_optimizer", "ENGINE=deepspeed"]),
        (["--engine", "deepspeed", "--zero", "0", "--set", "engine.offload_optimizer=true"], ["ZERO=0", "ZERO=1"]),
        (["--engine", "deepspeed", "--precision", "fp64"], ["PRECISION=fp64", "ENGINE=ddp", "PRECISION=fp32"]),
        (["--nnodes", "2"], ["NNODES=2", "RDZV=HOST:PORT"]),
        (["--nnodes", "2", "--nproc", "5"], ["NNODES=2 x NPROC=5", "at most 8"]),
        (["--rdzv", "localhost:29400"], ["RDZV=localhost:29400", "NNODES"]),
        (["--node-rank", "1"], ["NODE_RANK=1", "NNODES"]),
        (["--nnodes", "2", "--node-rank", "2", "--rdzv", "localhost:1"], ["NODE_RANK=2", "0 to 1"]),
        (["--nnodes", "2", "--rdzv", "localhost"], ["RDZV='localhost'", "10.0.0.1:29400"]),
        (["--nnodes", "2", "--rdzv", "no-such-host.invalid:29400"], ["'no-such-host.invalid'", "unknown"]),
        (["--nnodes", "2", "--hostfile", "nowhere"], ["HOSTFILE=nowhere", "ENGINE=deepspeed"]),
        (["--engine", "fsdp", "--nproc", "9"], ["NPROC=9", "8", "training.batch_size"]),
        (["--precision", "fp16"], ["precision", "'fp16'", "fp32"]),
        (["--seeds", "0;1"], ["'0;1'", "0,1,2"]),
        (["--seeds", "3,3"], ["3", "twice"]),
        (["--epochs", "-1"], ["training.epochs", "-1", "greater than or equal to 0"]),
        (["--nproc", "0"], ["engine.processes", "0", "greater than or equal to 1"]),
        (["--nproc", "9"], ["NPROC=9", "8", "training.batch_size"]),
        (["--nproc", "3", "--set", "training.batch_size=2"], ["NPROC=3", "at most 2"]),
        (["--set", "optimizer.learning_rat=1e-3"], ["'optimizer.learning_rat'", "'optimizer.learning_rate'"]),
        (["--set", "training.epochs"], ["'training.epochs'", "key=value"]),
        (["--set", "optimizer.learning_rate=fast"], ["optimizer.learning_rate", "'fast'", "number"]),
        (["--set", "optimizer.learning_rate=inf"], ["optimizer.learning_rate", "inf", "finite"]),
        (["--set", "pad_to=300"], ["pad_to=300", "mini", "256"]),
        (["--set", "pad_to=0"], ["pad_to", "0", "'longest'"]),
        (["--set", "data.split_seed=99999999999"], ["data.split_seed", "99999999999"]),
        (["--set", "data.size=3"], ["data.size", "3", "greater than or equal to 10"]),
        (["--set", "data.size=20 training.batch_size=15"], ["training.batch_size=15", "14", "drop_last"]),
        (["--set", "optimizer.schedule=cosin"], ["'cosin'", "did you mean 'cosine'?"]),
        (["--set", "optimizer.warmup=100"], ["optimizer.warmup", "100", "less than 1"]),
        (["--set", "data.size=20 optimizer.warmup=0.9"], ["optimizer.warmup=0.9", "all of the 5 training steps"]),
        (["--set", "training.patience=5"], ["training.patience=5", "5 epochs", "more epochs"]),
        (["--set", "training.patience=0"], ["training.patience", "0", "greater than or equal to 1"]),
        (["--set", "training.keep=bst"], ["'bst'", "did you mean 'best'?"]),
        (["--set", "training.validation_metric=mcc"], ["training.validation_metric=mcc", "training.keep=best"]),
        (["--set", "training.dropout=1"], ["training.dropout", "less than 1"]),
        (["--set", "training.label_smoothing=-0.1"], ["training.label_smoothing", "greater than or equal to 0"]),
        (["--strategy", "last_block", "--set", "adapter.rank=4"], ["'last_block'", "adapter.rank", "lora"]),
        (["--config", "nowhere.yaml"], ["'nowhere.yaml'", "does not exist", "textbook"]),
        (["--weights", "pretraned"], ["'pretraned'", "does not exist", "pretrained", ".safetensors"]),
    ],
    ids=" ".join,
)
def test_a_wrong_value_is_named_with_a_remedy(refused: Callable, arguments: list[str], parts: list[str]) -> None:
    told = refused(*arguments)
    for part in parts:
        assert part in told


def test_deepspeed_that_is_not_installed(refused: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "deepspeed" else installed(name))
    assert "pip install 'ftbench[deepspeed]'" in refused("--engine", "deepspeed")


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"model": "gpt2-mediun"}, ["'gpt2-mediun'", "did you mean 'gpt2-medium'?"]),
        ({"model": "bert"}, ["'bert'", "'gpt2-xl'"]),
        ({"data": "sms-spam"}, ["'sms-spam'", "sms_spam", ".csv"]),
        ({"data": "texts.xlsx"}, ["'texts.xlsx'", ".csv, .tsv, .txt, .jsonl"]),
        ({"data": "nowhere.csv"}, ["'nowhere.csv'", "does not exist", "path"]),
    ],
    ids=str,
)
def test_a_wrong_model_or_data_set_is_named(refused: Callable, options: dict, parts: list[str]) -> None:
    told = refused(**options)
    for part in parts:
        assert part in told


@pytest.mark.parametrize("arguments", [["run", "--nope"], ["run", "--nproc", "two"], ["tabel"], ["table", "extra"]])
def test_wrong_usage(run_cli: Callable, arguments: list[str]) -> None:
    code, _, told = run_cli(*arguments)
    assert code == 2
    assert arguments[-1] in told or arguments[-2] in told
    assert "Traceback" not in told


def test_a_strategy_that_trains_what_is_not_there(refused: Callable, tmp_path: Path) -> None:
    path = tmp_path / "high.py"
    path.write_text("from harness import Strategy\nstrategy = Strategy(trainable=('block.11',))\n")
    told = refused("--strategy", str(path))
    assert "'block.11'" in told
    assert "from -4 to 3" in told


def test_a_broken_strategy_file(refused: Callable, tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("raise OSError('disc on fire')")
    told = refused("--strategy", f"head_only,{path}")
    assert str(path) in told
    assert "OSError: disc on fire" in told


def test_the_command_in_a_process_of_its_own(ftbench: Callable, tmp_path: Path) -> None:
    done = ftbench("run", "--strategy", "last_blok", "--model", "mini", "--data", "synthetic")
    assert_refused(done.returncode, done.stdout, done.stderr)
    assert "did you mean 'last_block'?" in done.stderr
    assert records_below(tmp_path) == {}
