"""The report: what the page tells, and that no text of a user becomes part of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from harness.report import command
from harness.report.analysis.comparison import compare
from harness.report.analysis.grouping import Group, groups
from harness.report.analysis.misclassified import misclassified
from harness.report.page import _highlights, _plain_grid
from harness.report.plots.comparison import pareto_front
from harness.report.plots.confusion import confusion
from harness.report.plots.history import history
from harness.report.plots.learning_curves import learning_curves
from harness.report.table.comparison_table import comparison_tables
from harness.results.record import Record, TrainingCurve
from harness.results.store import Store
from tests.support.report_folder import PLOTS, SCRIPT, make_report


class _Page(HTMLParser):
    """tags: (name, attributes) of all. text: what is shown."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._hidden = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._hidden = tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._hidden = ""

    def handle_data(self, data: str) -> None:
        self.text += "" if self._hidden else data


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_report(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(made: Path) -> _Page:
    return _Page((made / "report.html").read_text())


def test_the_page_holds_what_the_table_does(page: _Page, made: Path) -> None:
    for line in (made / "table.md").read_text().splitlines():
        if line.startswith("| ") and "---" not in line:
            for cell in line.strip("| ").split(" | "):
                assert cell.strip("* ").replace("&lt;", "<") in page.text
        elif line.startswith("- ") and not line.startswith("- Left out"):
            assert line[2:].replace("&lt;", "<").replace("\\|", "|") in page.text


def test_a_cell_sorts_by_its_number_where_it_is_one() -> None:
    texts = ["1,200", "[97.33]", "9.5 s", "+0.47 [-1.1, 2.0]", "75%", "355M, last block", "0,1,2", "worse", "-"]
    (line,) = _plain_grid("caption", ["name", *texts], [["row", *texts]]).lines
    assert [cell.value for cell in line.cells] == [1200, 97.33, 9.5, 0.47, 75, None, None, None, None]


def test_a_baseline_that_is_best_is_named_as_such(run_here: Callable, store: Store) -> None:
    run_here(strategy=["first_token", "tfidf"], data__size=1000, training__epochs=0)
    (sheet,) = comparison_tables(groups(store.all()), store)
    assert ("Highest test accuracy", "tfidf") in [told[:2] for told in _highlights(sheet)]


def test_texts_names_and_paths_are_shown_and_never_become_part_of_the_page(page: _Page) -> None:
    assert f"{SCRIPT} number" in page.text
    assert "a damaged <i>one" in page.text
    names = [tag for tag, _ in page.tags]
    assert names.count("script") == 1
    assert not {"b", "i"} & set(names)


def test_a_damaged_record_is_named_on_the_page_and_in_the_terminal(page: _Page, made: Path, run_cli: Callable) -> None:
    assert "1 file left out" in page.text
    code, out, told = run_cli("report", "--cache", str(made.parent / "cache"), results=made)
    assert (code, told) == (0, "")
    assert "left out:" in out
    assert "a damaged <i>one" in out.replace("\n", "")
    assert str(made / "report.html") in out
    assert str(made / "plots" / "table1_accuracy.png") in out


def test_a_folder_without_records_is_refused(run_cli: Callable, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        code, out, told = run_cli("report", "--cache", str(tmp_path / "cache"), results=folder)
        assert (code, out) == (2, "")
        assert "no records below" in told
        assert not (folder / "report.html").exists()


def test_an_unknown_reference_is_refused(made: Path, run_cli: Callable) -> None:
    code, _, told = run_cli("report", "--reference", "nobody", "--cache", str(made.parent / "cache"), results=made)
    assert code == 2
    assert "'nobody'" in told


def test_every_plot_is_a_file_twice_and_a_picture_with_words(page: _Page, made: Path) -> None:
    for number, shown in ((1, PLOTS), (2, PLOTS)):
        for name in shown:
            path = made / "plots" / f"table{number}_{name}"
            assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
            root = ElementTree.parse(path.with_suffix(".svg")).getroot()
            assert root.tag.endswith("svg")
    pictures = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(pictures) == len(list((made / "plots").glob("*.svg"))) == 2 * len(PLOTS)
    for attributes in pictures:
        assert attributes["role"] == "img"
        assert len(attributes["aria-label"]) > 40
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = re.findall(r"(?:url\(|href=\")#([^\")]+)", (made / "report.html").read_text())
    assert set(wanted) <= set(ids)


def test_the_page_asks_for_nothing_from_anywhere(page: _Page) -> None:
    for tag, attributes in page.tags:
        assert tag not in ("img", "iframe", "object", "embed", "audio", "video", "base", "form")
        for name, value in attributes.items():
            if name in ("src", "srcset", "href", "xlink:href", "data", "action", "poster"):
                assert value == "data:," or value.startswith("#")
            elif not name.startswith("xmlns"):
                assert not re.search(r"url\((?!#)|@import", value or "")


def test_the_same_records_make_the_same_report(made: Path) -> None:
    def written() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in [made / "report.html", *(made / "plots").iterdir()]}

    stale = made / "plots" / "table9_accuracy.svg"
    stale.write_text("of an earlier report")
    (made / "plots" / "mine.svg").write_text("not the report's")
    before = written()
    command.make_report(Console(quiet=True), made, made.parent / "cache")
    assert written() == {name: content for name, content in before.items() if name != stale.name}
    (made / "plots" / "mine.svg").unlink()


def test_changed_texts_are_not_shown_and_the_page_says_why(made: Path, tmp_path: Path) -> None:
    store = Store(made)
    records = [record for record in store.all() if record.data.name == "texts.csv"]
    (found,) = misclassified(compare(Group(records), store), tmp_path)
    assert found.no_texts is None
    entries = compare(Group(records), store)
    for record in records:
        record.data.sha256 = "0" * 64
    (changed,) = misclassified(entries, tmp_path)
    assert "sha256 differs" in changed.no_texts
    assert all(one.text is None for one in changed.messages)
    path = Path(records[0].config["data"]["name"])
    moved = path.rename(path.with_suffix(".moved"))
    (gone,) = misclassified(entries, tmp_path)
    moved.rename(path)
    assert "does not exist" in gone.no_texts


# What the plots show


def _synthetic(made: Path) -> tuple[list[Record], Store]:
    store = Store(made)
    return [record for record in store.all() if record.data.name == "synthetic"], store


def test_mistakes_and_confusion_count_each_run(made: Path) -> None:
    records, store = _synthetic(made)
    entries = compare(Group(records), store)
    frames = {record.run_id: store.predictions(record.run_id) for record in records}
    for entry in entries:
        classes, counts = confusion(entry)
        of_entry = pd.concat([frames[record.run_id] for record in entry.ok])
        expected = pd.crosstab(of_entry["label"], of_entry["predicted"]).reindex(index=classes, columns=classes)
        assert (counts == expected.fillna(0).to_numpy()).all()
    (found,) = misclassified(entries, made.parent / "cache")
    assert (found.strategies, found.runs) == (2, 4)
    wrong = pd.concat(frames.values())
    wrong = wrong[wrong["label"] != wrong["predicted"]]["index"].value_counts()
    assert found.messages
    for one in found.messages:
        assert one.runs == wrong[one.index]


def test_the_front_holds_what_nothing_beats() -> None:
    points = [(1.0, 0.5), (2.0, 0.9), (3.0, 0.9), (2.5, 0.4), (4.0, 0.95)]
    assert pareto_front(points) == [0, 1, 4]
    assert pareto_front([(1.0, 0.5), (1.0, 0.5)]) == [0, 1]


def test_curves_are_means_with_the_range_of_seeds(made: Path, tmp_path: Path) -> None:
    records, store = _synthetic(made)
    records = [record for record in records if record.strategy == "head_only"]
    target = Store(tmp_path)
    for record, loss in zip(records, (1.0, 3.0), strict=True):
        target.write_curve(record.run_id, TrainingCurve(losses=[loss] * 10, accuracies=[loss / 4] * 10))
    (entry,) = compare(Group(records), store)
    course = learning_curves([entry], target)["loss"]["head_only"]
    assert (course.low == 1).all()
    assert (course.mean == 2).all()
    assert (course.high == 3).all()
    assert (learning_curves([entry], target)["accuracy"]["head_only"].mean == 0.5).all()
    for record in records:
        path = target.runs / record.run_id / "losses.csv"
        pd.read_csv(path).drop(columns="accuracy").to_csv(path, index=False)
    assert list(learning_curves([entry], target)["loss"]) == ["head_only"]
    assert not learning_curves([entry], target)["accuracy"], "nothing is drawn of what was not kept"


def _at(record: Record, revision: str, accuracy: float) -> Record:
    changed = record.model_copy(deep=True)
    changed.environment["git"] = {"revision": revision, "modified": False}
    changed.metrics.test.accuracy = accuracy
    return changed


def test_history_shows_configurations_of_several_revisions_in_order(made: Path) -> None:
    records, _ = _synthetic(made)
    head = [record for record in records if record.strategy == "head_only"]
    block = [record for record in records if record.strategy == "last_block"]
    group = Group([*head, *block])
    old = [_at(record, "f" * 40, accuracy) for record, accuracy in zip(head, (0.5, 0.7), strict=True)]
    new = [_at(record, "a" * 40, 0.9) for record in [*head, *block]]
    revisions, (past,) = history(group, [*old, *new])
    assert revisions == ["f" * 40, "a" * 40]
    assert (past.name, past.mean) == ("head_only", pytest.approx([60, 90]))
    assert (past.low[0], past.high[0]) == pytest.approx((50, 70))
    assert history(group, new) == ([], [])


@pytest.mark.long
def test_a_report_of_thousands_of_records_stays_small(made: Path, tmp_path: Path) -> None:
    """20 strategies x 10 seeds x 10 revisions, with the losses and predictions of a run."""
    records, source = _synthetic(made)
    run, store, random = records[0], Store(tmp_path / "results"), np.random.default_rng(0)
    predictions = source.predictions(run.run_id)
    curve = TrainingCurve(losses=random.random(2000).tolist(), accuracies=random.random(2000).tolist())
    for revision in range(10):
        for number in range(200):
            strategy, seed = f"strategy_{number // 10}", number % 10
            copy = run.model_copy(deep=True)
            copy.run_id, copy.strategy, copy.seed = f"{revision}-{number}", strategy, seed
            copy.config |= {"strategy": strategy, "seed": seed}
            copy.finished_at = f"2026-01-{revision + 1:02d}"
            copy.environment["git"] = {"revision": f"{revision:040x}", "modified": False}
            store.write(copy)
            store.write_predictions(copy.run_id, predictions)
            store.write_curve(copy.run_id, curve)
    command.make_report(Console(quiet=True), store.results, made.parent / "cache")
    assert json.loads((store.results / "comparison.json").read_text())[0]["rows"][19]
    assert (store.results / "report.html").stat().st_size < 5e6
    assert (store.results / "plots" / "table1_history.svg").exists()
