"""How runs are judged against published figures, and how the table shows it."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from harness import commands
from harness.config.suite import Published, load_suite
from harness.report.analysis.published import PARTS, JudgedRow, judge
from harness.report.table.published import print_published, published_notes
from harness.results.record import Record
from harness.results.store import Store
from harness.results.suites import SavedRow, SavedSuite
from harness.statistics import next_run_interval


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    tmp_path = tmp_path_factory.mktemp("record")
    suite = load_suite(None, {"model.name": "mini", "data.name": "synthetic", "data.size": 100}, ["training.epochs=0"])
    commands.run_suite(Console(quiet=True), suite, tmp_path / "made", tmp_path / "cache", False)
    (made,) = Store(tmp_path / "made").all()
    return made


def _made_up(record: Record, correct: list[int]) -> list[Record]:
    """A run for each count of right answers, of 300 in each part."""
    made = []
    for seed, count in enumerate(correct):
        copied = record.model_copy(deep=True, update={"seed": seed, "identity": f"id {seed}"})
        copied.metrics.train_batches = None
        for part in PARTS:
            metrics = getattr(copied.metrics, part)
            metrics.correct, metrics.total, metrics.accuracy = count, 300, count / 300
        made.append(copied)
    return made


def _judge(records: list[Record], **about: object) -> JudgedRow:
    figures = {"train": 95.0, "validation": 95.0, "test": 95.0, "number": 1} | about.pop("published", {})
    row = {"name": "a row", "published": Published(**figures), "changed": [], "skipped": None} | about
    suite = SavedSuite(
        name="s", source=None, rows=[SavedRow(**row, identities=[record.identity for record in records])]
    )
    (line,) = judge(suite, records)
    return line


def test_verdicts_on_made_up_records(record: Record) -> None:
    near = _made_up(record, [285, 287, 284])
    assert _judge(near).verdict == "agrees"
    assert _judge(near).figures["test"].ours == pytest.approx(100 * 856 / 900)
    off = _judge(near, published={"test": 91.0})
    assert off.verdict == "differs: test"
    assert "1 of 3 judged figures differ" in " ".join(published_notes([off]))
    assert _judge(near, published={"train": 91.0, "test": 91.0}).verdict == "differs: train, test"
    assert _judge(near, published={"validation": 20.0, "misprint": ("validation",)}).verdict == "agrees"
    assert _judge(near, published={"copy_of": 7}).verdict == "not judged: computes the same as row 7"
    assert _judge(near, changed=["training.epochs=1 instead of 5"]).verdict == (
        "not judged: training.epochs=1 instead of 5"
    )
    assert _judge([]).verdict == "not judged: not run"
    one = _made_up(record, [285])
    assert _judge(one, published={"test": 92.0}).verdict == "agrees", "one run leaves room for the luck of both"
    assert _judge(one, published={"test": 85.0}).verdict == "differs: test"


def test_a_run_that_failed_is_not_judged_and_the_others_are(record: Record) -> None:
    failed = [each.model_copy(update={"status": "diverged", "metrics": None}) for each in _made_up(record, [285])]
    assert _judge(failed).verdict == "not judged: diverged"
    assert _judge(failed).figures["test"].ours is None
    two, lost = _made_up(record, [285, 286, 0])[:2], _made_up(record, [0, 0, 0])[2:]
    lost = [each.model_copy(update={"status": "oom", "metrics": None}) for each in lost]
    assert (_judge(two + lost).seeds, _judge(two + lost).verdict) == ([0, 1], "agrees")


@pytest.mark.parametrize("width", [80, 160])
def test_the_table_fits_the_terminal(record: Record, width: int) -> None:
    records = _made_up(record, [285, 287])
    row = SavedRow(
        name="[red]a row",
        published=Published(number=1, train=95, validation=95, test=95, minutes=1),
        changed=[],
        skipped=None,
        identities=[each.identity for each in records],
    )
    console = Console(file=io.StringIO(), width=width)
    print_published(console, SavedSuite(name="s", source=None, rows=[row]), records)
    printed = console.file.getvalue()
    assert max(map(len, printed.splitlines())) <= width
    assert "[red]a row" in printed
    assert "agrees" in printed
    assert ("minutes" in printed.split("[95%]:")[0]) == (width == 160)


@pytest.mark.parametrize("now", [1, 150, 285, 299])
def test_one_run_predicts_what_the_score_test_can_not_tell_from_it(now: int) -> None:
    for bound in next_run_interval([now], 300):
        count = bound * 300
        if 0 < count < 300:
            table = [[now, 300 - now], [count, 300 - count]]
            assert stats.chi2_contingency(table, correction=False).pvalue == pytest.approx(0.05)
    assert next_run_interval([300], 300)[1] == pytest.approx(1.0)
    assert 0.98 < next_run_interval([300], 300)[0] < 0.99


def test_several_runs_predict_by_their_spread() -> None:
    low, high = next_run_interval([285, 288, 279], 300)
    # mean 284, deviation sqrt((1 + 16 + 25) / 2), t(2) of a table
    assert [300 * low, 300 * high] == pytest.approx([284 - 4.302653 * math.sqrt(21 * 4 / 3), 300])
    equal = next_run_interval([280, 280, 280, 280], 300)
    assert 300 * equal[1] == pytest.approx(280 + 3.182446 * 0.5 * math.sqrt(5 / 4))
    assert 300 * equal[0] < 279, "equal counts leave room for another one"


@pytest.mark.parametrize("runs", [1, 2, 3, 5, 10])
@pytest.mark.parametrize("deviation", [0.3, 1.0, 5.0])
def test_the_next_run_falls_into_its_interval_nineteen_times_in_twenty(runs: int, deviation: float) -> None:
    generator = np.random.default_rng([runs, int(10 * deviation)])
    if runs == 1:  # independent answers to texts of differing difficulty
        shares = generator.beta(deviation * 9, deviation, 300)
        counts = (generator.random((1_000, 2, 300)) < shares).sum(axis=2)
    else:
        counts = np.round(generator.normal(270 + generator.random((1_000, 1)), deviation, (1_000, runs + 1)))
    covered = [
        low - 1e-9 <= drawn[-1] / 300 <= high + 1e-9
        for drawn in counts.astype(int)
        for low, high in [next_run_interval(drawn[:-1], 300)]
    ]
    assert np.mean(covered) > 0.93
