"""`harness.compare`: what the command line gives, for texts in memory."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import harness
from harness import Comparison, TextClassifier, UserError, compare
from harness.config.schema import DataConfig
from harness.data.dataset import load_dataset
from harness.results import saved_classifier
from harness.results.record import Record
from harness.results.store import Store
from tests.support.runs import ROOT, run_command

STRATEGIES = ["last_block", "head_only", "majority"]
SMALL: dict[str, Any] = {"model": "mini", "epochs": 1, "quiet": True}
# Of a record: what was measured, and when.
MEASURED = {"seconds", "throughput", "memory", "energy", "finished_at", "step_milliseconds", "environment", "prefix"}


def _texts(size: int = 120) -> pd.DataFrame:
    frame = load_dataset(DataConfig(name="synthetic", size=size), Path()).source.texts
    return frame.assign(label=(frame["label"] == "spam").astype(int))


@dataclass(frozen=True)
class Made:
    folder: Path
    comparison: Comparison

    @property
    def file(self) -> str:
        (path,) = (self.folder / "results" / "data").iterdir()
        return str(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    return Made(folder, _compare(folder, seeds=range(2)))


def _compare(folder: Path, strategies: Any = tuple(STRATEGIES), data: Any = None, **options: Any) -> Comparison:
    places = {"results": folder / "results", "cache": folder / "cache"}
    return compare(_texts() if data is None else data, strategies, **{**SMALL, **places, **options})


def _unmeasured(record: Record) -> dict[str, Any]:
    return record.model_dump(mode="json", exclude=MEASURED)


def test_its_records_are_those_of_the_command_line(made: Made, tmp_path: Path) -> None:
    options = ["--strategy", ",".join(STRATEGIES), "--seeds=0,1", "--model=mini", "--epochs=1", "--data", made.file]
    run_command(tmp_path, "run", *options, "--set", "data.text_column=text data.label_column=label")
    by_command = {record.run_id: _unmeasured(record) for record in Store(tmp_path / "results").all()}
    assert {record.run_id: _unmeasured(record) for record in made.comparison.records} == by_command
    assert len(by_command) == 5
    written = pd.read_csv(tmp_path / "results" / "summary.csv")
    shown = made.comparison.table.set_index("strategy")
    for strategy, accuracies in written.groupby("strategy")["metrics.test.accuracy"]:
        assert shown.loc[strategy, "test"] == pytest.approx(accuracies.mean())


def test_the_table_is_what_the_command_line_prints_with_numbers(made: Made, run_cli: Callable) -> None:
    _, printed, _ = run_cli("table", "--format", "csv", results=made.folder / "results")
    assert made.comparison.table.to_csv(index=False).strip() == printed.strip()
    table = made.comparison.table
    assert set(table["strategy"]) == set(STRATEGIES)
    assert (table["test low"] <= table["test"]).all()
    assert (table["test"] <= table["test high"]).all()


def test_verdicts_are_the_evidence_of_the_table(made: Made) -> None:
    verdicts = made.comparison.verdicts.set_index("strategy")
    assert set(verdicts.index) == {"head_only", "majority"}
    assert set(verdicts["reference"]) == {"last_block"}
    assert set(verdicts["verdict"]) <= {"better", "worse", "no evidence"}
    means = made.comparison.table.set_index("strategy")["test"]
    for strategy, row in verdicts.iterrows():
        assert row["difference"] == pytest.approx(means[strategy] - means["last_block"])
        assert row["low"] <= row["difference"] <= row["high"]
        assert (row["p"] < 0.05) == (row["verdict"] != "no evidence")
    assert "last_block" in made.comparison.in_words


def test_the_same_call_and_the_same_command_find_the_runs_done(made: Made, run_cli: Callable) -> None:
    again = _compare(made.folder, seeds="0..1")
    assert {one.run_id: one.finished_at for one in again.records} == {
        one.run_id: one.finished_at for one in made.comparison.records
    }
    options = ["--strategy", "head_only", "--seeds=1", "--model=mini", "--epochs=1", "--data", made.file]
    places = {"results": made.folder / "results"}
    columns = "data.text_column=text data.label_column=label"
    code, printed, _ = run_cli("run", *options, "--set", columns, "--cache", str(made.folder / "cache"), **places)
    assert code == 0
    assert "done before, not run again" in printed


def test_predictions_are_of_rows_of_the_data(made: Made) -> None:
    found = made.comparison.predictions("head_only")
    assert found["seed"].unique().tolist() == [0, 1]
    assert found["label"].tolist() == _texts()["label"].iloc[found["index"]].tolist(), "as they were given"
    of_table = made.comparison.table.set_index("strategy").loc["head_only", "test"]
    assert (found["label"] == found["predicted"]).mean() == pytest.approx(of_table)
    with pytest.raises(UserError, match="unknown strategy 'head_onyl' of this comparison: did you mean 'head_only'"):
        made.comparison.predictions("head_onyl")


def test_the_best_predicts_as_in_its_run_with_labels_of_the_given_type(made: Made, tmp_path: Path) -> None:
    best = made.comparison.best
    assert isinstance(best, TextClassifier)
    assert best.classes_.tolist() == [0, 1]
    about = saved_classifier.read(made.folder / "results" / "classifier")
    written = Store(made.folder / "results").predictions(about.run_id)
    assert written is not None
    tested = _texts()["text"].iloc[written["index"]]
    assert best.predict(tested).tolist() == written["predicted"].astype(int).tolist()
    best.save(tmp_path / "mine")
    loaded = TextClassifier.load(tmp_path / "mine", made.folder / "cache")
    assert np.array_equal(loaded.predict(tested), best.predict(tested))
    assert loaded.get_params()["strategy"] == about.strategy
    assert loaded.get_params()["epochs"] == 1


def test_the_best_is_saved_with_what_its_run_left(made: Made, tmp_path: Path) -> None:
    kept = made.folder / "results" / "classifier"
    made.comparison.best.save(tmp_path / "mine")
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {path.name for path in kept.iterdir()}
    about = saved_classifier.read(tmp_path / "mine")
    assert about.is_tested
    (record, predictions), (expected, written) = saved_classifier.origin(tmp_path / "mine", about), _origin(kept)
    assert record == expected is not None
    assert predictions is not None
    assert predictions.equals(written)


def _origin(folder: Path) -> tuple[Record | None, pd.DataFrame | None]:
    return saved_classifier.origin(folder, saved_classifier.read(folder))


def test_plots_are_figures_that_are_named_where_there_is_none(made: Made) -> None:
    assert isinstance(made.comparison.plot(), Figure)
    assert made.comparison.plot("accuracy_time").axes[0].get_xlabel()
    with pytest.raises(UserError, match="unknown plot 'acuracy' of this comparison: did you mean 'accuracy'"):
        made.comparison.plot("acuracy")


def test_a_terminal_and_a_notebook_show_the_table_and_the_answer(made: Made) -> None:
    html, text = made.comparison._repr_html_(), repr(made.comparison)
    for shown in (html, text):
        assert all(strategy in shown for strategy in STRATEGIES)
        assert made.comparison.in_words[:40] in shown
    assert "\x1b" not in text
    assert html.count("<tr>") == 1 + len(STRATEGIES)
    assert "<script" not in html


def test_what_a_notebook_shows_is_escaped(tmp_path: Path) -> None:
    file = tmp_path / "<b>mine.csv"
    _texts(60).to_csv(file, index=False)
    html = _compare(tmp_path, ["majority"], file)._repr_html_()
    assert "<b>" not in html
    assert "&lt;b&gt;mine.csv" in html


INTERRUPTED_ONCE = """
import os, signal
from pathlib import Path
from harness import Strategy

