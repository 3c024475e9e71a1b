"""The best epoch by the validation texts, and the end of training where none is better any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import log_loss, matthews_corrcoef
from torch import Tensor

from harness.config.schema import OptimizerConfig, TrainingConfig
from harness.distributed.process_group import World
from harness.errors import UserError
from harness.features.features import Features
from harness.measure.clock import Clock
from harness.model.named.weights import RandomWeights, filled_backbone
from harness.model.split import split
from harness.results.record import EpochScore, TrainingCurve
from harness.training.batches import TrainingBatches
from harness.training.checkpoints import Checkpoints, Manifest
from harness.training.engines.ddp import DDPEngine
from harness.training.evaluation import probabilities
from harness.training.loop import train
from harness.training.selection import Selection, score
from strategies import load
from tests.features.test_features import examples_of
from tests.support.runs import losses_of, predicted_by

CPU = torch.device("cpu")
WORLD = World(0, 1, CPU)
EXAMPLES = examples_of([[number, 7] for number in range(1, 33)])  # 4 steps an epoch
OPTIMIZER = OptimizerConfig(learning_rate=1e-3, schedule="linear", warmup=0.1)


def _scores(*values: float, loss: float = 0.5) -> list[EpochScore]:
    return [EpochScore(value=value, loss=loss) for value in values]


@pytest.mark.parametrize(
    ("scores", "best", "over"),
    [
        (_scores(0.5), 1, False),
        (_scores(0.5, 0.6, 0.6), 2, False),  # the earliest of equals
        (_scores(0.5, 0.6, 0.6, 0.4), 2, True),
        (_scores(0.7, 0.6, 0.6), 1, True),
        ([*_scores(0.6, 0.6), *_scores(0.6, loss=0.4)], 3, False),  # ties are broken by the loss
        ([*_scores(0.6), *_scores(0.9, loss=float("nan"))], 1, False),
    ],
)
def test_the_best_epoch_and_the_end(scores: list[EpochScore], best: int, over: bool) -> None:
    training = TrainingConfig(keep="best", patience=2)
    selection = Selection(training, validate=lambda: pytest.fail("not called"), scores=scores)
    assert (selection.kept, selection.is_over) == (best, over)
    last = Selection(TrainingConfig(patience=2), selection.validate, scores)
    assert (last.kept, last.is_over) == (len(scores), over)


def test_a_score_is_scikit_learns() -> None:
    logits, labels = np.random.default_rng(0).normal(size=(50, 3)), np.arange(50) % 3
    found = score(logits, labels, "mcc")
    assert found.value == pytest.approx(matthews_corrcoef(labels, logits.argmax(axis=1)))
    assert found.loss == pytest.approx(log_loss(labels, probabilities(logits)))


class _Run:
    """Of head_only, whose epochs have the scores given; stop_after: is interrupted once so many steps are done."""

    def __init__(self, folder: Path, values: list[float], keep: str, stop_after: int | None = None) -> None:
        torch.manual_seed(0)
        prefix, suffix = split(filled_backbone("mini", RandomWeights("gpt2", 1)), load("head_only").strategy, 2)
        prefix.place(CPU, "fp32")
        self.epochs: list[dict[str, Tensor]] = []
        engine = DDPEngine(WORLD, "fp32", fused=True)
        engine.prepare(suffix, OPTIMIZER)
        given: Iterator[float] = iter(values)

        def validate() -> EpochScore:
            self.epochs.append(engine.values())
            return EpochScore(value=next(given), loss=0.5)

        def on_progress(done: int, steps: int, loss: float, accuracy: float) -> None:
            if done == stop_after:
                raise KeyboardInterrupt

        training = TrainingConfig(epochs=6, keep=keep, patience=2, validation_metric="accuracy", checkpoint_steps=3)
        self.selection, checkpoints = Selection(training, validate), Checkpoints(folder, {}, 3)
        batches = TrainingBatches(Features.computed(prefix, EXAMPLES, CPU), EXAMPLES, training, 0, WORLD)
        self.curve, self.resumed_from = train(
            engine, batches, OPTIMIZER, self.selection, checkpoints, Clock(CPU), on_progress
        )
        self.values = engine.values()


@pytest.mark.parametrize(("keep", "kept"), [("best", 1), ("last", 3)])
def test_training_ends_early_with_the_epoch_that_is_kept(tmp_path: Path, keep: str, kept: int) -> None:
    run = _Run(tmp_path, [0.5, 0.9, 0.8, 0.7], keep)
    assert len(run.curve) == 4 * 4, "two epochs after the best"
    torch.testing.assert_close(run.values, run.epochs[kept], rtol=0, atol=0)
    assert run.selection.facts().kept == kept + 1


@pytest.mark.parametrize("stop_after", [9, 12, 16])
def test_a_resumed_run_keeps_the_same_epoch(tmp_path: Path, stop_after: int) -> None:
    """The best is the second of four, which end after 8 and 16 steps; there are checkpoints at 9, 12 and 15."""
    values = [0.5, 0.9, 0.8, 0.7]
    undisturbed = _Run(tmp_path / "a", values, "best")
    with pytest.raises(KeyboardInterrupt):
        _Run(tmp_path / "b", values, "best", stop_after)
    # The last checkpoint is one of before the stop.
    saved = max(step for step in (6, 9, 12, 15) if step < stop_after)
    resumed = _Run(tmp_path / "b", values[saved // 4 :], "best")
    assert resumed.resumed_from == saved
    assert resumed.curve == undisturbed.curve
    assert resumed.selection.scores == undisturbed.selection.scores
    torch.testing.assert_close(resumed.values, undisturbed.values, rtol=0, atol=0)


def test_the_best_epoch_is_what_as_many_epochs_train(run_here: Callable, tmp_path: Path) -> None:
    """With a constant rate; a high one, so that the last epoch is not the best. Of `full`, whose embedding has rows
    that only shrink."""
    common = {"strategy": ["full"], "precision": "fp64", "data__size": 100, "optimizer__learning_rate": 2e-3}
    common |= {"save": True, "seed": [3]}
    (best,) = run_here(**common, results="best", training__epochs=4, training__keep="best", metric="macro_f1")
    epochs = best.epochs
    assert epochs is not None
    assert (epochs.metric, len(epochs.scores)) == ("macro_f1", 4)
    assert 1 <= epochs.kept < 4, "else it shows nothing: choose another seed"
    (short,) = run_here(**common, results="short", training__epochs=epochs.kept)
    assert best.metrics == short.metrics
    assert epochs.scores[epochs.kept - 1].value == best.metrics.validation.macro_f1
    assert predicted_by(tmp_path / "best", best) == predicted_by(tmp_path / "short", short)
    assert len(losses_of(tmp_path / "best", best)) == 4 * len(losses_of(tmp_path / "short", short)) / epochs.kept
    kept, trained = (_classifier(tmp_path / results) for results in ("best", "short"))
    torch.testing.assert_close(kept, trained, rtol=0, atol=0)
    assert f"kept epoch {epochs.kept} of 4 that ran" in (tmp_path / "best" / "table.md").read_text()


def _classifier(results: Path) -> dict[str, Tensor]:
    return load_file(results / "classifier" / "model.safetensors")


def test_a_checkpoint_is_of_its_configuration_wherever_the_data_lies(tmp_path: Path) -> None:
    config = {"data": {"name": "here/own.csv"}, "seed": 0}
    written = Manifest(sha256="", curve=TrainingCurve(), seconds=0, config=config)
    (tmp_path / "step-3.json").write_text(written.model_dump_json())
    Checkpoints(tmp_path, {**config, "data": {"name": "/there/own.csv"}}, 3).check_configuration()
    with pytest.raises(UserError, match=r"belongs to another configuration \(seed: 0, here 1\)"):
        Checkpoints(tmp_path, {**config, "seed": 1}, 3).check_configuration()
