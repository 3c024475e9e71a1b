"""What a record and a table say of calibration."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy.special import log_softmax

from harness.report.analysis.grouping import groups
from harness.report.table.comparison_table import ComparisonTable, comparison_tables
from harness.results.record import Record
from harness.results.store import Store

SMALL = {"training__epochs": 1, "data__size": 200}


def _table(records: list[Record], store: Store) -> ComparisonTable:
    (group,) = groups(records)
    (table,) = comparison_tables([group], store)
    return table


def _cells(table: ComparisonTable, column: str) -> list[str]:
    index = [one.name for one in table.columns].index(column)
    return [row.cells[index] for row in table.rows]


def test_strategies_and_baselines_are_calibrated(run_here: Callable, store: Store) -> None:
    trained, tfidf, majority = run_here(strategy=["last_block", "tfidf", "majority"], **SMALL)
    for record in (trained, tfidf):
        frame = pd.read_csv(store.runs / record.run_id / "predictions.csv")
        classes = record.ok_data.classes
        likelihoods = frame[[f"probability_{name}" for name in classes]].to_numpy()
        labels = frame["label"].map(classes.index).to_numpy()
        assert record.calibration.temperature not in (None, 1)
        scaled = log_softmax(np.log(likelihoods) / record.calibration.temperature, axis=1)
        loss = -scaled[np.arange(len(labels)), labels].mean()
        assert record.calibration.test_loss == pytest.approx(loss, abs=1e-6)
        assert (scaled.argmax(axis=1) == likelihoods.argmax(axis=1)).all()
        confidence, right = np.exp(scaled.max(axis=1)), scaled.argmax(axis=1) == labels
        bins = [(edge / 15 < confidence) & (confidence <= (edge + 1) / 15) for edge in range(15)]
        error = sum(part.mean() * abs((right - confidence)[part].mean()) for part in bins if part.any())
        assert record.calibration.test_calibration_error == pytest.approx(error, abs=1e-6)
    assert majority.calibration.temperature is None
    table = _table([trained, tfidf, majority], store)
    of_trained, of_tfidf = (f"{record.calibration.test_calibration_error:.3f}" for record in (trained, tfidf))
    assert _cells(table, "scaled ECE") == [of_trained, "-", of_tfidf]
    assert "No temperature for majority: every validation text gets the same logits." in table.notes
    assert any("fitted on validation" in note for note in table.notes)


def test_a_row_whose_seeds_lack_a_temperature_is_not_best(run_here: Callable, store: Store) -> None:
    records = run_here(strategy=["head_only", "last_block"], seed=[0, 1], **SMALL)
    one = records[0]
    reason = "every validation text is classified right"
    without = one.calibration.model_copy(
        update={"temperature": None, "not_fitted": reason, "test_loss": None, "test_calibration_error": None}
    )
    best = records[1].calibration.model_copy(update={"test_calibration_error": 0.0})
    changed = [{"calibration": without}, {"calibration": best}, {}, {}]
    table = _table([one.model_copy(update=new) for one, new in zip(records, changed, strict=True)], store)
    index = [column.name for column in table.columns].index("scaled ECE")
    assert table.rows[0].cells[index] == "0.000"
    assert [row.best[index] for row in table.rows] == [False, False]
    assert f"No temperature for head_only on 1 of 2 seeds: {reason}." in table.notes


def test_older_records_stand_in_a_table_without_it(run_here: Callable, store: Store) -> None:
    (record,) = run_here(strategy=["head_only"], **SMALL)
    table = _table([record.model_copy(update={"calibration": None})], store)
    assert "ECE" in [column.name for column in table.columns]
    assert not any("scaled" in text for text in [*(column.name for column in table.columns), *table.notes])