def build(backbone):
    mark = Path(__file__).with_suffix(".mark")
    if not mark.exists() and not next(backbone.parameters()).is_meta:
        mark.touch()
        os.kill(os.getpid(), signal.SIGINT)
    for parameter in backbone.blocks[-1].parameters():
        parameter.requires_grad_(True)

strategy = Strategy(trainable=(), build=build, cacheable=False)
"""


def test_an_interrupted_call_leaves_what_is_finished_and_the_same_call_goes_on(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(INTERRUPTED_ONCE)
    store = Store(tmp_path / "results")
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    with pytest.raises(KeyboardInterrupt):
        _compare(tmp_path, ["head_only", own])
    finished = {record.strategy: record for record in store.all() if record.status == "ok"}
    assert set(finished) == {"head_only"}
    assert (tmp_path / "results" / "table.md").exists()
    done = _compare(tmp_path, ["head_only", own])
    assert [record.status for record in done.records] == ["ok", "ok"]
    assert finished["head_only"] in done.records
    after = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    assert after == before, "the process is not ours"


def test_it_runs_outside_of_the_main_thread(tmp_path: Path) -> None:
    found: list[Comparison] = []
    thread = threading.Thread(target=lambda: found.append(_compare(tmp_path, ["head_only"], _texts(60))))
    thread.start()
    thread.join()
    assert found[0].records[0].status == "ok"


def test_a_baseline_alone_and_several_data_sets_have_no_best(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no classifier is kept of this comparison"):
        _ = _compare(tmp_path, "majority", _texts(60)).best
    several = _compare(tmp_path, "majority", ["synthetic", "negation"], settings={"data.size": 60})
    assert len(several.records) == 2
    assert several.table["table"].nunique() == 2


def test_the_best_of_another_comparison_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    first = _compare(tmp_path, "head_only", _texts(60))
    _compare(tmp_path, "head_only", _texts(60), seeds=1)
    with pytest.raises(UserError, match="holds the classifier of another comparison since"):
        _ = first.best


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epoch": 3}, "compare(...) has no option 'epoch': did you mean 'epochs'?"),
        ({"matric": "mcc"}, "compare(...) has no option 'matric': did you mean 'metric'?"),
        ({"node_rank": 1}, "compare(...) has no option 'node_rank'"),
        ({"strategies": "last_blok"}, "did you mean 'last_block'?"),
        ({"strategies": []}, "configuration key 'strategy' is an empty list"),
        ({"settings": {"training.epoch": 1}}, "unknown configuration key 'training.epoch'"),
        ({"data": {"text": ["a"]}}, "data is a dict: expected a DataFrame, a pair of texts and labels"),
        ({"data": (["a", "b"], [0, 1]), "text": "review"}, "text and label name columns"),
        ({"data": (["a", None], [0, 1])}, "1 of 2 texts are missing"),
        ({"data": pd.DataFrame({"a": ["x"], "b": [1]})}, "the DataFrame has no column 'text'"),
        ({"data": "nothing_of_this_name"}, "DATA='nothing_of_this_name': expected auto, sms_spam"),
    ],
)  # fmt: skip
def test_wrong_input_is_refused_before_anything_runs(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        _compare(tmp_path, **options)
    assert message in str(refused.value)
    assert not list(tmp_path.rglob("record.json"))


def test_an_unknown_name_of_the_package_is_none() -> None:
    assert {"compare", "Comparison", "TextClassifier"} <= set(dir(harness))
    with pytest.raises(AttributeError, match="no attribute 'compair'"):
        _ = harness.compair  # pyright: ignore[reportAttributeAccessIssue]


def test_the_package_alone_imports_neither_pytorch_nor_pandas() -> None:
    program = "import sys, harness; print({'torch', 'pandas', 'sklearn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


SCRIPT = """
from harness import compare

texts = [f"text number {n}, {'good' if n % 2 else 'bad'}" for n in range(60)]
made = compare((texts, [n % 2 for n in range(60)]), "last_block", model="mini", epochs=1, nproc=2, quiet=True,
               results="results", cache="cache")
(record,) = made.records
print(record.status, record.engine.world_size)
"""


@pytest.mark.long
def test_a_script_without_a_guard_runs_several_ranks(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["ok 2"], done.stderr
