"""What is said over several tables: learning curves over labels, and comparisons over data sets."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, rankdata

from harness.report.across.data_sets import DataSets, data_sets, data_sets_matrix
from harness.report.across.label_curves import LabelCurves, curves_in_words, label_curves
from harness.report.analysis.grouping import groups
from harness.report.files import write_tables
from harness.report.page import write_report
from harness.report.table.comparison_table import comparison_tables
from harness.results.record import Record
from harness.results.store import Store
from harness.statistics import holm
from tests.support.runs import untrained_run

ROWS = ("head_only", "last_block", "full")


@pytest.fixture(scope="module")
def run_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, pd.DataFrame]:
    return untrained_run(tmp_path_factory.mktemp("once"))


Write = Callable[[str, int, float, dict[str, object]], None]


@pytest.fixture
def write(run_once: tuple[Record, pd.DataFrame], store: Store) -> Write:
    """Writes a copy of a run that was right on a part of its test messages, drawn by seed and accuracy."""
    run, predictions = run_once

    def write(strategy: str, seed: int, accuracy: float, changes: dict[str, object]) -> None:
        data = run.data.model_copy(update=changes.pop("facts", {}))
        config = {**run.config, **changes, "strategy": strategy, "seed": seed}
        name = f"{strategy}-{len(store.all())}"
        right = np.random.default_rng([seed, int(1000 * accuracy)]).random(len(predictions)) < accuracy
        other = predictions["label"].map(dict(zip(data.classes, data.classes[::-1], strict=True)))
        store.write_predictions(name, predictions.assign(predicted=predictions["label"].where(right, other)))
        test = run.metrics.test.model_copy(update={"accuracy": float(right.mean()), "correct": int(right.sum())})
        update = {"run_id": name, "identity": name, "strategy": strategy, "seed": seed, "config": config, "data": data}
        store.write(run.model_copy(update=update | {"metrics": run.metrics.model_copy(update={"test": test})}))

    return write


def _at_size(texts: int | None, available: int = 500) -> dict[str, object]:
    sizes = {"train": texts or available, "validation": 8, "test": 80}
    return {"training": {"texts": texts, "epochs": 9 if texts else 5, "batch_size": 8}, "facts": {"sizes": sizes}}


@pytest.fixture
def curves(write: Write, store: Store) -> LabelCurves:
    """full overtakes last_block with 100 texts, head_only falls behind with 500."""
    accuracies = {"head_only": (0.5, 0.5, 0.5), "last_block": (0.5, 0.5, 0.96), "full": (0.5, 0.95, 0.97)}
    for strategy, of_sizes in accuracies.items():
        for (size, accuracy), seed in itertools.product(zip((32, 100, None), of_sizes, strict=True), range(5)):
            write(strategy, seed, accuracy, _at_size(size))
    (found,) = label_curves(comparison_tables(groups(store.all()), store))
    return found


def test_words_name_the_size_from_which_on_a_difference_is_shown(curves: LabelCurves) -> None:
    assert curves.sizes == [32, 100, 500]
    told = " ".join(curves_in_words(curves))
    assert "last_block is shown to be better than head_only from 500 training texts on." in told
    # At 500 texts the difference to full is too small to be shown, so it is not said to last.
    assert "full is shown to be better than last_block at 100 training texts, not at more." in told


def test_verdicts_along_a_curve_hold_together(curves: LabelCurves) -> None:
    family = curves.family
    cells = [(name, number) for name in ("head_only", "full") for number in range(3)]
    p = np.array([family.rows[name][number].entry.evidence.p for name, number in cells])
    assert family.comparisons == len(p)
    for (name, number), corrected in zip(cells, holm(p), strict=True):
        assert (family.rows[name][number].verdict == "no evidence") == (corrected >= 0.05)


def test_files_and_page_hold_the_curve(curves: LabelCurves, store: Store, tmp_path: Path) -> None:
    write_report(store, store.all(), [], tmp_path)
    assert f"### {curves.heading}" in (store.results / "table.md").read_text()
    (data,) = [one for one in json.loads((store.results / "comparison.json").read_text()) if "sizes" in one]
    assert data["sizes"] == curves.sizes
    assert data["rows"]["full"][1]["verdict"] == "better"
    assert "How many labels are enough" in (store.results / "report.html").read_text()
    assert (store.results / "plots" / "labels1_labels.svg").is_file()


def _on_data_sets(write: Write, count: int, seeds: int = 3) -> None:
    for number, seed in itertools.product(range(count), range(seeds)):
        for strategy, accuracy in zip(ROWS, (0.5, 0.7, 0.9), strict=True):
            facts = {"name": f"set{number}", "sha256": f"hash {number}"}
            write(strategy, seed, accuracy + 0.01 * number, {"data": {"name": f"set{number}"}, "facts": facts})


def _compared(store: Store) -> DataSets:
    (found,) = data_sets(comparison_tables(groups(store.all()), store))
    return found


def test_ranks_over_data_sets_agree_with_demsar(write: Write, store: Store) -> None:
    _on_data_sets(write, 6)
    found = _compared(store)
    means = np.array([[cell.entry.accuracy for cell in found.family.rows[name]] for name in ROWS]).T
    mean_ranks = rankdata(-means, axis=1).mean(axis=0)
    assert [found.mean_ranks[name] for name in ROWS] == pytest.approx(mean_ranks)
    pairs = list(itertools.combinations(range(len(ROWS)), 2))
    unit = np.sqrt(len(ROWS) * (len(ROWS) + 1) / (6 * len(means)))
    p = 2 * norm.sf([abs(mean_ranks[one] - mean_ranks[other]) / unit for one, other in pairs])
    given = [found.ranks.pairs.loc[ROWS[one], ROWS[other]] for one, other in pairs]
    assert given == pytest.approx(holm(p))
    told = " ".join(data_sets_matrix(found).in_words)
    assert "full has the best mean rank (1.00)" in told
    assert "above head_only" in told


def test_nothing_is_claimed_from_fewer_than_five_data_sets(write: Write, store: Store) -> None:
    _on_data_sets(write, 4, seeds=2)
    found = _compared(store)
    assert found.ranks is None
    assert "not claimed from fewer than 5" in " ".join(data_sets_matrix(found).in_words)
    write_tables(store)
    assert "mean rank" in (store.results / "table.md").read_text()


def test_a_row_that_misses_a_data_set_has_no_rank(write: Write, store: Store) -> None:
    _on_data_sets(write, 5, seeds=2)
    write("lora", 0, 0.9, {"data": {"name": "set0"}, "facts": {"name": "set0", "sha256": "hash 0"}})
    found = _compared(store)
    assert "lora" not in found.mean_ranks
    (row,) = [cells for name, *cells in data_sets_matrix(found).cells if name == "lora"]
    assert row[1:-1] == ["-"] * 5, "no verdict on the others, no rank"
