"""What is bit-equal on a GPU, and what only equal to rounding: the same seed again, and a run that goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from harness.config.schema import RunConfig
from harness.training.checkpoints import Checkpoints
from tests.support.device_runs import Runs

pytestmark = pytest.mark.gpu

deterministic = pytest.mark.skipif(
    "deterministic" not in RunConfig.model_fields, reason="the configuration has no key `deterministic`"
)
NAMES = ["last_block", "full", "lora"]


@contextmanager
def _stopped_at_its_first_checkpoint() -> Iterator[None]:
    save = Checkpoints.save

    def save_and_stop(*arguments: object) -> None:
        save(*arguments)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_and_stop)
        yield


def _resumed(runs: Runs, name: str, **options: object) -> tuple[list[float], list[float]]:
    """Losses of a run without an interruption, and of one that was stopped after 8 of 22 steps."""
    options |= {"training__checkpoint_steps": 8}
    straight = runs.finished("straight", [name], **options)[name]
    with _stopped_at_its_first_checkpoint():
        assert runs.run("stopped", [name], **options)[name].status == "interrupted"
    resumed = runs.finished("stopped", [name], **options)[name]
    assert resumed.record.resumed_from_step == 8
    return straight.losses, resumed.losses


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_gives_the_same_losses(runs: Runs, name: str) -> None:
    straight, resumed = _resumed(runs, name)
    assert resumed == pytest.approx(straight, abs=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_losses(runs: Runs, name: str) -> None:
    first, second = (runs.finished(results, [name])[name].losses for results in ("first", "second"))
    assert second == pytest.approx(first, abs=1e-3)


@deterministic
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_is_bit_equal_where_it_is_asked_for(runs: Runs, name: str, precision: str) -> None:
    options = {"deterministic": True, "precision": precision}
    first, second = (runs.finished(results, [name], **options)[name] for results in ("first", "second"))
    assert second.losses == first.losses
    assert second.record.metrics == first.record.metrics


@deterministic
@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_is_bit_equal_where_it_is_asked_for(runs: Runs, name: str) -> None:
    straight, resumed = _resumed(runs, name, deterministic=True)
    assert resumed == straight
