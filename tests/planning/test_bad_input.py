"""Wrong input as a user gives it: exit code 2, one clear message, no traceback, and no record written or lost."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.results.store import Store
from tests.support.runs import ROOT, assert_refused, command, records_below

LONG = pytest.mark.long
DEAD = "http://127.0.0.1:9"  # nobody listens: refused at once


# Names and values


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--strategy", "last_blok"], ["'last_blok'", "did you mean 'last_block'?", "head_only", ".py"]),
        (["--strategy", "head_only,lorra"], ["'lorra'", "did you mean 'lora'?"]),
        (["--strategy", "head_only,"], ["unknown strategy ''"]),
        (["--strategy", "nowhere/mine.py"], ["nowhere/mine.py", "does not exist"]),
        (["--strategy", "full,full"], ["'full'", "twice"]),
        (["--readout", "lst"], ["'lst'", "did you mean 'last'?", "'first', 'last' or 'mean'"]),
        (["--engine", "dpd"], ["engine.name", "'dpd'", "did you mean 'ddp'?"]),
        (["--zero", "2"], ["ZERO=2", "ENGINE=deepspeed"]),
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
        (["--strategy", "last_block", "--set", "adapter.rank=4"], ["'last_block'", "adapter.rank", "lora"]),
        (["--config", "nowhere.yaml"], ["'nowhere.yaml'", "can't be read"]),
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
    ("content", "parts"),
    [
        (None, ["can't be read"]),
        ("", ["names no machine"]),
        ("localhost", ["'localhost'", "HOST slots=NUMBER"]),
        ("no-such-host.invalid slots=2\nlocalhost slots=2", ["'no-such-host.invalid'", "unknown"]),
        ("localhost slots=2", ["names 1 machine", "NNODES=2"]),
        ("localhost slots=2\n127.0.0.1 slots=1  # the small one", ["'127.0.0.1' has 1 slots", "NPROC=2"]),
    ],
    ids=repr,
)
def test_an_unusable_hostfile(refused: Callable, tmp_path: Path, content: str | None, parts: list[str]) -> None:
    path = tmp_path / "hostfile"
    if content is not None:
        path.write_text(content)
    engine = ["--engine", "deepspeed", "--nproc", "2", "--nnodes", "2"]
    told = refused(*engine, "--hostfile", str(path))
    for part in [str(path), *parts]:
        assert part in told


def test_a_hostfile_without_ssh(refused: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    told = _refused_hostfile(refused, tmp_path, "localhost")
    for part in ("ssh and pdsh", "apt-get install", "RDZV"):
        assert part in told


@pytest.mark.skipif(not (shutil.which("ssh") and shutil.which("pdsh")), reason="needs ssh and pdsh: apt-get install")
def test_a_machine_of_a_hostfile_that_lets_nobody_in(refused: Callable, tmp_path: Path) -> None:
    told = _refused_hostfile(refused, tmp_path, "192.0.2.1")  # an address that is nobody's (RFC 5737)
    for part in ("can't log in to '192.0.2.1' by ssh", "ssh -oBatchMode=yes 192.0.2.1 true", "RDZV"):
        assert part in told


def _refused_hostfile(refused: Callable, folder: Path, host: str) -> str:
    (folder / "hostfile").write_text(f"{host} slots=1")
    return refused("--engine", "deepspeed", "--hostfile", str(folder / "hostfile"))


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"model": "gpt2-mediun"}, ["'gpt2-mediun'", "did you mean 'gpt2-medium'?"]),
        ({"model": "bert"}, ["'bert'", "'gpt2-xl'"]),
        ({"data": "sms-spam"}, ["'sms-spam'", "sms_spam", ".csv"]),
        ({"data": "texts.xlsx"}, ["'texts.xlsx'", ".csv, .tsv, .jsonl"]),
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


# What is published but can't be had


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request goes to a proxy that nobody runs."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, DEAD)
        monkeypatch.setenv(name.lower(), DEAD)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)


# Machines that meet


def _machines(folder: Path, *each: list[str]) -> list[str]:
    """What each of several commands, which take themselves for machines of one group, says when it is refused."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        meeting = f"127.0.0.1:{probe.getsockname()[1]}"
    same = ["run", "--model", "mini", "--data", "synthetic", "--epochs", "0", "--rdzv", meeting]
    same += ["--set", "data.size=50 engine.timeout_seconds=60"]
    lines = [command(folder, *same, *options) for options in each]
    started = [subprocess.Popen(line, cwd=ROOT, stdout=-1, stderr=-1, text=True) for line in lines]
    said = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [2] * len(each), said
    assert records_below(folder) == {}
    assert not any("Traceback" in told for told in said)
    return said


@pytest.mark.parametrize(
    ("first", "second", "part"),
    [
        pytest.param(["--nnodes", "2"], ["--nnodes", "2", "--node-rank", "1", "--nproc", "2"], "NPROC=", marks=LONG),
        (["--nnodes", "2"], ["--nnodes", "3", "--node-rank", "2"], "NNODES="),
        pytest.param(["--nnodes", "2"], ["--nnodes", "2", "--node-rank", "1", "--seeds", "1"], "runs=", marks=LONG),
    ],
)
def test_machines_that_were_asked_for_different_things(
    tmp_path: Path, first: list[str], second: list[str], part: str
) -> None:
    for told in _machines(tmp_path, first, second):
        assert "can't work together" in told
        assert part in told


