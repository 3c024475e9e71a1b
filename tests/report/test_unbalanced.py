"""Tables of unbalanced classes: what accuracy does not see, macro F1 and others show, and decide where asked."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, matthews_corrcoef

from harness.metrics import METRICS
from harness.report.analysis.comparison import compare
from harness.report.analysis.grouping import Group, groups
from harness.report.files import comparison, summary
from harness.report.table.comparison_table import comparison_tables
from harness.report.table.formats import csv, markdown
from harness.results.record import Record
from harness.results.store import Store
from harness.statistics import metric_difference, metric_interval
from tests.support.runs import untrained_run
from tests.support.tables import cells_of, printed

MACRO = METRICS["macro_f1"]
RARE = np.arange(400) % 10 == 0
# Which messages are called rare: one strategy never finds the class; the other does, at the price of as many mistakes.
CALLED_RARE = {
    "head_only": lambda seed: np.zeros(400, bool),
    "last_block": lambda seed: RARE | (np.arange(400) % 10 == 1 + seed),
}


@pytest.fixture(scope="module")
def run_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, pd.DataFrame]:
    return untrained_run(tmp_path_factory.mktemp("once"))


@pytest.fixture
def one(run_once: tuple[Record, pd.DataFrame]) -> Record:
    return run_once[0]


@pytest.fixture
def suite(one: Record, store: Store) -> list[Record]:
    """Three seeds of two strategies on 400 test messages of which a tenth is of the second class."""
    classes, records = np.array(one.ok_data.classes), []
    for strategy, seed in itertools.product(CALLED_RARE, range(3)):
        config = {**one.config, "strategy": strategy, "seed": seed}
        changes = {"strategy": strategy, "seed": seed, "run_id": f"{strategy}-{seed}", "config": config}
        records.append(one.model_copy(update=changes, deep=True))
        predicted = classes[CALLED_RARE[strategy](seed).astype(int)]
        frame = pd.DataFrame({"index": np.arange(400), "label": classes[RARE.astype(int)], "predicted": predicted})
        store.write_predictions(records[-1].run_id, frame)
        store.write(records[-1])
    return records


def _predicted(strategy: str) -> np.ndarray:
    return np.stack([CALLED_RARE[strategy](seed) for seed in range(3)]).astype(int)


def test_a_record_holds_scikit_learns_values(run_once: tuple[Record, pd.DataFrame]) -> None:
    (one, frame), test = run_once, run_once[0].ok_metrics.test
    pair = frame["label"], frame["predicted"]
    found = (test.macro_f1, test.balanced_accuracy, test.mcc)
    expected = (f1_score(*pair, average="macro"), balanced_accuracy_score(*pair), matthews_corrcoef(*pair))
    assert found == pytest.approx(expected)
    columns = summary([one]).columns
    assert {f"metrics.{part}.macro_f1" for part in ("train", "validation", "test")} <= set(columns)


def test_an_older_record_is_read_without_them(one: Record) -> None:
    older = json.loads(one.model_dump_json())
    for part in ("train", "validation", "test"):
        for name in ("macro_f1", "balanced_accuracy", "mcc"):
            del older["metrics"][part][name]
    assert Record.model_validate(older).ok_metrics.test.mcc is None


def test_every_metric_has_a_column_with_its_interval(suite: list[Record], store: Store) -> None:
    for strategy, row in zip(CALLED_RARE, cells_of(suite, store), strict=True):
        for metric in list(METRICS.values())[1:]:
            values = metric(RARE.astype(int), _predicted(strategy))
            low, high = metric_interval(metric, RARE.astype(int), _predicted(strategy))
            shown = f"{100 * values.mean():.2f} [{100 * low:.1f}, {100 * high:.1f}]"
            assert row[f"{metric.title} % [95%]"] == shown
    (table,) = comparison_tables(groups(suite), store)
    assert {"macro F1 low", "balanced accuracy high", "MCC"} <= set(csv([table]).partition("\n")[0].split(","))
    (data,) = comparison([table])
    assert set(data["rows"][0]["test_metrics"]) == {"macro_f1", "balanced_accuracy", "mcc"}


def _titles(text: str) -> str:
    return next(line for line in text.splitlines() if line.strip().startswith("strategy"))


def test_a_terminal_shows_them_where_classes_are_unbalanced_or_one_is_asked_for(
    suite: list[Record], store: Store
) -> None:
    assert "macro F1" in _titles(printed(suite, 250, store))
    classes = suite[0].ok_data.classes
    for record in suite:
        frame = store.predictions(record.run_id).assign(label=[classes[n % 2] for n in range(400)])
        store.write_predictions(record.run_id, frame)
    assert "macro F1" not in _titles(printed(suite, 250, store))
    assert "macro F1" in _titles(printed(suite, 100, store, metric=MACRO))
    assert "macro F1 % [95%]" in markdown(comparison_tables(groups(suite), store)), "files have them always"


def test_the_metric_decides(suite: list[Record], store: Store) -> None:
    """By accuracy the two are alike, by macro F1 they are not."""
    by_accuracy = compare(Group(suite), store)[0].evidence
    assert (by_accuracy.verdict, by_accuracy.difference) == ("no evidence", pytest.approx(0))
    evidence = compare(Group(suite), store, metric=MACRO)[0].evidence
    expected = metric_difference(MACRO, RARE.astype(int), _predicted("head_only"), _predicted("last_block"))
    assert evidence.verdict == "worse"
    assert [evidence.difference, *evidence.interval, evidence.p] == pytest.approx(
        [float(value) for value in (expected.estimate, expected.low, expected.high, expected.p)]
    )
    (table,) = comparison_tables(groups(suite), store, metric=MACRO)
    told = markdown([table])
    assert "points of macro F1 on the same messages and seeds" in told
    assert comparison([table])[0]["metric"] == "macro_f1"
    titles = [column.title for column in table.columns]
    assert titles.count("macro F1 % [95%]") == 1
    assert titles.index("macro F1 % [95%]") == titles.index("test % [95%]") + 1


def test_no_number_of_seeds_is_claimed_where_there_is_no_formula(suite: list[Record], store: Store) -> None:
    alike = [record for record in suite if record.strategy == "last_block"]
    for record in suite[:3]:  # of head_only
        frame = store.predictions(alike[record.seed].run_id)
        frame.loc[[20, 30 + record.seed], "predicted"] = frame["label"][0:2].to_numpy()
        store.write_predictions(record.run_id, frame)
    entries = compare(Group(suite), store, metric=MACRO)
    assert entries[0].evidence.verdict == "no evidence"
    assert (entries[0].evidence.seeds_needed, entries[0].evidence.messages_needed) == (None, None)
    assert "needed to show" not in markdown(comparison_tables(groups(suite), store, metric=MACRO)).lower()


def test_one_seed_is_judged_by_its_messages(suite: list[Record], store: Store) -> None:
    ones = [record for record in suite if record.seed == 0]
    told = markdown(comparison_tables(groups(ones), store, metric=MACRO))
    assert "very pairs of trained models (bootstrap over messages)" in told
    assert "McNemar" not in told


def test_the_commands_take_it(suite: list[Record], run_cli, tmp_path) -> None:
    code, out, _ = run_cli("table", "--metric", "macro_f1", "--columns", "macro,verdict")
    assert code == 0
    assert "points of macro F1" in out
    assert "points of macro F1" in (tmp_path / "results" / "table.md").read_text()
    assert run_cli("report", "--metric", "mcc")[0] == 0
    assert "points of MCC" in (tmp_path / "results" / "report.html").read_text()
    for command in ("table", "report", "run"):
        code, _, told = run_cli(command, "--metric", "f1")
        assert code == 2
        assert "METRIC='f1': expected one of accuracy, macro_f1, balanced_accuracy, mcc." in told


def test_a_class_that_the_record_does_not_know_is_an_error(suite: list[Record], store: Store, run_cli) -> None:
    frame = store.predictions(suite[0].run_id)
    store.write_predictions(suite[0].run_id, frame.assign(predicted="another"))
    code, _, told = run_cli("table")
    assert code == 2
    assert f"predictions of '{suite[0].run_id}' can't be read as predictions (class 'another'" in told
