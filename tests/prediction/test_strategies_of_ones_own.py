"""Third-party code that is walked through and rehearsed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.results.store import Store
from tests.support.strategies import long

HOOK = """
from harness import Strategy

def check(module, inputs, output):
    if bool(output.abs().max() > 1e9):
        raise ArithmeticError

def build(backbone):
    backbone.blocks[-1].register_forward_hook(check)

strategy = Strategy(build=build, trainable=("block.-1",))
"""


NORM = """
from harness import Strategy

def build(backbone):
    if backbone.blocks[0].mlp.expand.weight.is_meta:
        float(backbone.blocks[0].mlp.expand.weight.norm())

strategy = Strategy(build=build, trainable=("block.-1",))
"""

# 300 MB in a cycle, where it is walked through.
GARBAGE = """
from harness import Strategy

def build(backbone):
    if backbone.blocks[0].mlp.expand.weight.is_meta:
        garbage = [b"." * 300_000_000]
        garbage.append(garbage)

strategy = Strategy(build=build, trainable=("block.-1",))
"""


def _written(folder: Path, **sources: str) -> list[str]:
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    return [str(folder / f"{name}.py") for name in sources]


def test_a_run_whose_code_reads_values_is_a_row_without_figures(plan: Callable, tmp_path: Path) -> None:
    paths = _written(tmp_path, hook=HOOK, norm=NORM)
    code, out, _ = plan("--strategy", ",".join(["last_block", *paths]), "--device", "h100")
    assert code == 0
    rows = {line.split()[0]: "not predicted" in line for line in out.splitlines() if " ddp x 1 " in line}
    assert rows == {"last_block": False, "hook": True, "norm": True}
    assert "hook can't be predicted: DataDependentOutputException: " in out
    assert "norm can't be predicted: RuntimeError: Tensor.item() cannot be called on meta tensors. `ftbench" in out
    assert plan("--strategy", paths[0], "--device", "h100")[0] == 1, "nothing could be predicted"


def test_what_can_not_be_predicted_is_run(
    run_cli: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    monkeypatch.setattr("harness.api.bench.WORTH_A_PREDICTION", 0)
    (path,) = _written(tmp_path, hook=HOOK)
    options = ("--strategy", f"{path},head_only", "--epochs", "1", "--cache", str(tmp_path / "cache"))
    code, out, _ = run_cli("run", *options, "--model", "mini", "--data", "synthetic", "--set", "data.size=100")
    assert code == 0
    assert "hook can't be predicted: DataDependentOutputException" in out
    assert [record.status for record in store.all()] == ["ok", "ok"]


def test_a_run_is_not_measured_with_what_its_prediction_leaves(
    run_cli: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    monkeypatch.setattr("harness.api.bench.WORTH_A_PREDICTION", 0)
    (path,) = _written(tmp_path, garbage=GARBAGE)
    options = ("--strategy", path, "--seeds", "0,1", "--epochs", "1", "--cache", str(tmp_path / "cache"))
    assert run_cli("run", *options, "--model", "mini", "--data", "synthetic", "--set", "data.size=100")[0] == 0
    first, second = (record.memory.by_rank[0].at_start for record in store.all() if record.memory)
    assert abs(first - second) < 100e6


@pytest.mark.parametrize("others", [[], *long(["head_only"])])
def test_a_killed_rank_of_a_rehearsal_costs_a_row_and_no_more(
    plan: Callable, tmp_path: Path, others: list[str]
) -> None:
    """The code kills its process where it is done for real in a group."""
    source = """
import os, signal
from harness import Strategy

def kill(module, inputs, output):
    if "RANK" in os.environ and type(output).__name__ != "FakeTensor":
        os.kill(os.getpid(), signal.SIGKILL)

def build(backbone):
    backbone.blocks[-1].register_forward_hook(kill)

strategy = Strategy(build=build, trainable=("block.-1",))
"""
    (path,) = _written(tmp_path, killed=source)
    code, out, _ = plan("--strategy", ",".join([*others, path]), "--nproc", "2")
    assert code == (0 if others else 1)
    assert "killed can't be predicted: RuntimeError: rank " in out
    assert "of a rehearsal was killed by SIGKILL. `ftbench run` does it all the same." in out
    rows = {line.split()[0]: "not predicted" in line for line in out.splitlines() if " ddp x 2 " in line}
    assert rows == dict.fromkeys(others, False) | {"killed": True}


@pytest.mark.parametrize("ranks", ["1", *long("2")])
def test_what_is_tried_runs_on_as_many_threads_as_a_run(
    plan: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranks: str
) -> None:
    seen = tmp_path / "seen.txt"
    source = f"""
import torch
from harness import Strategy

def note(module, inputs, output):
    if type(output).__name__ != "FakeTensor":
        with open({str(seen)!r}, "a") as file:
            print(torch.get_num_threads(), file=file)

def build(backbone):
    backbone.blocks[-1].register_forward_hook(note)

strategy = Strategy(build=build, trainable=("block.-1",))
"""
    (path,) = _written(tmp_path, noting=source)
    for threads in ("3", "2"):  # each is measured
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        seen.unlink(missing_ok=True)
        assert plan("--strategy", path, "--nproc", ranks)[0] == 0
        assert set(seen.read_text().split()) == {threads}
