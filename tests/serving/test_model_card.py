"""The model card of an export: what the hub reads of it, and that no name breaks it.

The hub's own check (`ModelCard.validate`) is a request to the hub: what the library checks without it is checked here.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from huggingface_hub import ModelCard, metadata_load
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from harness import TextClassifier
from harness.config.schema import DataConfig
from harness.data.dataset import load_dataset
from harness.errors import UserError
from harness.metrics import METRICS
from harness.results import saved_classifier
from harness.results.record import Record
from harness.serving.classifier import Classifier
from harness.serving.export.model_card import markdown, model_card, one_line
from harness.statistics import wilson_interval
from tests.support.runs import run_command

NASTY = "a |b| <i>c</i>\n---\n# d: [e](f) `g` *h* _i_ \\ & \u2028 {j} \x1b[31m"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run's results and its classifier."""
    folder = tmp_path_factory.mktemp("card")
    options = ["--strategy", "last_block", "--model", "mini", "--data", "synthetic", "--epochs", "1"]
    run_command(folder, "run", "--save", *options, "--set", "data.size=200")
    return folder


@pytest.fixture(scope="module")
def fitted(saved: Path) -> Path:
    """The folder of a classifier that was fitted in Python."""
    texts = load_dataset(DataConfig(name="synthetic", size=60), saved / "cache").source.texts
    made = TextClassifier("head_only", model="mini", epochs=1, cache=saved / "cache")
    made.fit(texts["text"], texts["label"]).save(saved / "fitted")
    return saved / "fitted"


@pytest.fixture(scope="module")
def classifier(saved: Path) -> Classifier:
    return Classifier.load(saved / "results" / "classifier", saved / "cache", "fp32")


@pytest.fixture(scope="module")
def record(saved: Path) -> Record:
    return Record.model_validate_json((saved / "results" / "classifier" / "record.json").read_bytes())


