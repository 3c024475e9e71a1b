"""The classifier that a suite keeps: what its best run trained, and what the rest of its model is made of.

It lies in RESULTS/classifier: `model.safetensors` holds the trained parameters only; `classifier.json`, written last,
says on which weights, found again by their hash, they stand.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness import UserError
from harness.config import RunConfig
from harness.data.fetch import write_atomically
from harness.model.weights import file_sha256
from harness.plan import Plan, PlannedRun
from harness.records import Record, Store, StrategySource
from harness.run import Outcome

MANIFEST, TENSORS = "classifier.json", "model.safetensors"
TRAIN_ONE = "`make bench SAVE=1` trains and keeps one"


class Kept(BaseModel):
    """sha256: of the file of tensors. pad_to: the tokens that every row is padded to, where the strategy pads.
    weights_sha256: of the weights below and around what was trained; None for random ones."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    schema_version: Literal[1] = 1
    run_id: str
    strategy: str
    strategy_source: StrategySource
    config: RunConfig
    weights_sha256: str | None
    classes: list[str]
    pad_to: int | None
    validation_accuracy: float
    validation_loss: float
    test_accuracy: float
    sha256: str

    @property
    def quality(self) -> tuple[float, float]:
        return self.validation_accuracy, -self.validation_loss


def quality(record: Record) -> tuple[float, float]:
    """What the best run is chosen by: accuracy on the validation texts, among equals their loss; test has no say."""
    return record.metrics.validation.accuracy, -record.metrics.validation.loss


def best_of(records: Sequence[Record]) -> Record | None:
    """The best strategy's run that ended well."""
    able = [record for record in records if record.status == "ok" and not record.strategy_source.is_baseline]
    return max(able, key=quality, default=None)


def folder_of(store: Store, run_id: str) -> Path:
    """Where a run leaves its classifier, until it is known which one is the best."""
    return store.runs / run_id / "classifier"


def write(folder: Path, planned: PlannedRun, outcome: Outcome) -> None:
    """Raises UserError where the disk does not take it."""
    metrics = outcome.facts["metrics"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MANIFEST).unlink(missing_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in outcome.trained.items()}, folder / TENSORS)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise UserError(f"the classifier {str(folder)!r} can't be written ({error}): free space.") from error
    kept = Kept(
        run_id=planned.run_id,
        strategy=planned.name,
        strategy_source=planned.source,
        config=planned.config,
        weights_sha256=planned.weights_sha256,
        classes=outcome.classes,
        pad_to=outcome.pad_to,
        validation_accuracy=metrics["validation"].accuracy,
        validation_loss=metrics["validation"].loss,
        test_accuracy=metrics["test"].accuracy,
        sha256=file_sha256(folder / TENSORS),
    )
    write_atomically(folder / MANIFEST, kept.model_dump_json(indent=2) + "\n")


def drop_all_but_the_best(store: Store, run_ids: Sequence[str]) -> None:
    """Of the classifiers that these runs have left, so that a suite of any length needs room for two."""
    folders = [folder_of(store, run_id) for run_id in run_ids]
    found = sorted((folder for folder in folders if (folder / MANIFEST).exists()), key=lambda one: read(one).quality)
    for folder in found[:-1]:
        shutil.rmtree(folder)


def planned_to_keep(plan: Plan) -> Plan:
    """Raises UserError where it has baselines only."""
    if all(run.source.is_baseline for run in plan.runs):
        raise UserError("SAVE=1: baselines train nothing that could be kept; name a strategy, too.")
    runs = [run.model_copy(update={"keep": not run.source.is_baseline}) for run in plan.runs]
    return plan.model_copy(update={"runs": runs})


def has(store: Store, run_id: str) -> bool:
    """Whether the classifier of a run is kept, be it as that of its results."""
    installed_one = installed(store)
    of_results = installed_one is not None and installed_one.run_id == run_id
    return of_results or (folder_of(store, run_id) / MANIFEST).exists()


def install(store: Store, run_id: str) -> None:
    """Make the classifier of a run that of its results."""
    place, folder = store.results / "classifier", folder_of(store, run_id)
    if folder.exists():
        if place.exists():
            shutil.rmtree(place)
        folder.replace(place)


def installed(store: Store) -> Kept | None:
    place = store.results / "classifier"
    return read(place) if (place / MANIFEST).exists() else None


def read(folder: Path) -> Kept:
    """Raises UserError where there is none, or it is damaged."""
    path = folder / MANIFEST
    try:
        return Kept.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"no classifier in {str(folder)!r} (no {MANIFEST}): {TRAIN_ONE}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{path} is no classifier of this version ({where}: {first['msg']}): {TRAIN_ONE}.") from error


def tensors_of(folder: Path, kept: Kept) -> dict[str, Tensor]:
    """Raises UserError where they are missing or not what was written."""
    path = folder / TENSORS
    if not path.is_file():
        raise UserError(f"the classifier {str(folder)!r} is incomplete (no {TENSORS}): copy the whole folder.")
    if (found := file_sha256(path)) != kept.sha256:
        raise UserError(
            f"{path} is damaged (sha256 {found}, {MANIFEST} says {kept.sha256}): copy it again, or {TRAIN_ONE}."
        )
    return load_file(path)