@LONG
def test_machines_with_the_same_number_and_one_that_does_not_come(tmp_path: Path) -> None:
    *twins, first = _machines(
        tmp_path, *[["--nnodes", "3", "--node-rank", "1"]] * 2, ["--nnodes", "3", "--node-rank", "0"]
    )
    assert all("two machines have NODE_RANK=1" in told for told in [*twins, first])
    (alone,) = _machines(tmp_path, ["--nnodes", "2", "--set", "engine.timeout_seconds=1"])
    assert "no word from the machine(s) with NODE_RANK=1" in alone
    (lost,) = _machines(tmp_path, ["--nnodes", "2", "--node-rank", "1", "--set", "engine.timeout_seconds=1"])
    assert "nobody answers there" in lost


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"data": "sms_spam"}, ["DATA=sms_spam", "SMS Spam Collection", "DATA=synthetic", "FTBENCH_ASSETS"]),
        ({"model": "gpt2"}, ["MODEL=gpt2", "vocabulary", "MODEL=mini", "FTBENCH_ASSETS"]),
    ],
    ids=str,
)
def test_what_is_named_but_out_of_reach(refused: Callable, monkeypatch, options: dict, parts: list[str]) -> None:
    monkeypatch.delenv("FTBENCH_ASSETS", raising=False)
    told = refused(**options)
    for part in parts:
        assert part in told


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("weights", ["auto", "pretrained"])
def test_auto_takes_what_is_embedded_and_says_why(run_cli: Callable, monkeypatch, tmp_path: Path, weights: str) -> None:
    monkeypatch.delenv("FTBENCH_ASSETS", raising=False)
    options = ["--weights", weights, "--set", "data.size=50", "--strategy", "head_only", "--epochs", "0"]
    code, out, told = run_cli("run", *options, "--cache", str(tmp_path / "cache"))
    assert (code, told) == (0, "")
    first_lines = out.partition("[1/1]")[0]
    assert "mini  (auto: GPT-2's vocabulary" in first_lines
    assert "synthetic  (auto: the SMS Spam Collection can't be downloaded" in first_lines
    (record,) = Store(tmp_path / "results").all()
    assert record.choices["data"].startswith("auto: the SMS Spam Collection")
    assert record.choices["model"].startswith("auto: GPT-2's vocabulary")
    assert record.model.weights == "pretrained"


@pytest.mark.parametrize(
    "environment", [{"HF_ENDPOINT": DEAD}, {"HF_HUB_OFFLINE": "1"}], ids=["unreachable", "offline"]
)
def test_pretrained_weights_out_of_reach_are_told_soon(
    assets: Path, ftbench: Callable, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    if (assets / "models" / "gpt2").exists():
        pytest.skip("the pretrained weights are at hand")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    started = time.monotonic()
    done = ftbench("run", "--model", "gpt2", "--weights", "pretrained", "--data", "synthetic")
    assert time.monotonic() - started < 20
    assert_refused(done.returncode, done.stdout, done.stderr)
    for part in ("WEIGHTS=pretrained", "gpt2", "hub could not be reached", "WEIGHTS=random", "FTBENCH_ASSETS"):
        assert part in done.stderr


@pytest.mark.parametrize("name", ["absent", "a_file"])
def test_assets_that_are_no_folder(refused: Callable, monkeypatch, tmp_path: Path, name: str) -> None:
    (tmp_path / "a_file").write_text("")
    monkeypatch.setenv("FTBENCH_ASSETS", str(tmp_path / name))
    told = refused()
    assert "FTBENCH_ASSETS=" in told
    assert str(tmp_path / name) in told
    assert "unset it" in told


def test_a_damaged_copy_of_a_published_file(refused: Callable, monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "sms_spam").mkdir()
    (tmp_path / "sms_spam" / "SMSSpamCollection").write_text("ham\thello\n")
    monkeypatch.setenv("FTBENCH_ASSETS", str(tmp_path))
    told = refused(data="sms_spam")
    assert "sha256" in told
    assert "replace or delete it" in told


# Results


@pytest.mark.parametrize("below", ["results", "results/deeper"])
def test_a_results_folder_that_cannot_be_written(refused: Callable, tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("mine")
    told = refused(results=tmp_path / "file" / below)
    assert str(tmp_path / "file" / below) in told
    assert "RESULTS" in told
    assert (tmp_path / "file").read_text() == "mine"


DAMAGED = pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema_version": 1}', b"\xff\xfe"], ids=repr)


@DAMAGED
def test_a_record_that_cannot_be_read_is_named_left_out_and_kept(
    run_cli: Callable, run_here, tmp_path, content
) -> None:
    run_here(strategy=["majority"])
    damaged = tmp_path / "results" / "runs" / "some-run" / "record.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(content)
    code, out, _ = run_cli("table")
    assert code == 0
    assert "majority" in out
    assert str(damaged) in out.replace("\n", "")
    assert "move the folder away" in (tmp_path / "results" / "table.md").read_text()
    assert damaged.read_bytes() == content


@DAMAGED
def test_nothing_but_a_record_that_cannot_be_read(run_cli: Callable, tmp_path: Path, content: bytes) -> None:
    damaged = tmp_path / "results" / "runs" / "some-run" / "record.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(content)
    code, out, told = run_cli("table")
    assert_refused(code, out, told)
    assert "none of the 1 record(s)" in told
    assert str(damaged) in told


def test_a_table_of_nothing(run_cli: Callable, tmp_path: Path) -> None:
    code, out, told = run_cli("table")
    assert_refused(code, out, told)
    assert "make bench" in told
    assert not (tmp_path / "results" / "table.md").exists()
