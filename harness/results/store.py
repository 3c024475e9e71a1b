"""The records of a results folder, with the predictions and losses beside them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import ValidationError

from harness.config.places import without_places
from harness.config.tree import first_mistake
from harness.errors import UserError
from harness.files import try_writing, write_atomically
from harness.results.record import SCHEMA_VERSION, Record, TrainingCurve


class Store:
    """The records below a results folder, which other processes and machines may write to at the same time."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self.runs = results / "runs"

    def check_writable(self) -> None:
        try:
            try_writing(self.runs)
        except OSError as error:
            raise UserError(
                f"results folder {str(self.results)!r} can't be written ({error.strerror}): name another with RESULTS."
            ) from error

    def write(self, record: Record) -> None:
        write_atomically(self.runs / record.run_id / "record.json", record.model_dump_json(indent=2) + "\n")

    def write_predictions(self, run_id: str, frame: pd.DataFrame) -> None:
        write_atomically(self.runs / run_id / "predictions.csv", frame.to_csv(index=False))

    def predictions(self, run_id: str) -> pd.DataFrame | None:
        """The columns index, label and predicted of a run's predictions; None where there is no such file."""
        path = self.runs / run_id / "predictions.csv"
        if not path.exists():
            return None
        columns = {"index": int, "label": str, "predicted": str}
        try:
            return pd.read_csv(path, usecols=list(columns), dtype=columns, keep_default_na=False)
        except (ValueError, UnicodeDecodeError) as error:
            raise UserError(f"{path} can't be read as predictions ({error}): move the folder away.") from error

    def curve(self, run_id: str) -> pd.DataFrame | None:
        """The columns step, loss and, where recorded, accuracy of a run's training; None where there is no file."""
        path = self.runs / run_id / "losses.csv"
        if not path.exists():
            return None
        columns = {"step": int, "loss": float, "accuracy": float}
        try:
            frame = pd.read_csv(path, usecols=lambda name: name in columns, dtype=columns)
            return frame.astype({"step": int, "loss": float})
        except (ValueError, KeyError, UnicodeDecodeError) as error:
            raise UserError(f"{path} can't be read as losses ({error}): move the folder away.") from error

    def write_curve(self, run_id: str, curve: TrainingCurve) -> None:
        steps = range(1, len(curve) + 1)
        frame = pd.DataFrame({"step": steps, "loss": curve.losses, "accuracy": curve.accuracies})
        write_atomically(self.runs / run_id / "losses.csv", frame.to_csv(index=False))

    def read(self, run_id: str) -> Record | None:
        """The record of a run, if it has one.

        Raises UserError for a record that is damaged or of another schema version.
        """
        path = self.runs / run_id / "record.json"
        try:
            return Record.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise UserError(
                f"{path} is no record of schema version {SCHEMA_VERSION} ({first_mistake(error)}): "
                "move the folder away, or read it with the version of ftbench that wrote it."
            ) from error

    def all(self) -> list[Record]:
        """Every record that can be read, the oldest first; for the others see `unreadable`."""
        return sorted(self._survey()[0], key=lambda record: (record.finished_at, record.run_id))

    def unreadable(self) -> list[str]:
        """A message for each record that is damaged or of another schema version."""
        return self._survey()[1]

    def _survey(self) -> tuple[list[Record], list[str]]:
        found, problems = [], []
        for path in sorted(self.runs.glob("*/record.json")):
            try:
                found.append(self.read(path.parent.name))
            except UserError as problem:
                problems.append(str(problem))
        return [record for record in found if record], problems

    def remove(self, run_id: str) -> None:
        (self.runs / run_id / "record.json").unlink(missing_ok=True)

    def has(self, run_id: str) -> bool:
        return (self.runs / run_id / "record.json").exists()


def predictions_frame(
    index: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, classes: list[str]
) -> pd.DataFrame:
    """index, label, predicted and one probability column for each class.

    index, labels: [examples] integers. probabilities: [examples, classes].
    """
    frame = pd.DataFrame({"index": index})
    frame["label"] = [classes[label] for label in labels]
    frame["predicted"] = [classes[choice] for choice in probabilities.argmax(axis=1)]
    for number, name in enumerate(classes):
        frame[f"probability_{name}"] = probabilities[:, number]
    return frame


def newest_of_each(records: Iterable[Record]) -> list[Record]:
    """The newest record of each configuration; records: the oldest first. Points of a sweep count separately."""
    newest = {}
    for record in records:
        newest[json.dumps([without_places(record.config), record.sweep_around], sort_keys=True)] = record
    return list(newest.values())
