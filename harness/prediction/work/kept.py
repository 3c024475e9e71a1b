"""The work of runs kept between commands: to walk through them takes seconds."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from harness.files import write_atomically
from harness.prediction.work.operations import Operation
from harness.prediction.work.passes import Held, Parameters, Pass, RunWork
from harness.prediction.work.walk import Walk
from harness.prediction.work.walker import ComputedFeatures

_PASSES, _WALKS = ("features", "step", "evaluate"), ("walk", "sample")
_COUNTS = {"parameters": Parameters, "held": Held}


@dataclass(frozen=True)
class KeptWork:
    """Of several runs, one after the other, and the features that those before each have computed. Operations that come
    from a file have no call."""

    works: list[RunWork]
    before: list[ComputedFeatures]

    def write(self, path: Path) -> None:
        """Each operation once."""
        numbers: dict[Operation, int] = {}
        works = [_work_to_json(work, numbers) for work in self.works]
        content = {
            "operations": [_operation_to_json(operation) for operation in numbers],
            "works": works,
            "before": [_computed_to_json(computed) for computed in self.before],
        }
        write_atomically(path, json.dumps(content).encode())

    @classmethod
    def read(cls, path: Path) -> KeptWork | None:
        """None where nothing is kept."""
        if not path.exists():
            return None
        content = json.loads(path.read_text(encoding="utf-8"))
        operations = [_operation_from_json(one) for one in content["operations"]]
        works = [_work_from_json(one, operations) for one in content["works"]]
        return cls(works, [_computed_from_json(one) for one in content["before"]])


def _computed_to_json(computed: ComputedFeatures) -> list[Any]:
    return [[list(key), [list(one) for one in stages]] for key, stages in computed.items()]


def _computed_from_json(content: list[Any]) -> ComputedFeatures:
    return {tuple(key): {(count, reads) for count, reads in stages} for key, stages in content}


def _operation_to_json(operation: Operation) -> dict[str, Any]:
    fields = asdict(replace(operation, call=None)) | {"precision": str(operation.precision).removeprefix("torch.")}
    del fields["call"]
    return fields


def _operation_from_json(fields: dict[str, Any]) -> Operation:
    values: dict[str, Any] = fields | {"precision": getattr(torch, fields["precision"])}
    return Operation(**values)


def _work_to_json(work: RunWork, numbers: dict[Operation, int]) -> dict[str, Any]:
    of_passes = {name: _pass_to_json(one, numbers) if (one := getattr(work, name)) else None for name in _PASSES}
    return vars(work) | of_passes | {name: vars(getattr(work, name)) for name in _COUNTS}


def _work_from_json(fields: dict[str, Any], operations: Sequence[Operation]) -> RunWork:
    values: dict[str, Any] = fields | {name: made(**fields[name]) for name, made in _COUNTS.items()}
    for name in _PASSES:
        values[name] = _pass_from_json(fields[name], operations) if fields[name] else None
    return RunWork(**values)


def _pass_to_json(one: Pass, numbers: dict[Operation, int]) -> dict[str, Any]:
    return vars(one) | {name: _walk_to_json(getattr(one, name), numbers) for name in _WALKS}


def _pass_from_json(fields: dict[str, Any], operations: Sequence[Operation]) -> Pass:
    values: dict[str, Any] = fields | {name: _walk_from_json(fields[name], operations) for name in _WALKS}
    return Pass(**values)


def _walk_to_json(walk: Walk, numbers: dict[Operation, int]) -> dict[str, Any]:
    counts = [[numbers.setdefault(operation, len(numbers)), count] for operation, count in walk.operations.items()]
    return vars(walk) | {"operations": counts}


def _walk_from_json(fields: dict[str, Any], operations: Sequence[Operation]) -> Walk:
    counts = {operations[number]: count for number, count in fields["operations"]}
    values: dict[str, Any] = fields | {"operations": Counter(counts)}
    return Walk(**values)
