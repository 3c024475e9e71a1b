"""Baselines in the table: beside every seed, at the end, and what does not beat the length rule is marked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from harness.report.analysis.comparison import compare
from harness.report.analysis.grouping import Group, groups
from harness.report.table.comparison_table import comparison_tables
from harness.report.table.formats import markdown
from harness.report.table.rows import table_rows
from harness.results.record import Record
from harness.results.store import Store


@pytest.fixture
def told_by_length(run_here: Callable, tmp_path: Path) -> list[Record]:
    """A strategy that learnt nothing beside a length rule that is always right."""
    texts = ["word " * (2 if number % 2 else 9) + str(number) for number in range(100)]
    frame = pd.DataFrame({"text": texts, "label": ["short" if number % 2 else "long" for number in range(100)]})
    frame.to_csv(tmp_path / "lengths.csv", index=False)
    data = str(tmp_path / "lengths.csv")
    return run_here(strategy=["length_rule", "head_only", "tfidf"], data__name=data, training__epochs=0)


def test_a_strategy_that_does_not_beat_the_length_rule_is_marked(told_by_length: list[Record], store: Store) -> None:
    rule, strategy, _ = told_by_length
    assert rule.metrics.test.accuracy == 1 > strategy.metrics.test.accuracy
    assert [row.name for row in table_rows(compare(Group(told_by_length), store))] == [
        "length_rule",
        "head_only †",
        "tfidf",
    ]
    assert "†: no better on test than length_rule" in markdown(comparison_tables(groups(told_by_length), store))
    level = strategy.model_copy(update={"metrics": rule.metrics})
    assert "†" in markdown(comparison_tables(groups([level, rule]), store)), "no better, where both are right always"
    worse = rule.model_copy(update={"metrics": strategy.metrics})
    assert "†" not in markdown(comparison_tables(groups([level, worse]), store))
    assert "†" not in markdown(comparison_tables(groups([strategy]), store)), "nothing to compare with"


def test_baselines_stand_last_and_win_nothing(told_by_length: list[Record], store: Store) -> None:
    text = markdown(comparison_tables(groups(told_by_length), store))
    places = [text.index(f"\n| {name} ") for name in ("head_only", "length_rule", "tfidf")]
    assert places == sorted(places)
    assert "Baselines: length_rule, tfidf." in text
    assert [any(row.best) for row in table_rows(compare(Group(told_by_length), store))] == [False, True, False]


def test_a_baseline_stands_beside_every_seed(run_here: Callable, store: Store) -> None:
    run_here(strategy=["head_only", "tfidf"], seed=[0, 1, 2], data__size=60, training__epochs=0)
    head_only, tfidf = compare(Group(store.all()), store)
    assert tfidf.evidence.seeds == [0, 1, 2]
    assert tfidf.evidence.difference == pytest.approx(tfidf.accuracy - head_only.accuracy)
    assert tfidf.interval == tfidf.records[0].metrics.test.interval
    assert compare(Group(store.all()), store, "tfidf")[0].evidence.difference == pytest.approx(
        -tfidf.evidence.difference
    )
    assert "| tfidf | - |" in markdown(comparison_tables(groups(store.all()), store))
