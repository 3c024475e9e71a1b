"""The classifier that a suite keeps: what its best run trained, and what the rest of its model is made of.

It lies in RESULTS/classifier: `model.safetensors` holds the trained parameters only; `classifier.json`, written last,
says on which weights, found again by their hash, they stand.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.config.schema import RunConfig
from harness.config.tree import first_mistake
from harness.distributed.process_group import World
from harness.errors import UserError
from harness.experiment.run import Outcome
from harness.files import file_sha256, write_atomically
from harness.planning.plan import Plan, PlannedRun
from harness.results.record import Record, StrategySource
from harness.results.store import Store

FOLDER, MANIFEST, TENSORS = "classifier", "classifier.json", "model.safetensors"
TRAIN_ONE = "`make bench SAVE=1` trains and keeps one"


class Kept(BaseModel):
    """sha256: of the file of tensors. pad_to: the tokens that every row is padded to, where the strategy pads.
    weights_sha256: of the weights below and around what was trained; None for random ones of a GPT-2."""

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
    return store.runs / run_id / FOLDER


def keep(store: Store, planned: PlannedRun, outcome: Outcome, world: World) -> None:
    """Write what a run has trained beside its record. Every rank must call it; the first writes.

    Raises UserError, on every rank, where the disk does not take it.
    """
    problem = _write(folder_of(store, planned.run_id), planned, outcome) if world.rank == 0 else None
    problem = next(filter(None, world.gather(problem)), None)
    if problem:
        raise UserError(problem)


def _write(folder: Path, planned: PlannedRun, outcome: Outcome) -> str | None:
    """Returns what went wrong."""
    try:
        _write_tensors(folder, outcome)
        write_atomically(folder / MANIFEST, _about(folder, planned, outcome).model_dump_json(indent=2) + "\n")
    except (OSError, SafetensorError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        return f"the classifier {str(folder)!r} can't be written ({error}): free space, or name another RESULTS folder."
    return None


def _write_tensors(folder: Path, outcome: Outcome) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in outcome.trained.items()}, folder / TENSORS)


def _about(folder: Path, planned: PlannedRun, outcome: Outcome) -> Kept:
    metrics = outcome.facts["metrics"]
    return Kept(
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


def drop_all_but_the_best(store: Store, run_ids: Sequence[str]) -> None:
    """Of the classifiers that these runs have left, so that a suite of any length needs room for two."""
    folders = [folder_of(store, run_id) for run_id in run_ids]
    found = [folder for folder in folders if (folder / MANIFEST).exists()]
    best = max(found, key=lambda folder: read(folder).quality, default=None)
    _remove(folder for folder in found if folder != best)


def planned_to_keep(plan: Plan) -> Plan:
    """Raises UserError where it has baselines only."""
    if all(run.source.is_baseline for run in plan.runs):
        raise UserError("SAVE=1: baselines train nothing that could be kept; name a strategy, too.")
    runs = [run.model_copy(update={"keep": not run.source.is_baseline}) for run in plan.runs]
    return plan.model_copy(update={"runs": runs})


def to_do_again(store: Store, earlier: Sequence[Record]) -> Record | None:
    """Of runs that ended before, the best one where its classifier is not kept; no other can be the best of all."""
    best = best_of(earlier)
    return None if best is None or _is_kept(store, best.run_id) else best


def _is_kept(store: Store, run_id: str) -> bool:
    return (folder_of(store, run_id) / MANIFEST).exists() or _installed(store) == run_id


def _installed(store: Store) -> str | None:
    """The run whose classifier is that of its results; None where there is none, or one that can't be read."""
    try:
        return read(store.results / FOLDER).run_id
    except UserError:  # it will be replaced
        return None


def install(store: Store, records: Sequence[Record]) -> tuple[Record, Path] | None:
    """Make the classifier of the best run that of its results, and remove what the other runs have left.

    Returns that run and the folder; None where no run ended well.
    """
    best, place = best_of([record for record in records if _is_kept(store, record.run_id)]), store.results / FOLDER
    if best is None:
        return None
    with FileLock(store.results / ".classifier.lock"):
        folder = folder_of(store, best.run_id)
        if folder.exists():
            _remove([place] if place.exists() else [])
            folder.replace(place)
    _remove(folder for record in records if (folder := folder_of(store, record.run_id)).is_dir())
    return best, place


def _remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder)


def read(folder: Path) -> Kept:
    """Raises UserError where there is none, or it is damaged."""
    path = folder / MANIFEST
    try:
        return Kept.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"no classifier in {str(folder)!r} (no {MANIFEST}): {TRAIN_ONE}.") from error
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): check its permissions.") from error
    except ValidationError as error:
        raise UserError(f"{path} is no classifier of this version ({first_mistake(error)}): {TRAIN_ONE}.") from error


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
