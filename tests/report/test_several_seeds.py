"""Several seeds of a strategy: one row, with its evidence beside the reference."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd
import pytest

from harness.report.analysis.comparison import compare
from harness.report.analysis.grouping import Group, groups
from harness.report.files import comparison, summary, write_tables
from harness.report.table.comparison_table import comparison_tables
from harness.report.table.formats import markdown
from harness.results.record import Record
from harness.results.store import Store
from harness.statistics import accuracy_interval, mcnemar, paired_difference
from tests.support.runs import untrained_run
from tests.support.tables import cells_of, printed

RATES = {"head_only": 0.6, "last_block": 0.95}
NEAR = {"head_only": 0.85, "last_block": 0.9}


@pytest.fixture(scope="module")
def run_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, pd.DataFrame]:
    return untrained_run(tmp_path_factory.mktemp("once"))


@pytest.fixture
def suite(run_once: tuple[Record, pd.DataFrame], store: Store) -> list[Record]:
    """Three seeds of two strategies on 80 test messages: copies of a run, each with right answers of its own."""
    run, predictions = run_once
    random, records = np.random.default_rng(0), []
    for strategy, seed in itertools.product(RATES, range(3)):
        changes = {"strategy": strategy, "seed": seed}
        copy = run.model_copy(
            update={**changes, "run_id": f"{strategy}-{seed}", "config": {**run.config, **changes}}, deep=True
        )
        store.write_predictions(copy.run_id, predictions)
        records.append(_predicting(copy, store, random.random(80) < RATES[strategy]))
    return records


def _predicting(record: Record, store: Store, right: np.ndarray) -> Record:
    """The record as if its model had been right about these test messages."""
    frame = store.predictions(record.run_id)
    other = frame["label"].map(dict(zip(record.data.classes, record.data.classes[::-1], strict=True)))
    store.write_predictions(record.run_id, frame.assign(predicted=frame["label"].where(right, other)))
    test = record.metrics.test.model_copy(update={"accuracy": float(right.mean()), "correct": int(right.sum())})
    changed = record.model_copy(update={"metrics": record.metrics.model_copy(update={"test": test})})
    store.write(changed)
    return changed


def _right(records: list[Record], store: Store, strategy: str) -> np.ndarray:
    frames = [pd.read_csv(store.runs / one.run_id / "predictions.csv") for one in records if one.strategy == strategy]
    return np.stack([frame["label"] == frame["predicted"] for frame in frames])


def test_several_seeds_are_one_row_with_their_mean_and_its_interval(suite: list[Record], store: Store) -> None:
    cells = cells_of(suite, store)
    assert len(cells) == 2
    for strategy, row in zip(("head_only", "last_block"), cells, strict=True):
        right = _right(suite, store, strategy)
        low, high = accuracy_interval(right)
        assert row["test % [95%]"] == f"{100 * right.mean():.2f} [{100 * low:.1f}, {100 * high:.1f}]"
        assert row["sd"] == f"{100 * right.mean(axis=1).std(ddof=1):.2f}"
        assert row["seeds"] == "3"
    text = printed(suite, 160, store)
    assert "other seeds and other test messages" in text
    assert "means over seeds" in text
    assert "Wilson" not in text
    assert len(summary(suite)) == 6, "summary.csv keeps a line for each run"


def test_comparison_json_holds_the_evidence(suite: list[Record], store: Store) -> None:
    write_tables(store)
    (table,) = json.loads((store.results / "comparison.json").read_text())
    head_only, last_block = table["rows"]
    assert last_block["evidence"] is None, "it is the reference"
    assert last_block["seeds"] == [0, 1, 2]
    found = head_only["evidence"]
    expected = paired_difference(*(_right(suite, store, name) for name in ("head_only", "last_block")))
    assert (found["reference"], found["verdict"], found["seeds"]) == ("last_block", "worse", [0, 1, 2])
    assert [found["difference"], *found["interval"], found["p"], found["corrected_p"]] == pytest.approx(
        [float(x) for x in (expected.estimate, expected.low, expected.high, expected.p, expected.p)]
    )
    (turned,) = comparison(comparison_tables(groups(suite), store, "head_only"))
    assert turned["rows"][1]["evidence"]["verdict"] == "better"
    assert turned["rows"][1]["evidence"]["difference"] == pytest.approx(-found["difference"])


def test_what_would_settle_an_open_row_is_told(suite: list[Record], store: Store) -> None:
    alike = [_predicting(record, store, np.arange(80) % 10 > record.seed % 2) for record in suite]
    text = markdown(comparison_tables(groups(alike), store))
    assert "no evidence" in text
    assert "No difference at all was seen: head_only." in text
    random = np.random.default_rng(3)
    near = [_predicting(one, store, random.random(80) < NEAR[one.strategy]) for one in suite]
    evidence = compare(Group(near), store)[0].evidence
    assert evidence.verdict == "no evidence"
    assert evidence.seeds_needed > 3
    assert f"head_only {evidence.seeds_needed} seeds" in markdown(comparison_tables(groups(near), store))


@pytest.mark.parametrize("told", [{}, {"data": None}])  # what the kernel has killed tells no facts of its data
def test_a_failed_seed_is_counted_and_told(suite: list[Record], store: Store, told: dict[str, None]) -> None:
    lost = suite[1].model_copy(update={"status": "oom", "error": "Traceback\nout of memory", "metrics": None, **told})
    records = [suite[0], lost, *suite[2:]]
    head_only = compare(Group(records), store)[0]
    assert head_only.evidence.seeds == [0, 2]
    assert cells_of(records, store)[0]["seeds"] == "2 of 3"
    for text in (printed(records, 120, store), markdown(comparison_tables(groups(records), store))):
        assert "seed 1 oom: out of memory" in text
        assert "Not in the values: 1 of 3 seeds of head_only" in text
        assert "Compared on 2 seeds only, which ended well for both: head_only" in text
    (table,) = comparison(comparison_tables(groups(records), store))
    assert table["rows"][0]["failed_seeds"] == {1: "oom"}


def test_one_seed_is_judged_as_a_pair_of_models(suite: list[Record], store: Store) -> None:
    ones = [record for record in suite if record.seed == 0]
    evidence = compare(Group(ones), store)[0].evidence
    expected = mcnemar(*(_right(ones, store, name)[0] for name in ("head_only", "last_block")))
    assert (evidence.p, evidence.verdict, evidence.seeds_needed) == (pytest.approx(float(expected.p)), "worse", None)
    text = markdown(comparison_tables(groups(ones), store))
    assert "very pairs of trained models (McNemar's test), not on the strategies" in text
    assert "how results vary from seed to seed is not in it" in text


def test_rows_on_other_messages_are_not_compared(suite: list[Record], store: Store) -> None:
    for record in suite[:3]:
        frame = pd.read_csv(store.runs / record.run_id / "predictions.csv")
        store.write_predictions(record.run_id, frame.assign(index=frame["index"] + 1))
    head_only = compare(Group(suite), store)[0]
    assert head_only.evidence is None
    low, high = head_only.interval
    assert low < head_only.accuracy < high
    assert "Not compared: head_only, since it was tested on other messages than last_block" in markdown(
        comparison_tables(groups(suite), store)
    )
    (store.runs / suite[0].run_id / "predictions.csv").unlink()
    assert f"{suite[0].run_id} has no predictions.csv" in markdown(comparison_tables(groups(suite), store))


def test_the_reference_must_be_among_the_rows(suite: list[Record], run_cli) -> None:
    code, out, _ = run_cli("table", "--reference", "head_only")
    assert (code, "vs head_only" in out) == (0, True)
    code, _, told = run_cli("table", "--reference", "full")
    assert (code, "expected one of head_only, last_block" in told) == (2, True)
    code, _, told = run_cli("run", "--strategy", "head_only", "--reference", "full", "--model", "mini")
    assert (code, "expected one of head_only" in told) == (2, True)


def _in_words(records: list[Record], store: Store, reference: str | None = None) -> str:
    (table,) = comparison_tables(groups(records), store, reference)
    assert " ".join(table.in_words) in markdown([table])
    return " ".join(table.in_words)


def test_a_comparison_in_words(suite: list[Record], store: Store) -> None:
    """A time of its own for each strategy: the better one takes longer."""
    timed = [
        one.model_copy(
            update={"seconds": one.seconds.model_copy(update={"total": 9.0 if "last" in one.strategy else 1.0})}
        )
        for one in suite
    ]
    accuracy = {entry.name: f"{100 * entry.accuracy:.2f}%" for entry in compare(Group(timed), store)}
    told = _in_words(timed, store)
    assert f"For accuracy nothing is shown to be better than last_block ({accuracy['last_block']})." in told
    assert "It also takes least time of all that are not shown to be worse (9.0 s)." in told, "the other is worse"
    assert "Not settled" not in told
    told = _in_words(timed, store, reference="head_only")
    assert f"For accuracy take last_block ({accuracy['last_block']}): better than head_only by" in told
    random = np.random.default_rng(3)
    near = [_predicting(one, store, random.random(80) < NEAR[one.strategy]) for one in timed]
    head_only = compare(Group(near), store)[0]
    told = _in_words(near, store)
    assert f"For cost take head_only ({100 * head_only.accuracy:.2f}%, 1.0 s)" in told
    assert "last_block takes 9.0 s." in told
    assert (
        f"Not settled against last_block: head_only. The nearest to it is head_only: {head_only.evidence.seeds_needed}"
        in told
    )
    assert "SEEDS=0..4" not in told
    assert "SEEDS=0..4 compares the strategies" in _in_words([one for one in near if one.seed == 0], store)
