"""Runs that survive: stopped, killed or stuck, a run goes on from its checkpoint to the end it would have had."""

from __future__ import annotations

import json
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from harness.results.record import Record
from harness.results.store import Store
from tests.support.runs import ROOT, command, losses_of, predicted_by, run_command, workers_of

ENGINES = {
    "one process": [],
    "ddp": ["--nproc", "2"],
    **{f"zero {stage}": ["--engine", "deepspeed", "--zero", stage, "--nproc", "2"] for stage in "0123"},
    "fsdp": ["--engine", "fsdp", "--nproc", "2"],
}
# 375 steps, a checkpoint every 40: long enough to be hit in the middle. At mini's own rate of 1e-3 the last bit, in
# which two ranks differ from one, grows to 1e-4 within 350 steps.
LONG = ["--strategy", "last_block", "--model", "mini", "--data", "synthetic", "--precision", "fp32", "--epochs", "5"]
LONG += ["--weights", "random", "--set", "data.size=860 training.checkpoint_steps=40 optimizer.learning_rate=1e-4"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    folder = tmp_path_factory.mktemp("undisturbed")
    run_command(folder, "run", *LONG)
    (record,) = Store(folder / "results").all()
    assert record.resumed_from_step is None
    assert not (folder / "results" / "runs" / record.run_id / "checkpoints").exists()
    return folder / "results", record


def _start(folder: Path, *options: str) -> subprocess.Popen:
    arguments = command(folder, "run", *LONG, *options)
    return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _wait_for_checkpoint(folder: Path, process: subprocess.Popen, after: int = 0, count: int = 1) -> None:
    """Until there are as many checkpoints, the newest of a step behind `after`."""
    deadline = time.monotonic() + 180
    while _last_checkpoint(folder) <= after or len(_checkpoints(folder)) < count:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, "no checkpoint within 3 minutes"
        time.sleep(0.02)


def _checkpoints(folder: Path) -> list[Path]:
    """Their manifests, the newest last."""
    return sorted((folder / "results").glob("runs/*/checkpoints/step-*.json"))


def _last_checkpoint(folder: Path) -> int:
    """Its step; 0 before the first."""
    return max((int(path.stem.removeprefix("step-")) for path in _checkpoints(folder)), default=0)


def _assert_same_end(folder: Path, undisturbed: tuple[Path, Record]) -> Record:
    (record,) = Store(folder / "results").all()
    assert record.status == "ok", record.error
    assert losses_of(folder / "results", record) == pytest.approx(losses_of(*undisturbed), abs=1e-4)
    assert predicted_by(folder / "results", record) == predicted_by(*undisturbed)
    return record


@pytest.mark.parametrize(
    ("engine", "number"),
    [
        ("one process", signal.SIGINT),
        pytest.param("one process", signal.SIGUSR1, marks=pytest.mark.long),
        *(pytest.param(f"zero {stage}", signal.SIGTERM, marks=pytest.mark.long) for stage in range(4)),
        pytest.param("fsdp", signal.SIGTERM, marks=pytest.mark.long),
    ],
)
def test_a_stopped_run_goes_on(tmp_path: Path, undisturbed, engine: str, number: int) -> None:
    process = _start(tmp_path, *ENGINES[engine])
    _wait_for_checkpoint(tmp_path, process)
    process.send_signal(number)
    _assert_it_stops(process, tmp_path)
    run_command(tmp_path, "run", *LONG, *ENGINES[engine])
    assert _assert_same_end(tmp_path, undisturbed).resumed_from_step >= 40


@pytest.mark.long
@pytest.mark.parametrize("strategy", ["probe_then_full", "layer_decay", "last_block"])
@pytest.mark.parametrize("engine", ["ddp", "zero 2", "fsdp"])
def test_phases_rates_and_recipes_go_on(tmp_path: Path, engine: str, strategy: str) -> None:
    recipe = ["--strategy", strategy, "--epochs", "3", "--set", "training.checkpoint_steps=40 training.keep=best"]
    recipe += ["--set", "optimizer.schedule=linear optimizer.warmup=0.1 training.patience=2"]
    run_command(tmp_path / "alone", "run", *LONG, *recipe)
    (alone,) = Store(tmp_path / "alone" / "results").all()
    process = _start(tmp_path, *recipe, *ENGINES[engine])
    _wait_for_checkpoint(tmp_path, process)
    process.send_signal(signal.SIGTERM)
    _assert_it_stops(process, tmp_path)
    run_command(tmp_path, "run", *LONG, *recipe, *ENGINES[engine])
    record = _assert_same_end(tmp_path, (tmp_path / "alone" / "results", alone))
    assert record.resumed_from_step >= 40
    assert (record.epochs.kept, record.head_fit) == (alone.epochs.kept, alone.head_fit)


@pytest.mark.long
def test_a_group_that_a_cluster_stopped_goes_on(tmp_path: Path, undisturbed) -> None:
    _stop_as_a_cluster_does(tmp_path, signal.SIGTERM)
    run_command(tmp_path, "run", *LONG, *ENGINES["ddp"])
    assert _assert_same_end(tmp_path, undisturbed).resumed_from_step >= 40


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_group_that_was_stopped_twice_goes_on(tmp_path: Path, undisturbed, number: int) -> None:
    """First by a signal to the command alone."""
    process = _start(tmp_path, *ENGINES["ddp"])
    _wait_for_checkpoint(tmp_path, process)
    process.send_signal(number)
    _assert_it_stops(process, tmp_path)
    stopped_at = _last_checkpoint(tmp_path)
    assert stopped_at >= 40
    _stop_as_a_cluster_does(tmp_path, number, after=stopped_at)
    run_command(tmp_path, "run", *LONG, *ENGINES["ddp"])
    assert _assert_same_end(tmp_path, undisturbed).resumed_from_step > stopped_at


def _stop_as_a_cluster_does(folder: Path, number: int, after: int = 0) -> None:
    """Start a group and, once it has a checkpoint behind step `after`, signal the launchers and the ranks at once, and
    more than once."""
    process = _start(folder, *ENGINES["ddp"])
    _wait_for_checkpoint(folder, process, after=after)
    members = [*psutil.Process(process.pid).children(recursive=True), process]
    for _ in range(3):
        for member in members:
            with suppress(psutil.NoSuchProcess):
                member.send_signal(number)
        time.sleep(0.2)
    _assert_it_stops(process, folder)


def _assert_it_stops(process: subprocess.Popen, folder: Path) -> None:
    """With a checkpoint of the step it is at, soon."""
    deadline = time.monotonic() + 10
    while process.poll() is None and _last_checkpoint(folder) % 40 == 0:  # those that were due anyway
        assert time.monotonic() < deadline, "no checkpoint within 10 s"
        time.sleep(0.02)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    assert "goes on" in output
    (record,) = Store(folder / "results").all()
    assert record.status == "interrupted"


@pytest.mark.long
@pytest.mark.parametrize("engine", ["ddp", "zero 2", "fsdp"])
def test_a_group_that_lost_a_rank_starts_again_and_goes_on(tmp_path: Path, undisturbed, engine: str) -> None:
    process = _start(tmp_path, *ENGINES[engine])
    _wait_for_checkpoint(tmp_path, process)
    workers_of(process)[-1].kill()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert _assert_same_end(tmp_path, undisturbed).resumed_from_step >= 40


@pytest.mark.long
@pytest.mark.parametrize("number", range(100))
def test_a_hundred_random_kills(tmp_path: Path, undisturbed: tuple[Path, Record], number: int) -> None:
    chance = random.Random(number)
    _kill_a_rank(tmp_path, undisturbed, chance.choice(["ddp", "zero 0", "zero 1", "zero 2", "zero 3"]), chance)


@pytest.mark.long
@pytest.mark.parametrize("number", range(20))
def test_twenty_random_kills_on_fsdp(tmp_path: Path, undisturbed: tuple[Path, Record], number: int) -> None:
    _kill_a_rank(tmp_path, undisturbed, "fsdp", random.Random(number))


def _kill_a_rank(tmp_path: Path, undisturbed: tuple[Path, Record], engine: str, chance: random.Random) -> None:
    """SIGKILL of a random rank at a random moment: start-up, features, or soon after one of the 9 checkpoints."""
    after_step = chance.choice([0, 0, 0, 0, *range(40, 375, 40)])
    process = _start(tmp_path, *ENGINES[engine])
    while not (victims := workers_of(process)) or _last_checkpoint(tmp_path) < after_step:
        assert process.poll() is None, "ended before it was killed"
        time.sleep(0.02)
    time.sleep(chance.uniform(0, 1) if after_step else chance.uniform(0, 12))
    step = _last_checkpoint(tmp_path)
    with suppress(psutil.NoSuchProcess):  # it had just ended well
        chance.choice(victims).kill()
    had_record = bool(list((tmp_path / "results").glob("runs/*/record.json")))
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    record = _assert_same_end(tmp_path, undisturbed)
    print(f"kill: {engine}, after step {step}, record {had_record}, from {record.resumed_from_step}")
    if step and not had_record:
        assert record.resumed_from_step >= step


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was killed with two checkpoints."""
    folder = tmp_path_factory.mktemp("killed")
    process = _start(folder)
    _wait_for_checkpoint(folder, process, count=2)
    process.kill()
    process.wait()
    return folder


@pytest.fixture
def copied(killed: Path, tmp_path: Path) -> list[Path]:
    """The manifests of its checkpoints, in a copy of its results below tmp_path."""
    shutil.copytree(killed / "results", tmp_path / "results")
    return _checkpoints(tmp_path)


def test_a_damaged_checkpoint_is_skipped_for_the_one_before(
    run_cli: Callable, tmp_path: Path, copied: list[Path], undisturbed
) -> None:
    tensors = copied[-1].with_suffix(".safetensors")
    content = bytearray(tensors.read_bytes())
    content[len(content) // 2] ^= 1
    tensors.write_bytes(content)
    steps_before = len(json.loads(copied[-2].read_text())["curve"]["losses"])
    _, out, _ = run_cli("run", *LONG, "--cache", str(tmp_path / "cache"))
    assert "is damaged: skipped" in out
    assert _assert_same_end(tmp_path, undisturbed).resumed_from_step == steps_before


def test_a_checkpoint_of_another_configuration_is_refused(
    run_cli: Callable, tmp_path: Path, copied: list[Path]
) -> None:
    manifest = json.loads(copied[-1].read_text())
    manifest["config"]["optimizer"]["weight_decay"] = 0.5
    copied[-1].write_text(json.dumps(manifest))
    code, _, told = run_cli("run", *LONG, "--cache", str(tmp_path / "cache"))
    assert code == 2
    assert "optimizer.weight_decay: 0.5, here 0.1" in told


def test_a_full_disk_is_told_and_harms_nothing(run_cli: Callable, tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: checkpoints pass it, records do not."""
    small = [*LONG[:-4], "--epochs", "1", "--set", "data.size=860 training.checkpoint_steps=40"]
    small += ["--cache", str(tmp_path / "cache")]
    assert run_cli("run", *small)[0] == 0
    before = {path: path.read_bytes() for path in (tmp_path / "results").rglob("*") if path.is_file()}
    with _largest_file(10**6):
        code, out, _ = run_cli("run", *small, "--epochs", "2")
    assert (code, "can't be written" in out) == (1, True)
    failed = [record for record in Store(tmp_path / "results").all() if record.status != "ok"]
    assert [record.status for record in failed] == ["failed"]
    assert {path: path.read_bytes() for path in before if path.parent.parent.name == "runs"} == {
        path: content for path, content in before.items() if path.parent.parent.name == "runs"
    }
    assert not list((tmp_path / "results").rglob("*.partial"))


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """In bytes, of any that this process writes."""
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))


@pytest.mark.long
def test_a_stuck_rank_ends_the_run_by_name(tmp_path: Path) -> None:
    process = _start(tmp_path, "--nproc", "2", "--set", "engine.timeout_seconds=5 engine.restarts=0")
    _wait_for_checkpoint(tmp_path, process)
    stuck = workers_of(process)[-1]
    rank = int(stuck.environ()["RANK"])
    with _stopped(stuck):
        process.wait(timeout=90)
    (record,) = Store(tmp_path / "results").all()
    assert record.status == "failed"
    assert f"rank {1 - rank} gets no answer" in record.error
    assert f"rank {rank} at training step" in record.error


@contextmanager
def _stopped(process: psutil.Process) -> Iterator[None]:
    process.suspend()
    try:
        yield
    finally:
        if process.is_running():
            process.kill()
