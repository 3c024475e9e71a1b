"""Full batches and micro-batches, plain path and default path: the same arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.runs import (
    losses_of,
    predicted_by,
)
from tests.support.strategies import every_strategy

SIZE = 60


@pytest.mark.parametrize("name", every_strategy())
def test_the_plain_path_gives_the_same_losses_and_predictions(run_here: Callable, tmp_path: Path, name: str) -> None:
    # Not mini's own rate: with it LoRA, whose update is scaled by alpha = 16, amplifies the last bit to 1e-3.
    common = {"strategy": [name], "model__weights": "random", "precision": "fp64", "data__size": SIZE}
    common |= {"optimizer__learning_rate": 1e-4, "training__epochs": 2}
    (fast,) = run_here(**common)
    (plain,) = run_here(**common, plain=True)
    folder = tmp_path / "results"
    if fast.takes_steps:
        assert losses_of(folder, fast) == pytest.approx(losses_of(folder, plain), abs=1e-9)
    assert fast.ok_metrics.train.loss == pytest.approx(plain.ok_metrics.train.loss, abs=1e-9)
    assert predicted_by(folder, fast) == predicted_by(folder, plain)


def test_micro_batches_do_not_change_the_losses(run_here: Callable, tmp_path: Path) -> None:
    common = {"strategy": ["last_block"], "precision": "fp64", "data__size": SIZE, "training__epochs": 2}
    (whole,) = run_here(**common)
    (cut,) = run_here(**common, training__micro_batch_size=3)
    assert losses_of(tmp_path / "results", cut) == pytest.approx(losses_of(tmp_path / "results", whole), abs=1e-9)
