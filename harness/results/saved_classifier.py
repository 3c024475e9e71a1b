"""The classifier that a suite saves: what its best run trained, and what the rest of its model is made of.

It lies in RESULTS/classifier: `model.safetensors` holds the trained parameters only; `classifier.json`, written last,
names the weights below them by their hash.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.config.schema import RunConfig
from harness.config.tree import first_mistake
from harness.errors import UserError
from harness.files import file_sha256, open_to_readers, write_atomically
from harness.metrics import MetricName
from harness.results.record import Record, StrategySource
from harness.results.store import Store

# Copied from its run: what a model card tells.
ORIGIN = ("record.json", "predictions.csv")
FOLDER, MANIFEST, TENSORS = "classifier", "classifier.json", "model.safetensors"
TRAIN_ONE = "`ftbench run --save` (`make bench SAVE=1`) trains and saves one"
UNTESTED = (
    "no test texts were set aside: figures are of the validation texts, which calibration and the choice of an epoch "
    "have seen"
)
Label = str | bool | int | float


class SavedClassifier(BaseModel):
    """The manifest.

    strategy: its name. resolved: the strategy with nothing left open (planning.strategy.ResolvedStrategy).
    weights_sha256: of the weights below and around what was trained; None for random ones of a GPT-2. pad_to: the
    tokens that every row is padded to, where the strategy pads. temperature: what logits are divided by; 1 where none
    was fitted. test_accuracy: None where no texts were set aside for a test. labels: of the classes, where they are
    Python's own and not texts of a file. sha256: of the file of tensors.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    schema_version: Literal[2] = 2
    run_id: str
    strategy: str
    strategy_source: StrategySource
    resolved: dict[str, Any]
    config: RunConfig
    weights_sha256: str | None
    classes: list[str]
    pad_to: int | None
    temperature: float = 1.0  # classifiers of versions that fitted none lack it
    validation_accuracy: float
    validation_loss: float
    test_accuracy: float | None
    labels: list[Label] | None = None
    sha256: str

    @property
    def is_tested(self) -> bool:
        return self.test_accuracy is not None


def best_of(records: Iterable[Record], metric: MetricName) -> Record | None:
    """The run of a strategy that ended well and is best on the validation part, ties broken by the loss there; the
    test part is not used."""
    able = [record for record in records if record.status == "ok" and not record.strategy_source.is_baseline]
    return max(able, key=lambda one: (one.on_validation(metric), -one.ok_metrics.validation.loss), default=None)


def folder_of(store: Store, run_id: str) -> Path:
    """Where a run leaves its classifier, until it is known which one is the best."""
    return store.runs / run_id / FOLDER


def save(folder: Path, tensors: dict[str, Tensor], about: Callable[[str], SavedClassifier]) -> str | None:
    """Write the tensors and the manifest, which `about` gives for their hash; returns what went wrong."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MANIFEST).unlink(missing_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / TENSORS)
        open_to_readers(folder / TENSORS)
        manifest = about(file_sha256(folder / TENSORS))
        write_atomically(folder / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
    except (OSError, SafetensorError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        return f"the classifier {str(folder)!r} can't be written ({error}): free space, or name another RESULTS folder."
    return None


def drop_all_but_the_best(store: Store, run_ids: Iterable[str], metric: MetricName) -> None:
    """Of the classifiers that these runs have left, so that a suite of any length needs room for two, and one more for
    each run that another process has under way."""
    with _locked(store):
        left = [run_id for run_id in run_ids if (folder_of(store, run_id) / MANIFEST).exists()]
        ended = {run_id: record for run_id in left if (record := store.read(run_id))}
        best = best_of(ended.values(), metric)
        _remove(folder_of(store, run_id) for run_id in ended if best is None or run_id != best.run_id)


def to_run_again(store: Store, earlier: Sequence[Record], metric: MetricName) -> Record | None:
    """Of runs that ended before, the best one where its classifier is not saved; no other can be the best of all."""
    best = best_of(earlier, metric)
    return None if best is None or _is_saved(store, best.run_id) else best


def _is_saved(store: Store, run_id: str) -> bool:
    return (folder_of(store, run_id) / MANIFEST).exists() or _installed(store) == run_id


def _installed(store: Store) -> str | None:
    """The run whose classifier is that of its results; None where there is none, or one that can't be read."""
    try:
        return read(store.results / FOLDER).run_id
    except UserError:  # it will be replaced
        return None


