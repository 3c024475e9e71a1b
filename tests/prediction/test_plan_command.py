"""`ftbench plan`: what a person sees, and what is refused."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.config.suite import load_suite
from harness.planning.plan import PlannedRun, resolve
from harness.planning.workspace import Workspace
from harness.prediction.arrangements import advise
from harness.prediction.devices import device_named
from harness.prediction.predict import Predictor
from harness.prediction.prediction import Prediction
from harness.prediction.work.walker import RunWalker
from harness.results.store import Store
from tests.support.hub_models import save_small, write_texts
from tests.support.runs import ROOT, command
from tests.support.strategies import long

SMALL = ("--model", "mini", "--data", "synthetic", "--set", "data.size=100")


@pytest.fixture
def plan(run_cli: Callable, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    return lambda *arguments: run_cli("plan", *SMALL, *arguments, "--cache", str(tmp_path / "cache"))


def test_it_shows_each_strategy_and_trains_nothing(plan: Callable, tmp_path: Path) -> None:
    code, out, _ = plan("--strategy", "last_block,majority", "--seeds", "0,1")
    assert code == 0
    (row,) = [line.split() for line in out.splitlines() if line.strip().startswith("last_block")]
    assert row[1:6] == ["2", "ddp", "x", "1", "198,786"]
    assert "1 baseline(s) are not predicted" in out
    assert not (tmp_path / "results").exists()


def _rows(out: str) -> list[list[str]]:
    """The words of each, but for the memory of a rank, which counts what this process holds."""
    rows = [line.split() for line in out.splitlines() if line.strip().startswith(("last_block", "head_only"))]
    assert len(rows) >= 2
    assert all(row[7] == "GB" for row in rows)
    return [[*row[:6], *row[8:]] for row in rows]


OPTIONS = ("--strategy", "last_block,head_only", "--seeds", "0,1")


def test_the_second_answer_is_the_first_and_walks_through_nothing(
    plan: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (*OPTIONS, "--device", "h100")
    first = _rows(plan(*options)[1])
    monkeypatch.setattr(RunWalker, "work", lambda *_: pytest.fail("walked again"))
    assert _rows(plan(*options)[1]) == first


def test_what_was_timed_is_kept_and_timed_again_where_it_is_gone(
    plan: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = _rows(plan(*OPTIONS)[1])
    (times,) = (tmp_path / "cache" / "calibration").glob("*.json")
    before = json.loads(times.read_text())
    with monkeypatch.context() as patch:
        patch.setattr(RunWalker, "work", lambda *_: pytest.fail("walked again"))
        assert _rows(plan(*OPTIONS)[1]) == first
    assert json.loads(times.read_text()) == before
    times.unlink()
    code, _, _ = plan(*OPTIONS)
    assert (code, times.exists()) == (0, True)


def _predicted(predictor: Predictor, planned: PlannedRun) -> Prediction:
    one = predictor.of_run(planned)
    assert isinstance(one, Prediction)
    return one


@pytest.fixture
def full(tmp_path: Path) -> Callable[..., PlannedRun]:
    """A planned run of all of mini, with options as dotted keys."""
    given = {"strategy": "full", "model.name": "mini", "data.name": "synthetic", "data.size": 100}

    def planned(**options: object) -> PlannedRun:
        dotted = given | {key.replace("__", "."): value for key, value in options.items()}
        (run,) = resolve(load_suite(None, dotted, []), tmp_path, Workspace(tmp_path / "cache"), hosts=None).runs
        return run

    return planned


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


def test_arrangements_of_one_run_are_told_apart(tmp_path: Path, full: Callable) -> None:
    predictor = Predictor(Workspace(tmp_path / "cache"), device_named("h100"))
    saving = _predicted(predictor, full(training__gradient_checkpointing=True))
    assert saving.bytes.activations < _predicted(predictor, full()).bytes.activations


def test_every_gpu_costs_and_of_a_machine_without_them_the_machine(tmp_path: Path, full: Callable) -> None:
    run, workspace = full(engine__processes=4, engine__nodes=2), Workspace(tmp_path / "cache")
    for device, devices in ((device_named("h100"), 8), (device_named("h100").model_copy(update={"kind": "cpu"}), 2)):
        one = _predicted(Predictor(workspace, device), run)
        assert one.device_seconds == pytest.approx(one.total_seconds * devices)
        assert one.cost(2.5) == pytest.approx(2.5 * one.total_seconds / 3600 * devices)


def test_ranks_of_one_machine_that_are_faster_together_are_left_alone(tmp_path: Path, full: Callable) -> None:
    """The machine is paid for, not its ranks."""
    workspace, cores = Workspace(tmp_path / "cache"), device_named("h100").model_copy(update={"kind": "cpu"})
    predictor = Predictor(workspace, cores)
    alone = _predicted(predictor, full()).total_seconds
    asked = replace(_predicted(predictor, full(engine__processes=2)), seconds={"train": alone / 1.5})
    assert advise(predictor, asked) is None


def test_a_device_that_is_not_at_hand(plan: Callable) -> None:
    code, out, _ = plan("--strategy", "full", "--device", "h200", "--nproc", "4")
    assert code == 0
    assert "NVIDIA H200" in out
    assert "150.00 GB" in out
    assert "full: costs least with ENGINE=ddp NPROC=1" in out


def test_machines_and_gpus_that_are_not_there_are_planned(plan: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    code, out, _ = plan("--strategy", "full", "--device", "h100", "--nproc", "4", "--nnodes", "2")
    assert code == 0
    assert " ddp x 8 " in out


def test_several_machines_like_this_one(plan: Callable) -> None:
    code, out, _ = plan("--strategy", "head_only", "--nnodes", "2")
    assert code == 0
    assert " ddp x 2 " in out


def test_jobs_change_nothing_and_that_is_said(plan: Callable) -> None:
    code, out, _ = plan("--strategy", "head_only", "--device", "h100", "--jobs", "2")
    assert code == 0
    assert "JOBS=2 is not considered" in out


def test_precision_is_chosen_by_the_device(plan: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", dict)
    model = f"hf:{save_small(tmp_path / 'llama', 'llama')}"
    texts = str(write_texts(tmp_path / "texts.csv", shortest=2, longest=9))
    options = ("--strategy", "head_only", "--model", model, "--data", texts)
    for device, chosen in (("--device=h100", "bf16  (auto: NVIDIA H100 80GB HBM3 has it)"), ("", "fp32  (auto: ")):
        code, out, _ = plan(*options, *filter(None, [device]))
        assert code == 0
        assert f"precision  {chosen}" in out


def test_costs_are_shown_where_a_price_is_given(plan: Callable) -> None:
    options = ("--strategy", "full", "--device", "h100", "--nproc", "2")
    without, cheap, dear = (plan(*options, *price)[1] for price in ([], ["--price=3600/h"], ["--price=7200/h"]))
    titles = [next(line for line in out.splitlines() if "strategy" in line).split() for out in (without, cheap)]
    assert titles[1] == [*titles[0], "cost"]
    costs = []
    for out in (cheap, dear):
        (row,) = [line.split() for line in out.splitlines() if line.strip().startswith("full ")]
        costs.append(float(row[-1]))
    assert 0 < costs[0] == pytest.approx(costs[1] / 2, rel=0.01)


def test_shared_frozen_parameters_are_advised_where_nothing_else_fits(tmp_path: Path, full: Callable) -> None:
    workspace, h100 = Workspace(tmp_path / "cache"), device_named("h100")
    options = {"strategy": "lora", "training__batch_size": 2}
    fsdp = {"engine__name": "fsdp", "engine__processes": 2, "engine__shard_frozen": True}
    least = _predicted(Predictor(workspace, h100), full(**options, **fsdp)).bytes.peak
    predictor = Predictor(workspace, h100.model_copy(update={"memory_bytes": least}))
    advice = advise(predictor, _predicted(predictor, full(**options)))
    what = 'ENGINE=fsdp NPROC=2 SET="engine.shard_frozen=true"'
    assert advice is not None
    assert advice.startswith(f"does not fit; the cheapest that does is {what}: ")


def test_another_arrangement_of_a_run_finds_the_features_that_the_run_finds(tmp_path: Path) -> None:
    given = {"strategy": ["head_only", "last_block"], "seed": [0, 1], "model.name": "mini", "data.name": "synthetic"}
    workspace = Workspace(tmp_path / "cache")
    plan = resolve(load_suite(None, given | {"data.size": 100}, []), tmp_path, workspace)
    for _ in ("walked", "kept"):
        predictor = Predictor(workspace, device_named("h100"))
        asked = [one for one in predictor.of_plan(plan) if isinstance(one, Prediction)]
        assert [bool(one.seconds["features"]) for one in asked] == [True, False, True, False]
        for one in asked:
            again = _predicted(predictor, one.planned)
            assert (again.seconds, again.bytes) == (one.seconds, one.bytes)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--device", "h10"], ["DEVICE='h10'", "h100, h200", "did you mean 'h100'?"]),
        (["--device", "h200", "--precision", "fp64"], ["PRECISION=fp64", "bf16 or fp32"]),
        (["--nproc", "9"], ["NPROC=9", "at most 8"]),
        (["--jobs", "banana"], ["JOBS='banana'", "expected a whole number from 1, or auto"]),
        (["--jobs", "2", "--nproc", "2"], ["JOBS=2 with runs on several ranks"]),
        (["--strategy", "last_blok"], ["did you mean 'last_block'?"]),
    ],
)
def test_wrong_input(plan: Callable, arguments: list[str], parts: list[str]) -> None:
    code, _, told = plan(*arguments)
    assert code == 2
    assert "Traceback" not in told
    assert all(part in told for part in parts), told


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
    code, out, _ = run_cli("run", *options, *SMALL)
    assert code == 0
    assert "hook can't be predicted: DataDependentOutputException" in out
    assert [record.status for record in store.all()] == ["ok", "ok"]


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


def test_baselines_alone_leave_nothing_to_predict(plan: Callable) -> None:
    code, out, _ = plan("--strategy", "majority,tfidf")
    assert code == 0
    assert "2 baseline(s) are not predicted" in out
    assert "In all" not in out


def _names(out: str) -> list[str]:
    """Of the rows of the table."""
    return [
        line.partition(" ddp ")[0].rstrip().removesuffix(" 2").strip()
        for line in out.splitlines()
        if " ddp x 1 " in line
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--sizes", "32,all"], ["head_only (32 texts)", "head_only (all texts)"]),
        (["--layers", "0,3"], ["head_only (layer 0)", "head_only (layer 3)"]),
        (["--data", "negation,synthetic"], ["head_only (negation)", "head_only (synthetic)"]),
        (["--readout", "first"], ["head_only (first)"]),
    ],
)
def test_runs_that_differ_in_more_than_their_seed_have_rows_of_their_own(
    plan: Callable, options: list[str], expected: list[str]
) -> None:
    _, out, _ = plan("--strategy", "head_only", "--seeds", "0,1", "--device", "h100", *options)
    assert sorted(_names(out)) == expected


@pytest.mark.long
@pytest.mark.parametrize("limit", [1_200_000_000, 6_000_000_000])
@pytest.mark.parametrize(
    ("strategy", "batch"),
    [("full", 8), ("full", 32), ("layer_decay", 8), ("lora", 64), ("dora", 32), ("layer_decay", 32)],
)
def test_what_does_not_fit_is_foretold(assets: Path, tmp_path: Path, strategy: str, batch: int, limit: int) -> None:
    """Under the system's limit on the memory of a process: the prediction's verdict is what becomes of the run."""
    options = ["--strategy", strategy, "--model", "gpt2", "--weights", "random", "--data", "synthetic", "--epochs", "1"]
    options += ["--precision", "fp32", "--set", f"data.size=100 training.batch_size={batch}"]
    ended = []
    for what in ("plan", "run"):
        line = ["prlimit", f"--data={limit}", *command(tmp_path, what, *options)]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        ended.append(done.returncode)
    (record,) = Store(tmp_path / "results").all()
    expected = ("ok", [0, 0]) if limit > 2e9 else ("oom", [1, 1])
    assert (record.status, ended) == expected
