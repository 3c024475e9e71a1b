"""A fine-tuned decoder as a scikit-learn classifier of texts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import pandas as pd
from rich.console import Console
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from harness.api.arguments import OF_CLASSIFIER, by_key, checked
from harness.api.bench import Bench
from harness.api.given import GivenTexts, InvalidInput, checked_texts
from harness.api.process import process_kept
from harness.config.options import option_named
from harness.config.schema import RunConfig
from harness.config.suite import load_suite
from harness.config.tree import differences
from harness.data.splits import cut_off
from harness.errors import UserError
from harness.files import write_atomically
from harness.model.device_settings import apply_settings, settings_kept
from harness.planning.workspace import Workspace
from harness.results import saved_classifier
from harness.results.saved_classifier import Label
from harness.results.store import Store
from harness.serving.classifier import Classifier, Predictions

# The manifest last, as its presence says that all is there.
_FILES = (*saved_classifier.ORIGIN, saved_classifier.TENSORS, saved_classifier.MANIFEST)
# What each parameter sets in the configuration; `settings` names other keys.
_KEYS = {
    "strategy": "strategy",
    "model": "model.name",
    "weights": "model.weights",
    "epochs": "training.epochs",
    "batch_size": "training.batch_size",
    "learning_rate": "optimizer.learning_rate",
    "seed": "seed",
}
# What sets a key: two columns of texts, or parts of one's own, have no place in X and y.
_ARGUMENT_OF = {key: name for name, key in _KEYS.items()} | {
    "data.name": "X",
    "data.text_column": "X",
    "data.pair": "X",
    "data.label_column": "y",
    "data.split": "validation_fraction",
}
# What a fit decides by itself: its data, and that it is done in this process.
_OWN = ("data.name", "data.split", "data.text_column", "data.label_column", "data.pair", "engine.")


class TextClassifier(ClassifierMixin, BaseEstimator):
    """Fine-tune a pretrained decoder on labelled texts, and classify others.

    strategy: a name of `ftbench list`, or a path to a `.py` file; no baseline. model, weights: as MODEL and WEIGHTS.
    epochs, batch_size, learning_rate: of training; None: the model's usual rate. seed: of the head and the order of
    texts. validation_fraction: of the texts of each class, not trained on: probabilities are calibrated on them, and
    `settings={"training.keep": "best"}` chooses the epoch by them. settings: any other keys of the configuration, by
    dotted name. cache: the folder of downloads and stored features; None: the user's. verbose: show progress.

    After `fit`: classes_, the labels in order, of the type that was given.
    """

    classes_: np.ndarray
    files_: dict[str, bytes]  # of the saved classifier, by name
    _classifier: Classifier
    _columns: list[int]  # of its probabilities, in the order of classes_

    def __init__(
        self,
        strategy: str = "last_block",
        *,
        model: str = "auto",
        weights: str = "auto",
        epochs: int = 5,
        batch_size: int = 8,
        learning_rate: float | None = None,
        seed: int = 0,
        validation_fraction: float = 0.1,
        settings: Mapping[str, Any] | None = None,
        cache: str | Path | None = None,
        verbose: bool = False,
    ) -> None:
        self.strategy = strategy
        self.model = model
        self.weights = weights
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.seed = seed
        self.validation_fraction = validation_fraction
        self.settings = settings
        self.cache = cache
        self.verbose = verbose

    def fit(self, X: Iterable[str], y: Iterable[Label]) -> Self:
        """X: [texts]. y: [texts], labels of one type.

        Raises UserError for what can't be used, and where training did not end well.
        """
        parameters = checked(self.get_params(deep=False), OF_CLASSIFIER)
        if y is None:
            raise InvalidInput("no label is given: fit requires y to be passed, but the target y is None.")
        given = GivenTexts.of(X, y if getattr(y, "ndim", 1) == 1 else column_or_1d(y, warn=True))
        check_classification_targets(np.array(given.labels))
        with tempfile.TemporaryDirectory() as folder:
            results = Path(folder)
            file = self._with_validation(given).write(results)
            trained = self._trained(parameters, file, results)
            saved_classifier.mark_untested(trained)
            self._install(trained, given.label_of)
        return self

    def predict(self, X: Iterable[str]) -> np.ndarray:
        """X: [texts] -> [texts], of `classes_`."""
        likeliest = self.predict_proba(X).argmax(axis=1)
        return self.classes_[likeliest]

    def predict_proba(self, X: Iterable[str]) -> np.ndarray:
        """X: [texts] -> [texts, classes], in the order of `classes_`, calibrated on the validation texts."""
        check_is_fitted(self)
        texts, config = checked_texts(X), self._classifier.about.config
        with settings_kept():
            apply_settings(config.deterministic, config.tf32)
            found: Predictions = self._classifier.predict(texts)
        return found.probabilities[:, self._columns]

    def save(self, folder: str | Path) -> None:
        """Write it into a folder, without pickle, for `TextClassifier.load` and `ftbench predict --classifier`.

        A classifier that the folder holds is replaced.
        """
        check_is_fitted(self)
        for name in _FILES:
            if name in self.files_:
                write_atomically(Path(folder) / name, self.files_[name])
            else:  # of another classifier's run
                (Path(folder) / name).unlink(missing_ok=True)

    @classmethod
    def load(
        cls, folder: str | Path, cache: str | Path | None = None, label_of: Mapping[str, Label] | None = None
    ) -> Self:
        """What `save`, or `ftbench run --save`, has written.

        label_of: the label of each class by its name; None: as it was saved, or the names. Raises UserError where the
        folder holds no complete classifier, or the weights below it are not here.
        """
        about = saved_classifier.read(Path(folder))
        loaded = cls(**_parameters_of(about.config), cache=cache)
        loaded._install(Path(folder), label_of or dict(zip(about.classes, about.labels or about.classes, strict=True)))
        return loaded

    def _trained(self, parameters: Mapping[str, Any], file: Path, results: Path) -> Path:
        """The folder of the saved classifier."""
        given = {key: parameters[name] for name, key in _KEYS.items()} | {"strategy": str(parameters["strategy"])}
        settings = by_key(parameters["settings"], _ARGUMENT_OF)
        options = {"training.drop_last": False, **given, **settings, "data.name": str(file)}
        options |= {"data.text_column": "text", "data.label_column": "label", "data.split": "official"}
        console = Console(quiet=not self.verbose)
        bench = Bench(console, Store(results), Workspace(self._cache()), quiet=not self.verbose)
        with process_kept():
            done = bench.run(load_suite(None, options, []), save=True)
        if done.interrupted:
            raise KeyboardInterrupt
        if done.saved is None:
            reasons = "; ".join(f"{record.status}: {record.reason}" for record in done.records)
            raise UserError(f"training {self.strategy!r} did not end well ({reasons}): nothing was fitted.")
        return done.saved[1]

    def _with_validation(self, given: GivenTexts) -> GivenTexts:
        """With an official split, whose validation texts stand for the test texts too, which no fit needs."""
        frame = pd.DataFrame({"text": given.texts, "label": list(map(str, given.labels))})
        train, validation = cut_off(frame, self.validation_fraction, self.seed)
        if validation.empty:
            raise InvalidInput(
                f"{len(frame)} sample(s) of {frame['label'].nunique()} classes leave no text for validation: give two "
                "texts or more of each class."
            )
        order = [*train.index.sort_values(), *validation.index, *validation.index]
        parts = ["train"] * len(train) + ["validation"] * len(validation) + ["test"] * len(validation)
        return GivenTexts([given.texts[row] for row in order], [given.labels[row] for row in order], parts)

    def _install(self, folder: Path, label_of: Mapping[str, Label]) -> None:
        """Take over the saved classifier of a folder. label_of: the label of each of its classes."""
        about = saved_classifier.read(folder)
        labels = [label_of[name] for name in about.classes]
        self.classes_ = np.array(sorted(labels))  # type: ignore[type-var]
        about = about.model_copy(update={"labels": None if labels == about.classes else labels})
        self.files_ = {name: (folder / name).read_bytes() for name in _FILES if (folder / name).exists()}
        self.files_[saved_classifier.MANIFEST] = f"{about.model_dump_json(indent=2)}\n".encode()
        self._open(folder, labels)

    def _open(self, folder: Path, labels: list[Any]) -> None:
        """labels: of the classes of the classifier in the folder, in its order."""
        self._columns = [labels.index(label) for label in self.classes_.tolist()]
        self._classifier = _opened(folder, self._cache())

    def _cache(self) -> Path:
        return option_named("cache").default if self.cache is None else Path(self.cache)

    def __getstate__(self) -> dict[str, Any]:
        """The files stand for the classifier that they hold."""
        state = cast(dict[str, Any], super().__getstate__())
        return {name: value for name, value in state.items() if name != "_classifier"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "files_" in state:
            with tempfile.TemporaryDirectory() as folder:
                self.save(folder)
                self._classifier = _opened(Path(folder), self._cache())

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array, tags.input_tags.one_d_array = True, False, True
        tags.no_validation = True
        return tags


def _opened(folder: Path, cache: Path) -> Classifier:
    with process_kept():
        return Classifier.load(folder, cache)


def _parameters_of(config: RunConfig) -> dict[str, Any]:
    """With which a classifier is trained as its run was."""
    flat = {key: value for key, (_, value) in differences(RunConfig().model_dump(), config.model_dump()).items()}
    parameters = {name: flat.pop(key) for name, key in _KEYS.items() if key in flat}
    settings = {key: value for key, value in flat.items() if not key.startswith(_OWN) and value is not None}
    return {**parameters, "settings": settings or None}