def test_the_hub_reads_its_results(classifier: Classifier, saved: Path, record: Record, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(model_card(classifier, saved / "results" / "classifier", "model.onnx"))
    card = ModelCard.load(tmp_path / "README.md")
    assert (card.data.license, card.data.pipeline_tag, card.data.library_name) == ("mit", "text-classification", "onnx")
    written = metadata_load(tmp_path / "README.md")
    name, results = model_index_to_eval_results(written["model-index"])
    assert eval_results_to_model_index(name, results) == written["model-index"]
    found = {one.metric_type: one for one in results}
    test = record.ok_metrics.test
    assert found["accuracy"].metric_value == pytest.approx(test.accuracy, abs=1e-6)
    assert found["f1"].metric_value == pytest.approx(test.macro_f1, abs=1e-6)
    assert found["matthews_correlation"].metric_value == pytest.approx(test.mcc, abs=1e-6)
    low, high = found["accuracy"].metric_args["confidence_interval"]
    assert (low, high) == pytest.approx(wilson_interval(test.correct, test.total), abs=0.02)
    assert low < test.accuracy < high


def test_it_says_what_a_reader_must_know(classifier: Classifier, saved: Path, record: Record) -> None:
    text = model_card(classifier, saved / "results" / "classifier", "GPT2ForSequenceClassification")
    assert record.calibration is not None
    known = [
        f"{record.ok_data.sizes['train']} train",
        "stand in the training set verbatim",
        f"the temperature {record.calibration.temperature:.4g}",
        f"{record.model.trainable_parameters:,} of {record.model.parameters:,} parameters trained",
        *(metric.title for metric in METRICS.values()),
        "95% interval",
        "on cpu",
        "AutoModelForSequenceClassification",
        "Licence of the base: mit",
    ]
    assert [part for part in known if part not in text] == []
    assert str(saved) not in text, "nothing of the machine's folders"


def test_a_classifier_without_its_record_says_so(classifier: Classifier, tmp_path: Path) -> None:
    text = model_card(classifier, tmp_path, "model.onnx")
    assert "The record of the run is not with the classifier" in text
    assert f"{100 * classifier.about.test_accuracy:.2f}%, without an interval" in text


def test_figures_of_another_run_are_not_its_own(classifier: Classifier, saved: Path, tmp_path: Path) -> None:
    for name in saved_classifier.ORIGIN:
        shutil.copy(saved / "results" / "classifier" / name, tmp_path)
    about = classifier.about.model_copy(update={"run_id": "another"})
    text = model_card(replace(classifier, about=about), tmp_path, "model.onnx")
    assert "The record of the run is not with the classifier" in text
    assert "without an interval" in text


def test_a_classifier_that_was_fitted_claims_no_test(fitted: Path, saved: Path, tmp_path: Path) -> None:
    about = saved_classifier.read(fitted)
    classifier = Classifier.load(fitted, saved / "cache", "fp32")
    for folder in (fitted, tmp_path):  # with the record of its run, and without
        card = ModelCard(model_card(classifier, folder, "model.onnx"))
        assert {one.dataset_split for one in card.data.eval_results} == {"validation"}
        assert {one.dataset_name for one in card.data.eval_results} == {about.config.data.name}
        words = [line for line in card.text.lower().splitlines() if "test" in line]
        assert all("no test texts were set aside" in line for line in words), words
    text = model_card(classifier, fitted, "model.onnx")
    assert "| on the validation texts | value | 95% interval |" in text
    assert "Of the 6 validation texts 0 stand in the training set verbatim" in text
    assert "54 train, 6 validation texts." in text


def test_what_was_fitted_does_not_name_the_folder_of_its_texts(fitted: Path) -> None:
    for name in ("classifier.json", "record.json"):
        data = json.loads((fitted / name).read_text())["config"]["data"]["name"]
        assert data == Path(data).name


def test_a_damaged_record_is_refused(classifier: Classifier, tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text("{}")
    with pytest.raises(UserError, match="copy of the run's results can't be read"):
        model_card(classifier, tmp_path, "model.onnx")


@settings(max_examples=200)
@given(st.text(max_size=60))
@example(NASTY)
@example("1. one")
@example("- - -")
@example("www.example.com a@b.cd https://e.f")
def test_any_text_is_shown_as_it_is(text: str) -> None:
    plain = one_line(text)
    tokens = MarkdownIt("commonmark").enable("table").parse(f"| title |\n| --- |\n| {markdown(text)} |")
    shown = [child.content for one in tokens if one.type == "inline" for child in one.children or []]
    assert "".join(shown[1:]) == plain
    inline = [one for one in MarkdownIt().parse(f"- x {markdown(text)}") if one.type == "inline"]
    assert [child.content for child in inline[0].children or []] == [f"x {plain}".rstrip()]


@settings(max_examples=40)
@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
@example(NASTY, NASTY)
@example("---", "---")
@example("null", "no")
def test_no_name_breaks_the_metadata(
    classifier: Classifier, saved: Path, tmp_path_factory: pytest.TempPathFactory, name: str, label: str
) -> None:
    folder = tmp_path_factory.mktemp("named")
    written = json.loads((saved / "results" / "classifier" / "record.json").read_text())
    written["data"]["name"] = name
    (folder / "record.json").write_text(json.dumps(written))
    about = classifier.about.model_copy(update={"classes": [label, "other"], "strategy": name})
    card = ModelCard(model_card(replace(classifier, about=about), folder, "model.onnx"))
    (result,) = card.data.eval_results
    assert result.dataset_name == (one_line(name) or "data")
    assert card.data.pipeline_tag == "text-classification"
    assert card.text.count("\n## ") == 4, "names add no headings"
    shutil.rmtree(folder)


def test_a_saved_classifier_has_its_runs_predictions(saved: Path, record: Record, run_cli: Callable) -> None:
    copied = pd.read_csv(saved / "results" / "classifier" / "predictions.csv")
    assert (copied["label"] == copied["predicted"]).sum() == record.ok_metrics.test.correct
