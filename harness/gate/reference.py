"""The gate's reference: the committed file, and whether a new measurement may be compared with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from harness.config.tree import differences, first_mistake
from harness.errors import UserError
from harness.files import write_atomically
from harness.gate.measurement import GATE_SCHEMA_VERSION, ROOT, Cost, Measurement, Run
from harness.results.record import SCHEMA_VERSION as RECORD_SCHEMA_VERSION

REFERENCE = ROOT / "results" / "reference" / "gate"


def read_reference(folder: Path) -> Measurement:
    """Raises UserError for a reference that is missing, empty, damaged, or of another schema version."""
    path, remedy = folder / "reference.json", 'write one with `make gate-update REASON="..."`'
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"gate reference {str(path)!r} can't be read ({error.strerror}): {remedy}.") from error
    except ValueError as error:
        raise UserError(f"gate reference {str(path)!r} is no JSON ({error}): restore it, or {remedy}.") from error
    if not isinstance(tree, dict) or not tree.get("runs") or not tree.get("costs"):
        raise UserError(f"gate reference {str(path)!r} is empty: it holds no runs to compare with; {remedy}.")
    versions = [("schema_version", GATE_SCHEMA_VERSION), ("record_schema_version", RECORD_SCHEMA_VERSION)]
    for name, expected in versions:
        if tree.get(name) != expected:
            raise UserError(
                f"gate reference {str(path)!r} has {name} {tree.get(name)!r}, and this ftbench writes {expected}: "
                f"they can't be compared; {remedy}."
            )
    try:
        return Measurement.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"gate reference {str(path)!r} is damaged ({first_mistake(error)}): {remedy}.") from error


def write_reference(folder: Path, measured: Measurement, reason: str) -> Path:
    """Write the measurement as the new reference, with the reason; returns its path.

    Raises UserError where the reason is empty.
    """
    check_reason(reason)
    tree = measured.model_copy(update={"reason": reason.strip()}).model_dump(mode="json")
    # One line a run, so that a diff of two references shows which runs changed.
    parts = {key: json.dumps(value) for key, value in tree.items()}
    for key in ("runs", "costs"):
        parts[key] = "[\n" + ",\n".join(json.dumps(entry) for entry in tree[key]) + "\n]"
    content = "{\n" + ",\n".join(f"{json.dumps(key)}: {value}" for key, value in parts.items()) + "\n}\n"
    write_atomically(folder / "reference.json", content)
    return folder / "reference.json"


def check_reason(reason: str) -> None:
    if not reason.strip():
        raise UserError('a new gate reference needs a reason: make gate-update REASON="what changed, and why".')


def check_comparable(reference: Measurement, measured: Measurement) -> None:
    """Raises UserError where the two were not measured on the same weights, data and configuration, and says which."""
    different = []
    kinds = (("runs", reference.runs, measured.runs), ("cost runs", reference.costs, measured.costs))
    for what, old, new in kinds:
        named_old, named_new = ({(run.strategy, run.seed): run for run in runs} for runs in (old, new))
        if named_old.keys() != named_new.keys():
            before, after = (", ".join(f"{name} seed {seed}" for name, seed in runs) for runs in (named_old, named_new))
            different.append(f"configuration of the {what}: reference {before}; now {after}")
            continue
        for key, run in named_old.items():
            different += _differences(run, named_new[key])
    if different:
        raise UserError(
            f"the gate compares like with like only, and these differ: {'; '.join(dict.fromkeys(different))}. Undo the "
            'change, or write a new reference: make gate-update REASON="...".'
        )


def _differences(old: Run | Cost, new: Run | Cost) -> Iterator[str]:
    parts = (("weights", "weights_sha256"), ("data", "data_sha256"), ("test messages", "messages_sha256"))
    for part, key in parts:
        before, after = getattr(old, key, None), getattr(new, key, None)
        if before != after:
            yield f"{part} (sha256): reference {str(before)[:12]}; now {str(after)[:12]}"
    for key, (before, after) in sorted(differences(old.config, new.config).items()):
        yield f"configuration {key}: reference {before!r}; now {after!r}"
