"""`harness.TextClassifier`: a classifier of texts that scikit-learn's own tools take for one of theirs."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import Tags, estimator_checks
from sklearn.utils.validation import validate_data

from harness import TextClassifier, UserError
from harness.config.schema import DataConfig
from harness.data.dataset import load_dataset
from harness.results import saved_classifier
from harness.serving.classifier import Classifier
from tests.support.strategies import long

FILES = ("classifier.json", "model.safetensors", "predictions.csv", "record.json")


def _texts(size: int = 120) -> pd.DataFrame:
    return load_dataset(DataConfig(name="synthetic", size=size), Path()).source.texts


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def fitted(cache: Path) -> TextClassifier:
    texts = _texts()
    return _small(cache, epochs=3).fit(texts["text"], texts["label"])


def _small(cache: Path, **parameters: Any) -> TextClassifier:
    return TextClassifier(**{"model": "mini", "epochs": 1, "cache": cache, **parameters})


class OfNumbers(TextClassifier):
    """Rows of numbers as texts, since scikit-learn's checks have no texts: what it validates is what numbers need."""

    def fit(self, X: Any, y: Any) -> OfNumbers:
        X, y = validate_data(self, X, y, dtype=None)
        return super().fit(_as_texts(X), y)

    def predict_proba(self, X: Any) -> np.ndarray:
        if not hasattr(self, "classes_"):
            raise NotFittedError("not fitted")
        return super().predict_proba(_as_texts(validate_data(self, X, reset=False, dtype=None)))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.one_d_array, tags.input_tags.string = True, False, False
        tags.no_validation = False
        return tags


def _as_texts(rows: np.ndarray) -> list[str]:
    return [" ".join(f"{float(value):.1f}" for value in row) for row in rows]


# Of scikit-learn's checks, those that fail, and why.
FAILING = {
    "check_classifiers_train": "in one epoch mini does not learn to read numbers; in five it does (the next test)",
}


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_dict_unchanged,
        estimator_checks.check_dont_overwrite_parameters,
        estimator_checks.check_estimators_pickle,
        estimator_checks.check_estimators_unfitted,
        estimator_checks.check_fit_idempotent,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_set_params,
    ],
)
def test_scikit_learns_quickest_checks_pass(check: Callable, cache: Path) -> None:
    check("OfNumbers", OfNumbers(model="mini", epochs=1, cache=cache))


@pytest.mark.long
@estimator_checks.parametrize_with_checks([OfNumbers(model="mini", epochs=1)], expected_failed_checks=lambda _: FAILING)
def test_scikit_learns_checks_pass(estimator: OfNumbers, check: Callable, cache: Path) -> None:
    check(estimator.set_params(cache=cache))


@pytest.mark.long
@pytest.mark.parametrize("options", [{}, {"readonly_memmap": True}, {"readonly_memmap": True, "X_dtype": "float32"}])
def test_scikit_learns_check_of_training_passes_after_five_epochs(options: dict[str, Any], cache: Path) -> None:
    estimator = OfNumbers(model="mini", epochs=5, learning_rate=1e-3, cache=cache)
    estimator_checks.check_classifiers_train("OfNumbers", estimator, **options)


def test_it_says_of_itself_that_it_takes_texts() -> None:
    tags = TextClassifier().__sklearn_tags__()
    assert tags.estimator_type == "classifier"
    assert (tags.input_tags.string, tags.input_tags.two_d_array) == (True, False)


def test_probabilities_are_of_the_classes_in_order(fitted: TextClassifier) -> None:
    texts = _texts()
    probabilities = fitted.predict_proba(texts["text"])
    assert fitted.classes_.tolist() == ["ham", "spam"]
    assert probabilities.shape == (len(texts), 2)
    assert probabilities.sum(axis=1) == pytest.approx(1)
    assert np.array_equal(fitted.classes_[probabilities.argmax(axis=1)], fitted.predict(texts["text"]))
    assert fitted.score(texts["text"], texts["label"]) > 0.8


@pytest.mark.parametrize(
    "labels", [[10, 9], [True, False], [" b", "a\N{NO-BREAK SPACE}"], *long([-1, 1], ["b", "a"], [1.0, 0.0])]
)
def test_labels_come_back_as_the_type_that_was_given(cache: Path, tmp_path: Path, labels: list[Any]) -> None:
    texts = _texts()
    y = texts["label"].map({"ham": labels[0], "spam": labels[1]})
    made = _small(cache, epochs=3).fit(texts["text"], y)
    assert made.classes_.tolist() == sorted(labels)
    assert {type(one) for one in made.predict(texts["text"]).tolist()} == {type(labels[0])}
    assert made.score(texts["text"], y) > 0.8, "columns of probabilities are in the order of classes_"
    made.save(tmp_path / "saved")
    loaded = TextClassifier.load(tmp_path / "saved", cache)
    assert [type(one) for one in loaded.classes_.tolist()] == [type(one) for one in made.classes_.tolist()]
    assert np.array_equal(loaded.predict_proba(texts["text"]), made.predict_proba(texts["text"]))


