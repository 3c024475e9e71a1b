"""One process and several, whole batches and micro-batches, plain path and default path: the same arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import strategies
from harness.config.schema import DataConfig
from harness.data.dataset import load_dataset
from harness.results.store import Store
from tests.support.runs import curve_of, exchanged_parameters, losses_of, predicted_by

# 250 texts: 175 / 25 / 50, none of which divides by the ranks; 22 batches an epoch, the last one of 7.
SIZE = 250


@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.long)])
def test_ranks_share_the_same_global_batches(ftbench: Callable, tmp_path: Path, ranks: int) -> None:
    chosen = "last_block,full"
    common = ["run", "--strategy", chosen, "--model", "mini", "--weights", "random", "--data", "synthetic"]
    settings = ["--precision", "fp64", "--epochs", "3", "--set", f"data.size={SIZE}"]
    settings += ["--set", "training.drop_last=false training.micro_batch_size=2"]
    for folder, nproc in (("one", "1"), ("many", str(ranks))):
        done = ftbench(*common, *settings, "--nproc", nproc)
        assert done.returncode == 0, done.stderr
        (tmp_path / "results").rename(tmp_path / folder)
    one, many = (Store(tmp_path / folder).all() for folder in ("one", "many"))
    for single, shared in zip(one, many, strict=True):
        assert (single.strategy, shared.engine.world_size) == (shared.strategy, ranks)
        single_losses, shared_losses = losses_of(tmp_path / "one", single), losses_of(tmp_path / "many", shared)
        assert len(single_losses) == 66
        assert shared_losses == pytest.approx(single_losses, abs=1e-9)
        right = [curve_of(tmp_path / folder, run)["accuracy"] for folder, run in (("one", single), ("many", shared))]
        assert right[0].tolist() == pytest.approx(right[1].tolist())
        assert predicted_by(tmp_path / "many", shared) == predicted_by(tmp_path / "one", single)
        assert shared.metrics.test.total == 50
        assert shared.metrics.test.loss == pytest.approx(single.metrics.test.loss, abs=1e-9)
        assert [rank.rank for rank in shared.memory.by_rank] == list(range(ranks))
        assert shared.throughput.real_tokens_per_second > 0
        gradients = 8 * exchanged_parameters(shared)
        assert (single.communication, shared.communication.bytes_by_collective) == (None, {"all_reduce": gradients})
        assert shared.communication.milliseconds_per_step > 0


# Cut as lora and as last_block, which are quicker.
LONG = ("full", "last_two_blocks")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] * (name in LONG)) for name in strategies.built_in_names()]
)
def test_the_plain_path_gives_the_same_losses_and_predictions(run_here: Callable, tmp_path: Path, name: str) -> None:
    # Not mini's own rate: with it LoRA, whose update is scaled by alpha = 16, amplifies the last bit to 1e-3.
    common = {"strategy": [name], "model__weights": "random", "precision": "fp64", "data__size": SIZE}
    common["optimizer__learning_rate"] = 1e-4
    (fast,) = run_here(**common)
    (plain,) = run_here(**common, plain=True)
    folder = tmp_path / "results"
    assert losses_of(folder, fast) == pytest.approx(losses_of(folder, plain), abs=1e-9)
    assert predicted_by(folder, fast) == predicted_by(folder, plain)


def test_micro_batches_do_not_change_the_losses(run_here: Callable, tmp_path: Path) -> None:
    common = {"strategy": ["last_block"], "precision": "fp64", "data__size": SIZE, "training__epochs": 2}
    (whole,) = run_here(**common)
    (cut,) = run_here(**common, training__micro_batch_size=3)
    assert losses_of(tmp_path / "results", cut) == pytest.approx(losses_of(tmp_path / "results", whole), abs=1e-9)


def test_gpt2_in_float32_gives_the_same_first_losses_on_two_ranks(
    ftbench: Callable, tmp_path: Path, assets: Path
) -> None:
    """The full 124M architecture on 20 batches of real messages."""
    texts = load_dataset(DataConfig(name="sms_spam"), tmp_path / "cache").split["train"].iloc[:231]
    texts.to_csv(tmp_path / "sms.csv", index=False)
    common = ["run", "--strategy", "last_block", "--model", "gpt2", "--weights", "random", "--precision", "fp32"]
    for folder, nproc in (("one", "1"), ("two", "2")):
        done = ftbench(*common, "--data", str(tmp_path / "sms.csv"), "--epochs", "1", "--nproc", nproc)
        assert done.returncode == 0, done.stderr
        (tmp_path / "results").rename(tmp_path / folder)
    one, two = (losses_of(tmp_path / name, Store(tmp_path / name).all()[0]) for name in ("one", "two"))
    assert len(one) == 20
    assert two == pytest.approx(one, abs=1e-4)
