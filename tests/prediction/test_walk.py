"""A walk on tensors without content sees what a run computes, and what it holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from torch.utils.flop_counter import FlopCounterMode

from harness.config.suite import load_suite
from harness.planning.plan import resolve
from harness.planning.workspace import Workspace
from harness.prediction.work.passes import Pass
from harness.prediction.work.walk import Shapes
from harness.prediction.work.walker import RunWalker, Texts
from tests.support.strategies import long

DEFAULTS = {"model.name": "mini", "data.name": "synthetic", "data.size": 200}


def walker_of(tmp_path: Path, **options: object) -> RunWalker:
    dotted = DEFAULTS | {key.replace("__", "."): value for key, value in options.items()}
    workspace = Workspace(tmp_path / "cache")
    planned = resolve(load_suite(None, dotted, []), tmp_path / "results", workspace).runs[0]
    assert planned.strategy
    examples = Texts(workspace).of(planned, planned.strategy)
    return RunWalker(planned, planned.strategy, examples, 2, workspace, world_size=1, kind="cpu")


def products(one: Pass | None) -> float:
    """Operations of matrix products, without attention, which PyTorch does not count on a CPU."""
    if one is None:
        return 0.0
    operations = one.walk.operations.items()
    return one.times * sum(count * of.flops for of, count in operations if "attention" not in of.name)


@pytest.mark.parametrize("strategy", ["full", "lora", *long("last_block", "head_only")])
def test_products_are_those_that_a_run_computes(strategy: str, tmp_path: Path, run_here: Callable) -> None:
    options = {"strategy": strategy, "data__size": 100, "pad_to": 32, "training__epochs": 2}
    work = walker_of(tmp_path, **options).work({})
    with FlopCounterMode(display=False) as counter:
        (record,) = run_here(**options)
    assert record.status == "ok"
    predicted = products(work.features) + products(work.step) + products(work.evaluate)
    assert predicted == pytest.approx(counter.get_total_flops(), rel=0.03)


@pytest.mark.parametrize("strategy", ["lora", "prompt_tuning", *long("full", "mean_pool")])
def test_two_and_three_blocks_say_what_four_do(strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.prediction.work.walker.SMALL_PARAMETERS", 0)
    walker = walker_of(tmp_path, strategy=strategy)
    work = walker.work({})
    for one in work.passes:
        complete = walker.rehearse(one.kind, 4, Shapes(), one.done)
        assert one.walk.flops == complete.flops
        assert one.walk.calls == complete.calls
        assert one.walk.peak_bytes == pytest.approx(complete.peak_bytes, rel=0.02)
