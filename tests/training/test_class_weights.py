"""Class weights: scikit-learn's, applied as PyTorch applies them, and what they are for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight

from harness.config.schema import DataConfig, TrainingConfig
from harness.data.dataset import load_dataset
from harness.data.encoding import Examples
from harness.distributed.process_group import World
from harness.features.features import Features
from harness.training.batches import TrainingBatches
from harness.training.loss import loss_sum, part_of_step
from tests.support.runs import losses_of

CPU = torch.device("cpu")
# Three of four classes, unevenly: the training texts of a small file may lack one.
LABELS = np.random.default_rng(0).choice([0, 2, 3], 37, p=[0.7, 0.2, 0.1])


def _batches(rank: int, ranks: int, class_weights: str) -> TrainingBatches:
    ones, starts = np.ones(len(LABELS), dtype=np.int64), np.arange(len(LABELS))
    features = Features(torch.zeros(len(LABELS), dtype=torch.int64), starts, ones, CPU, None)
    examples = Examples(ones, np.arange(len(LABELS) + 1), ones, LABELS, starts, starts > 0, 0)
    training = TrainingConfig(micro_batch_size=3, drop_last=False, class_weights=class_weights)
    return TrainingBatches(features, examples, training, 0, World(rank, ranks, CPU))


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_the_loss_is_pytorchs_with_scikit_learns_weights_and_the_accuracy_has_none(
    ranks: int, class_weights: str
) -> None:
    """Over the rows of a global batch, whichever rank and micro-batch they are in."""
    weight = torch.ones(4, dtype=torch.float64)
    if class_weights == "balanced":
        weight[[0, 2, 3]] = torch.tensor(compute_class_weight("balanced", classes=np.array([0, 2, 3]), y=LABELS))
    logits = torch.randn(len(LABELS), 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels, of_ranks = torch.from_numpy(LABELS), [_batches(rank, ranks, class_weights) for rank in range(ranks)]
    for indices in of_ranks[0].of_epoch(0):
        result = torch.zeros(2, dtype=torch.float64)
        for batches in of_ranks:
            for (part, _), micro_batch in zip(batches._parts(indices), batches.local(indices), strict=True):
                loss = loss_sum(logits[part], micro_batch) / len(indices)
                result += part_of_step(loss, logits[part], micro_batch, len(indices))
        expected = F.cross_entropy(logits[indices], labels[indices], weight, reduction="sum") / len(indices)
        right = (logits[indices].argmax(dim=1) == labels[indices]).double().mean()
        assert result.tolist() == pytest.approx([expected.item(), right.item()], rel=1e-6)


def _unbalanced(folder: Path) -> Path:
    """A file with one text of spam for nine of ham."""
    texts = load_dataset(DataConfig(name="synthetic", size=2000), folder).source.texts
    spam = texts["label"] == "spam"
    path = folder / "unbalanced.csv"
    pd.concat([texts[~spam].head(540), texts[spam].head(60)]).to_csv(path, index=False)
    return path


def test_a_rare_class_that_plain_training_misses_is_found(run_here: Callable, tmp_path: Path) -> None:
    common = {"strategy": ["head_only"], "data__name": str(_unbalanced(tmp_path)), "training__epochs": 3}
    (plain,) = run_here(**common)
    (weighted,) = run_here(**common, training__class_weights="balanced")
    assert plain.metrics.test.balanced_accuracy < 0.55
    assert weighted.metrics.test.balanced_accuracy > plain.metrics.test.balanced_accuracy + 0.1
    results = tmp_path / "results"
    assert losses_of(results, weighted) != losses_of(results, plain)
