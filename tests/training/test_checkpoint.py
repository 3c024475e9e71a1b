"""Runs that survive: stopped, killed or stuck, a run goes on from its checkpoint to the end it would have had."""

from __future__ import annotations

import json
import random
import resource
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
from tests.support.runs import ROOT, command, losses_of, predicted_by, workers_of

ENGINES = {
    "one process": [],
    "ddp": ["--nproc", "2"],
    **{f"zero {stage}": ["--engine", "deepspeed", "--zero", stage, "--nproc", "2"] for stage in "0123"},
}
# 600 steps, a checkpoint every 40: long enough to be hit in the middle. At mini's own rate of 1e-3 the last bit, in
# which two ranks differ from one, grows to 1e-4 within 350 steps.
LONG = ["--strategy", "last_block", "--model", "mini", "--data", "synthetic", "--precision", "fp32", "--epochs", "8"]
LONG += ["--weights", "random", "--set", "data.size=860 training.checkpoint_steps=40 optimizer.learning_rate=1e-4"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    folder = tmp_path_factory.mktemp("undisturbed")
    subprocess.run(command(folder, "run", *LONG), cwd=ROOT, check=True, capture_output=True)
    (record,) = Store(folder / "results").all()
    assert record.resumed_from_step is None
    assert not (folder / "results" / "runs" / record.run_id / "checkpoints").exists()
    return folder / "results", record


def _start(folder: Path, *options: str) -> subprocess.Popen:
    arguments = command(folder, "run", *LONG, *options)
    return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _wait_for_checkpoint(folder: Path, process: subprocess.Popen) -> Path:
    for _ in range(1200):
        found = sorted((folder / "results").glob("runs/*/checkpoints/step-*.json"))
        if found:
            return found[-1]
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    raise AssertionError("no checkpoint within a minute")


def _assert_same_end(folder: Path, undisturbed: tuple[Path, Record]) -> Record:
    (record,) = Store(folder / "results").all()
    assert record.status == "ok", record.error
    assert losses_of(folder / "results", record) == pytest.approx(losses_of(*undisturbed), abs=1e-4)
    assert predicted_by(folder / "results", record) == predicted_by(*undisturbed)
    return record


@pytest.mark.parametrize(
    ("engine", "number"),
    [
        ("one process", signal.SIGUSR1),
        ("ddp", signal.SIGTERM),
        *(pytest.param(f"zero {stage}", signal.SIGTERM, marks=pytest.mark.long) for stage in range(4)),
    ],
)
def test_a_stopped_run_goes_on(ftbench: Callable, tmp_path: Path, undisturbed, engine: str, number: int) -> None:
    process = _start(tmp_path, *ENGINES[engine])
    _wait_for_checkpoint(tmp_path, process)
    process.send_signal(number)
    _assert_it_stops_and_goes_on(ftbench, process, tmp_path, undisturbed, engine)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.long)])
def test_a_signal_to_every_process_of_a_group(ftbench: Callable, tmp_path: Path, undisturbed, number: int) -> None:
    """As a cluster sends it: to the launchers and the ranks at once, and more than once."""
    process = _start(tmp_path, *ENGINES["ddp"])
    _wait_for_checkpoint(tmp_path, process)
    members = [*psutil.Process(process.pid).children(recursive=True), process]
    for _ in range(3):
        for member in members:
            with suppress(psutil.NoSuchProcess):
                member.send_signal(number)
        time.sleep(0.2)
    _assert_it_stops_and_goes_on(ftbench, process, tmp_path, undisturbed, "ddp")


def _assert_it_stops_and_goes_on(
    ftbench: Callable, process: subprocess.Popen, folder: Path, undisturbed: tuple[Path, Record], engine: str
) -> None:
    deadline = time.monotonic() + 10
    while process.poll() is None and _last_checkpoint(folder) % 40 == 0:  # those that were due anyway
        assert time.monotonic() < deadline, "no checkpoint within 10 s"
        time.sleep(0.02)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    assert "goes on" in output
    (record,) = Store(folder / "results").all()
    assert record.status == "interrupted"
    done = ftbench("run", *LONG, *ENGINES[engine])
    assert done.returncode == 0, done.stdout + done.stderr
    assert _assert_same_end(folder, undisturbed).resumed_from_step >= 40


@pytest.mark.long
@pytest.mark.parametrize("engine", ["ddp", "zero 2"])
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
    """SIGKILL of a random rank at a random moment: start-up, features, or soon after one of the 14 checkpoints."""
    chance = random.Random(number)
    engine = chance.choice(["ddp", "zero 0", "zero 1", "zero 2", "zero 3"])
    after_step = chance.choice([0, 0, 0, 0, *range(40, 600, 40)])
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
    print(f"kill {number}: {engine}, after step {step}, record {had_record}, from {record.resumed_from_step}")
    if step and not had_record:
        assert record.resumed_from_step >= step


def _last_checkpoint(folder: Path) -> int:
    """Its step; 0 before the first."""
    found = (folder / "results").glob("runs/*/checkpoints/step-*.json")
    return max((int(path.stem.removeprefix("step-")) for path in found), default=0)


def test_a_damaged_checkpoint_is_skipped_for_the_one_before(ftbench: Callable, tmp_path: Path, undisturbed) -> None:
    process = _start(tmp_path)
    first = _wait_for_checkpoint(tmp_path, process)
    while len(checkpoints := sorted(first.parent.glob("step-*.json"))) < 2:
        time.sleep(0.02)
    process.kill()
    process.wait()
    checkpoints = sorted(first.parent.glob("step-*.json"))
    tensors = checkpoints[-1].with_suffix(".safetensors")
    content = bytearray(tensors.read_bytes())
    content[len(content) // 2] ^= 1
    tensors.write_bytes(content)
    steps_before = len(json.loads(checkpoints[-2].read_text())["curve"]["losses"])
    done = ftbench("run", *LONG)
    assert "is damaged: skipped" in done.stdout
    assert _assert_same_end(tmp_path, undisturbed).resumed_from_step == steps_before


def test_a_checkpoint_of_another_configuration_is_refused(ftbench: Callable, tmp_path: Path) -> None:
    process = _start(tmp_path)
    path = _wait_for_checkpoint(tmp_path, process)
    process.kill()
    process.wait()
    manifest = json.loads(path.read_text())
    manifest["config"]["optimizer"]["weight_decay"] = 0.5
    path.write_text(json.dumps(manifest))
    done = ftbench("run", *LONG)
    assert done.returncode == 2
    assert "optimizer.weight_decay: 0.5, here 0.1" in done.stderr


def test_a_full_disk_is_told_and_harms_nothing(ftbench: Callable, tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: checkpoints pass it, records do not."""
    small = [*LONG[:-4], "--epochs", "1", "--set", "data.size=860"]
    assert ftbench("run", *small).returncode == 0
    before = {path: path.read_bytes() for path in (tmp_path / "results").rglob("*") if path.is_file()}

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))

    done = subprocess.run(
        command(tmp_path, "run", *LONG), cwd=ROOT, capture_output=True, text=True, check=False, preexec_fn=limit
    )
    assert done.returncode == 1
    assert "can't be written" in done.stdout
    failed = [record for record in Store(tmp_path / "results").all() if record.status != "ok"]
    assert [record.status for record in failed] == ["failed"]
    assert {path: path.read_bytes() for path in before if path.parent.parent.name == "runs"} == {
        path: content for path, content in before.items() if path.parent.parent.name == "runs"
    }
    assert not list((tmp_path / "results").rglob("*.partial"))


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