def test_what_it_saves_is_the_classifier_of_the_command_line_without_a_pickle(
    fitted: TextClassifier, cache: Path, tmp_path: Path
) -> None:
    texts = _texts()["text"].tolist()
    fitted.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    assert Classifier.load(tmp_path, cache).predict(texts).labels == fitted.predict(texts).tolist()
    assert saved_classifier.read(tmp_path).config.training.epochs == 3


@pytest.mark.parametrize("has_run", [True, False])
def test_it_replaces_the_classifier_that_a_folder_holds(
    fitted: TextClassifier, cache: Path, tmp_path: Path, has_run: bool
) -> None:
    texts = _texts(60)
    _small(cache, strategy="head_only").fit(texts["text"], texts["label"]).save(tmp_path)
    saved = copy.copy(fitted)
    if not has_run:  # as those of older versions
        saved.files_ = {name: content for name, content in fitted.files_.items() if name not in saved_classifier.ORIGIN}
    saved.save(tmp_path)
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert left == saved.files_
    record, predictions = saved_classifier.origin(tmp_path, saved_classifier.read(tmp_path))
    assert (record is not None, predictions is not None) == (has_run, has_run)


# pickle as joblib's workers use it: of bytes that were made here. The program itself loads none.
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_predicts_the_same(fitted: TextClassifier, copied: Callable) -> None:
    texts = _texts()["text"]
    assert np.array_equal(copied(fitted).predict_proba(texts), fitted.predict_proba(texts))


def test_a_clone_of_a_loaded_one_is_trained_as_it_was(cache: Path, tmp_path: Path) -> None:
    texts = _texts(60)
    made = _small(
        cache, strategy="first_token", settings={"optimizer.weight_decay": 0.3, "training.keep": "best"}, epochs=2
    )
    made.fit(texts["text"], texts["label"]).save(tmp_path)
    again = clone(TextClassifier.load(tmp_path, cache)).fit(texts["text"], texts["label"])
    assert np.array_equal(again.predict_proba(texts["text"]), made.predict_proba(texts["text"]))


def test_it_works_in_scikit_learns_tools(cache: Path) -> None:
    texts = _texts(60)
    pipeline = make_pipeline(FunctionTransformer(lambda X: X.str.lower()), _small(cache))
    assert cross_val_score(pipeline, texts["text"], texts["label"], cv=2).shape == (2,)
    grid = GridSearchCV(_small(cache), {"strategy": ["head_only", "last_block"]}, cv=2, scoring="neg_log_loss")
    grid.fit(texts["text"], texts["label"] == "spam")
    assert grid.best_params_["strategy"] in ("head_only", "last_block")
    assert grid.predict(texts["text"]).dtype == bool


def test_validation_texts_are_not_trained_on_and_calibrate(cache: Path) -> None:
    texts = _texts()
    half = _small(cache, validation_fraction=0.5).fit(texts["text"], texts["label"])
    tenth = _small(cache).fit(texts["text"], texts["label"])
    assert not np.array_equal(half.predict_proba(texts["text"]), tenth.predict_proba(texts["text"]))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"strategy": "last_blok"}, "did you mean 'last_block'?"),
        ({"strategy": "majority"}, "SAVE=1: baselines train nothing"),
        ({"validation_fraction": 1.0}, "validation_fraction=1.0: expected a fraction such as 0.1."),
        ({"epochs": "many"}, "configuration key 'training.epochs' is 'many'"),
        ({"settings": {"training.epoch": 1}}, "unknown configuration key 'training.epoch'"),
        ({"model": "gpt3"}, "configuration key 'model.name' is 'gpt3'"),
    ],
)
def test_wrong_parameters_are_refused_by_fit(cache: Path, parameters: dict[str, Any], message: str) -> None:
    texts = _texts(60)
    with pytest.raises(UserError) as refused:
        _small(cache, **parameters).fit(texts["text"], texts["label"])
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        (["a", None], [0, 1], "1 of 2 texts are missing"),
        (["a", "b"], ["x", 1], "labels of mixed types: int ('1'), str ('x')"),
        (["a", "b"], None, "requires y to be passed, but the target y is None"),
        (["a", "b"], [0, 1], "2 sample(s) of 2 classes leave no text for validation"),
    ],
)
def test_what_can_not_be_fitted_is_refused(cache: Path, texts: list[Any], labels: Any, message: str) -> None:
    with pytest.raises(UserError) as refused:
        _small(cache).fit(texts, labels)
    assert isinstance(refused.value, ValueError)
    assert message in str(refused.value)


def test_training_that_does_not_end_well_is_an_error(cache: Path) -> None:
    texts = _texts(60)
    with pytest.raises(UserError, match=r"training 'full' did not end well \(diverged"):
        _small(cache, strategy="full", learning_rate=1e30).fit(texts["text"], texts["label"])
