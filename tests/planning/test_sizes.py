"""SIZES: learning curves over labels, with real runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from harness import commands
from harness.config.schema import DataConfig, TrainingConfig
from harness.config.suite import load_suite
from harness.data.dataset import load_dataset
from harness.data.splits import SPLITS
from harness.data.subsets import nested_subset
from harness.errors import UserError
from harness.planning.sizes import FEWEST_STEPS, epochs_at
from harness.report.across.label_curves import label_curves
from harness.report.analysis.grouping import groups
from harness.report.table.comparison_table import comparison_tables
from harness.results.record import Record
from harness.results.store import Store

SUITE = {
    "strategy": ["last_block", "tfidf", "zero_shot"],
    "model.name": "mini",
    "data.name": "synthetic",
    "data.size": 80,
    "training.epochs": 1,
    "seed": [0, 1],
    "sizes": "8,24,all",
}


def _run(folder: Path, changes: dict[str, object], assignments: list[str] | None = None) -> list[Record]:
    suite, store = load_suite(None, SUITE | changes, assignments or []), Store(folder / "results")
    assert commands.run_suite(Console(quiet=True), suite, store.results, folder / "cache", force=False) == 0
    return store.all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sizes")


@pytest.fixture(scope="module")
def records(folder: Path) -> list[Record]:
    return _run(folder, {})


def test_strategies_and_fitted_baselines_run_on_every_part_of_every_seed(records: list[Record]) -> None:
    ran = sorted((record.strategy, record.ok_data.sizes["train"], record.seed) for record in records)
    parts = [(size, seed) for size in (8, 24, 56) for seed in (0, 1)]
    # On all texts a baseline is the same with every seed; zero_shot trains on none.
    fitted = [("tfidf", *part) for part in parts if part != (56, 1)]
    assert ran == sorted([*(("last_block", *part) for part in parts), *fitted, ("zero_shot", 56, 0)])
    assert len({record.ok_data.sizes["test"] for record in records}) == 1


def test_features_are_computed_once_for_all_sizes_and_seeds(records: list[Record]) -> None:
    computed = [record.prefix.computed_tokens for record in records if record.prefix]
    assert sorted(map(bool, computed)) == [False] * 5 + [True]


def test_a_part_trains_as_a_file_with_these_texts_only(records: list[Record], tmp_path: Path) -> None:
    split = load_dataset(DataConfig(name="synthetic", size=80), tmp_path).split
    train = split["train"]
    split["train"] = train.iloc[nested_subset(train["label"], 24, seed=1)]
    rows = [part.assign(split=name) for name, part in split.items()]
    pd.concat(rows).to_csv(tmp_path / "texts.csv", index=False)
    drawn = next(record for record in records if _key(record) == ("last_block", 24, 1))
    changes = {
        "strategy": "last_block",
        "seed": 1,
        "sizes": None,
        "data.name": str(tmp_path / "texts.csv"),
        "data.size": None,
        "training.epochs": drawn.config["training"]["epochs"],
    }
    (alone,) = _run(tmp_path, changes)
    assert alone.ok_data.sizes == drawn.ok_data.sizes
    for part in SPLITS:
        losses = [getattr(record.ok_metrics, part).loss for record in (alone, drawn)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def _key(record: Record) -> tuple[str, int, int]:
    return record.strategy, record.ok_data.sizes["train"], record.seed


def test_the_curve_has_a_point_for_each_size(records: list[Record], folder: Path) -> None:
    (curves,) = label_curves(comparison_tables(groups(records), Store(folder / "results")))
    assert curves.sizes == [8, 24, 56]
    assert list(curves.family.rows) == ["last_block", "tfidf", "zero_shot"]
    for name, row in curves.family.rows.items():
        for size, cell in zip(curves.sizes, row, strict=True):
            alike = [one for one in records if (one.strategy, one.ok_data.sizes["train"]) == (name, size)]
            if name != "zero_shot":
                accuracies = [record.ok_metrics.test.accuracy for record in alike]
                assert cell.entry.accuracy == pytest.approx(np.mean(accuracies))
                seeds = [] if name == "last_block" else cell.entry.evidence.seeds
                assert seeds in ([], [0, 1]), "a draw of the texts is compared with the same draw"
    assert curves.family.comparisons == 6


def test_few_texts_train_for_as_many_steps_as_suffice() -> None:
    training = TrainingConfig(epochs=5, batch_size=8)
    assert epochs_at(training, 32, 1045) * 4 == FEWEST_STEPS
    assert epochs_at(training, 320, 1045) == 13, "500 steps in whole epochs of 40"
    assert epochs_at(training, 5000, 10_000) == 5, "these are many"
    assert epochs_at(training, 16, 80) * 2 == 50, "never more than on all texts"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes": "8,many"}, "SIZES='8,many': expected numbers"),
        ({"sizes": "8,8"}, "SIZES='8,8': a size is given twice"),
        ({"sizes": "8,56"}, "SIZES=56: synthetic has 56 training texts"),
        ({"sizes": "1,all"}, "training.texts=1: the training texts of synthetic have 2 classes"),
        ({"sizes": "4,all"}, "training.batch_size=8 is more than the 4 training texts"),
        ({"sizes": "8", "tune": "lr"}, "TUNE=lr with SIZES"),
        ({"sizes": None, "training.texts": 57}, "training.texts=57: synthetic has 56 training texts"),
    ],
)
def test_wrong_sizes_are_told_before_anything_runs(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        _run(tmp_path, changes)
    assert not Store(tmp_path / "results").all()
