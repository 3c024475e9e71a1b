"""DeepSpeed and FSDP beside DDP: the same arithmetic, whatever the ranks share."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.results.record import Record
from harness.results.store import Store
from strategies import built_in_names
from tests.support.runs import ROOT, exchanged_parameters, losses_of, predicted_by, run_command

SIZE = 120
RECIPE = "optimizer.schedule=cosine optimizer.warmup=0.2 optimizer.decay_norms_and_biases=false training.keep=best "
RECIPE += "training.dropout=0.1 training.gradient_checkpointing=true"
LINEAR = "optimizer.schedule=linear optimizer.warmup=0.1 training.keep=best training.patience=1"
MINI = ["--model", "mini", "--weights", "random", "--data", "synthetic"]
ARRANGEMENTS = {
    "ddp-2": ["--nproc", "2"],
    "ddp-4": ["--nproc", "4"],
    **{f"zero-{stage}": ["--engine", "deepspeed", "--zero", str(stage), "--nproc", "2"] for stage in range(4)},
    "fsdp-2": ["--engine", "fsdp", "--nproc", "2"],
    "fsdp-4": ["--engine", "fsdp", "--nproc", "4"],
    "fsdp-2-frozen": ["--engine", "fsdp", "--nproc", "2", "--set", "engine.shard_frozen=true"],
}


def _results(folder: Path, name: str, *options: str) -> tuple[Path, dict[str, Record]]:
    run_command(folder / name, "run", *MINI, *options)
    return folder / name / "results", _by_strategy(folder / name / "results")


def _by_strategy(results: Path) -> dict[str, Record]:
    return {record.strategy: record for record in Store(results).all()}


def _assert_alike(folder: Path, arrangements: list[str], *options: str, size: int = SIZE, recipe: str = RECIPE) -> None:
    """LoRA's update is scaled by 16: at mini's own rate it amplifies the last bit (see test_parity)."""
    common = [*options, "--set", f"data.size={size} optimizer.learning_rate=1e-4 training.drop_last=false {recipe}"]
    reference, alone = {}, {}
    for arrangement in arrangements:
        precision, tolerance = ("fp32", 1e-5) if arrangement.startswith("zero") else ("fp64", 1e-9)
        if precision not in alone:
            reference[precision], alone[precision] = _results(folder, precision, *common, "--precision", precision)
        arranged = [*ARRANGEMENTS[arrangement], "--precision", precision]
        results, together = _results(folder, arrangement, *common, *arranged)
        assert together.keys() == alone[precision].keys()
        for name, record in together.items():
            assert predicted_by(results, record) == predicted_by(reference[precision], alone[precision][name])
            if not record.takes_steps:
                continue
            theirs = losses_of(reference[precision], alone[precision][name])
            worst = max(abs(a - b) for a, b in zip(losses_of(results, record), theirs, strict=True))
            print(f"{arrangement} {name} {precision}: {len(theirs)} losses, at most {worst:.1e} apart")
            assert worst < tolerance, (arrangement, name)
            _assert_gradients_are_exchanged_once(record)


def _assert_gradients_are_exchanged_once(record: Record) -> None:
    """Of the trained parameters only; with flags and padding beside them: FSDP gives each rank as many rows of every
    tensor, which a head and the tokens that occur may not have."""
    exchanged = record.communication.bytes_by_collective
    element_bytes = 8 if record.precision == "fp64" else 4
    rows = 2 * (record.engine.world_size - 1) if record.engine.name == "fsdp" else 0
    padding = 1000 + rows * 128 * element_bytes
    assert exchanged["all_reduce"] == pytest.approx(element_bytes * exchanged_parameters(record), abs=padding)


def test_sharded_engines_give_the_losses_of_one_process(tmp_path: Path) -> None:
    for arrangement, strategy in (("zero-3", "full"), ("fsdp-2", "lora")):  # 4 steps, the last of 4 examples
        _assert_alike(tmp_path / strategy, [arrangement], "--strategy", strategy, "--epochs", "1", size=40)


@pytest.mark.long
def test_every_stage_gives_the_losses_of_one_process(tmp_path: Path) -> None:
    chosen = ["--strategy", "last_block,lora,full", "--epochs", "1"]
    _assert_alike(tmp_path, ["zero-0", "zero-1", "zero-2"], *chosen)


@pytest.mark.long
@pytest.mark.parametrize("arrangement", ["ddp-2", "zero-2", "zero-3", "fsdp-2"])
def test_a_fitted_head_and_falling_rates_on_every_engine(tmp_path: Path, arrangement: str) -> None:
    chosen = ["--strategy", "probe,probe_then_full,layer_decay,last_block", "--epochs", "3"]
    _assert_alike(tmp_path, [arrangement], *chosen, recipe=LINEAR)


@pytest.mark.long
@pytest.mark.parametrize("engine", ["ddp", "zero", "fsdp"])
def test_every_strategy_on_every_arrangement(tmp_path: Path, engine: str) -> None:
    arrangements = [arrangement for arrangement in ARRANGEMENTS if arrangement.startswith(engine)]
    _assert_alike(tmp_path, arrangements, "--strategy", ",".join(built_in_names()), "--epochs", "5")


@pytest.mark.long
@pytest.mark.parametrize("arrangement", [*(f"zero-{stage}" for stage in range(4)), "fsdp-2", "fsdp-2-frozen"])
def test_micro_batches_and_clipping_on_sharded_engines(tmp_path: Path, arrangement: str) -> None:
    """Micro-batches of 3 and a last batch of 4 share unevenly among 2 ranks."""
    options = ["--strategy", "last_block,full", "--epochs", "1", "--precision", "fp32", "--set", f"data.size={SIZE}"]
    uneven = ["--set", "training.micro_batch_size=3 training.drop_last=false optimizer.clip_norm=0.5"]
    results, alone = _results(tmp_path, "alone", *options, *uneven)
    shared_results, shared = _results(tmp_path, "shared", *options, *uneven, *ARRANGEMENTS[arrangement])
    for name, record in shared.items():
        expected = losses_of(results, alone[name])
        assert losses_of(shared_results, record) == pytest.approx(expected, abs=1e-5)


@pytest.mark.long
def test_deepspeed_on_one_process_in_bfloat16(tmp_path: Path) -> None:
    options = ["--strategy", "lora", "--epochs", "1", "--precision", "bf16", "--set", f"data.size={SIZE}"]
    results, alone = _results(tmp_path, "ddp", *options)
    other, shared = _results(tmp_path, "zero", *options, "--engine", "deepspeed")
    assert shared["lora"].engine.zero_stage == 2
    assert losses_of(other, shared["lora"]) == pytest.approx(losses_of(results, alone["lora"]), abs=0.02)


@pytest.mark.long
@pytest.mark.parametrize("frozen", ["false", "true"])
def test_bfloat16_on_fsdp_is_that_of_ddp(tmp_path: Path, frozen: str) -> None:
    """Whose frozen matrices are stored in bfloat16, between trained vectors in float32."""
    options = ["--strategy", "lora,last_block", "--epochs", "1", "--precision", "bf16", "--nproc", "2"]
    options += ["--set", f"data.size={SIZE}"]
    results, replicated = _results(tmp_path, "ddp", *options)
    sharded = [*options, "--engine", "fsdp", "--set", f"engine.shard_frozen={frozen}"]
    other, shared = _results(tmp_path, "fsdp", *sharded)
    for name, record in shared.items():
        assert losses_of(other, record) == pytest.approx(losses_of(results, replicated[name]), abs=1e-3)


@pytest.mark.long
def test_frozen_parameters_are_gathered_where_they_are_sharded(tmp_path: Path) -> None:
    """Each rank hands in its shard of every parameter in the forward and again in the backward pass; what is replicated
    is never gathered."""
    options = ["--strategy", "lora", "--epochs", "1", "--precision", "fp32", "--set", f"data.size={SIZE}"]
    bytes_gathered = {}
    for arrangement in ("fsdp-2", "fsdp-2-frozen"):
        _, found = _results(tmp_path, arrangement, *options, *ARRANGEMENTS[arrangement])
        bytes_gathered[arrangement] = found["lora"].communication.bytes_by_collective["all_gather"]
        model = found["lora"].model
    assert bytes_gathered["fsdp-2"] == pytest.approx(4 * model.trainable_parameters, rel=0.02)
    assert bytes_gathered["fsdp-2-frozen"] > 4 * (model.parameters - model.trainable_parameters) / 2


@pytest.mark.long
@pytest.mark.parametrize(
    ("first", "then"),
    [
        *((f"zero-{stage}", f"zero-{stage}") for stage in range(4)),
        ("fsdp", "fsdp"),
        ("fsdp", "ddp"),
        ("ddp", "fsdp"),
        ("fsdp", "zero-3"),
        ("zero-2", "fsdp"),
        ("fsdp", "alone"),
        ("alone", "fsdp"),
    ],
)
def test_every_strategy_goes_on_from_what_was_saved(first: str, then: str) -> None:
    """Frozen parameters are not saved; those trained, and AdamW's state, are put back into another engine, or another
    number of ranks."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    command = [*torchrun, "tests.support.resume_strategies", first, then]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    told = dict(re.findall(r"RESUMED (\w+): .*, (\S+)\n", done.stdout))
    assert list(told) == built_in_names()
    assert all(float(difference) < 1e-5 for difference in told.values()), told


@pytest.mark.long
def test_an_offloaded_optimizer_gives_the_same_losses(tmp_path: Path) -> None:
    """On a CPU its state is where it was; the code that steps and checkpoints it is another."""
    options = ["--strategy", "last_block", "--precision", "fp32", "--epochs", "1", *ARRANGEMENTS["zero-2"]]
    settings = f"data.size={SIZE} training.checkpoint_steps=5 engine.offload_optimizer="
    (there, kept), (here, moved) = (
        _results(tmp_path, value, *options, "--set", settings + value) for value in ("false", "true")
    )
    assert moved["last_block"].config["engine"]["offload_optimizer"]
    expected = losses_of(there, kept["last_block"])
    assert losses_of(here, moved["last_block"]) == pytest.approx(expected, abs=1e-6)
    assert predicted_by(here, moved["last_block"]) == predicted_by(there, kept["last_block"])