def install(store: Store, records: Sequence[Record], metric: MetricName) -> tuple[Record, Path] | None:
    """Make the classifier of the best run that of its results, and remove what the other runs have left.

    Returns that run and the folder; None where no run ended well.
    """
    saved, place = [record for record in records if _is_saved(store, record.run_id)], store.results / FOLDER
    best = best_of(saved, metric)
    if best is None:
        return None
    with _locked(store):
        folder = folder_of(store, best.run_id)
        if folder.exists():
            _remove([place] if place.exists() else [])
            folder.replace(place)
            for name in ORIGIN:
                shutil.copyfile(store.runs / best.run_id / name, place / name)
    _remove(folder for record in records if (folder := folder_of(store, record.run_id)).is_dir())
    return best, place


def _locked(store: Store) -> FileLock:
    return FileLock(store.results / ".classifier.lock")


def _remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder)


def read(folder: Path) -> SavedClassifier:
    """Raises UserError where there is none, or it is damaged."""
    path = folder / MANIFEST
    try:
        return SavedClassifier.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"no classifier in {str(folder)!r} (no {MANIFEST}): {TRAIN_ONE}.") from error
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): check its permissions.") from error
    except ValidationError as error:
        raise UserError(f"{path} is no classifier of this version ({first_mistake(error)}): {TRAIN_ONE}.") from error


def origin(folder: Path, manifest: SavedClassifier) -> tuple[Record | None, pd.DataFrame | None]:
    """The record of the run that it is from, and the predictions for its test texts, columns label and predicted.

    None each where they are not here, as of versions that copied none, or where they are of another run.

    Raises UserError where one is damaged.
    """
    record, predictions = (folder / name for name in ORIGIN)
    try:
        found = Record.model_validate_json(record.read_bytes()) if record.exists() else None
        if found is None or found.run_id != manifest.run_id:
            return None, None
        columns = {"label": str, "predicted": str}
        frame = None
        if predictions.exists():
            frame = pd.read_csv(predictions, usecols=list(columns), dtype=columns, keep_default_na=False)
    except ValueError as error:  # pydantic's and pandas' are such
        reason = first_mistake(error) if isinstance(error, ValidationError) else error
        raise UserError(
            f"{folder}: its copy of the run's results can't be read ({reason}): copy the folder again."
        ) from error
    return found, frame


def mark_untested(folder: Path) -> None:
    """Say of a classifier, in whose run the validation texts stood for the test texts as well, that it has no test; of
    its data, which lay in a temporary folder, keep the name."""
    manifest = read(folder)
    record, _ = origin(folder, manifest)
    assert record is not None, "a run that has just ended has its record"
    name = record.ok_data.name
    config = manifest.config.model_copy(update={"data": manifest.config.data.model_copy(update={"name": name})})
    manifest = manifest.model_copy(update={"config": config, "test_accuracy": None})
    sizes = {part: size for part, size in record.ok_data.sizes.items() if part != "test"}
    changed = {
        "data": record.ok_data.model_copy(update={"sizes": sizes, "notes": [UNTESTED]}),
        "config": {**record.config, "data": {**record.config["data"], "name": name}},
    }
    for file, content in ((ORIGIN[0], record.model_copy(update=changed)), (MANIFEST, manifest)):
        write_atomically(folder / file, content.model_dump_json(indent=2) + "\n")


def tensors_of(folder: Path, manifest: SavedClassifier) -> dict[str, Tensor]:
    """Raises UserError where they are missing or not what was written."""
    path = folder / TENSORS
    if not path.is_file():
        raise UserError(f"the classifier {str(folder)!r} is incomplete (no {TENSORS}): copy the whole folder.")
    if (found := file_sha256(path)) != manifest.sha256:
        raise UserError(
            f"{path} is damaged (sha256 {found}, {MANIFEST} says {manifest.sha256}): copy it again, or {TRAIN_ONE}."
        )
    return load_file(path)
