"""The gate's reference: the committed file, and whether a suite may be compared with it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.config.schema import RunConfig
from harness.config.tree import differences, first_mistake, merged
from harness.errors import UserError
from harness.files import try_writing, write_atomically
from harness.gate.measurement import GATE_SCHEMA_VERSION, Case, Measurement, Subject
from harness.gate.suite import GateSuite
from harness.results.record import SCHEMA_VERSION as RECORD_SCHEMA_VERSION

# Where files lie: hashes of their content are compared instead.
PLACES = ("data.name", "model.weights")


def read_reference(suite: GateSuite) -> Measurement:
    """Raises UserError for a reference that is missing, empty, damaged, or of another schema version."""
    path, remedy = suite.reference / "reference.json", f"write one with `{suite.update_command}`"
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"gate reference {str(path)!r} can't be read ({error.strerror}): {remedy}.") from error
    except ValueError as error:
        raise UserError(f"gate reference {str(path)!r} is no JSON ({error}): restore it, or {remedy}.") from error
    if not isinstance(tree, dict) or not tree.get("runs"):
        raise UserError(f"gate reference {str(path)!r} is empty: it holds no runs to compare with; {remedy}.")
    try:
        tree = _upgraded(tree) if tree.get("schema_version") == 2 else tree
    except (KeyError, TypeError) as error:
        raise UserError(f"gate reference {str(path)!r} is damaged (a run lacks {error}): {remedy}.") from error
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


def _upgraded(tree: dict[str, Any]) -> dict[str, Any]:
    """A reference of schema version 2, which knew rows by their strategy, no labels or predictions, and no pairs of
    texts."""

    def upgraded(entry: dict[str, Any]) -> dict[str, Any]:
        rest = {key: value for key, value in entry.items() if key not in ("strategy", "config")}
        config = merged({"strategy": entry["strategy"], "data": {"pair": False}}, entry["config"])
        return rest | {"row": entry["strategy"], "config": config}

    runs = [upgraded(run) | {"precision": run["config"]["precision"]} for run in tree["runs"]]
    costs = [upgraded(cost) for cost in tree.get("costs", [])]
    return tree | {"schema_version": GATE_SCHEMA_VERSION, "runs": runs, "costs": costs}


def write_reference(suite: GateSuite, measured: Measurement, reason: str) -> Path:
    """Write the measurement as the new reference, with the reason; returns its path.

    Raises UserError where the reason is empty, or the folder can't be written.
    """
    check_reason(suite, reason)
    tree = measured.model_copy(update={"reason": reason.strip()}).model_dump(mode="json")
    # One line a run, so that a diff of two references shows which runs changed.
    parts = {key: json.dumps(value) for key, value in tree.items()}
    for key in ("runs", "costs"):
        parts[key] = "[\n" + ",\n".join(json.dumps(entry) for entry in tree[key]) + "\n]"
    content = "{\n" + ",\n".join(f"{json.dumps(key)}: {value}" for key, value in parts.items()) + "\n}\n"
    path = suite.reference / "reference.json"
    write_atomically(path, content)
    return path


def check_reason(suite: GateSuite, reason: str) -> None:
    if not reason.strip():
        command = suite.update_command.replace("...", "what changed, and why")
        raise UserError(f"a new gate reference needs a reason: {command}.")


def check_comparable(
    suite: GateSuite, reference: Measurement, subjects: Sequence[Subject], costs: Sequence[Case]
) -> None:
    """Raises UserError where the reference is of other weights, data or configuration than what is about to run."""
    different = []
    for what, old, new in (("runs", reference.runs, subjects), ("cost runs", reference.costs, costs)):
        named_old, named_new = ({(case.row, case.seed): case for case in cases} for cases in (old, new))
        if named_old.keys() != named_new.keys():
            before, after = (", ".join(f"{row} seed {seed}" for row, seed in named) for named in (named_old, named_new))
            different.append(f"configuration of the {what}: reference {before}; now {after}")
            continue
        for key, case in named_old.items():
            different += _differences(case, named_new[key])
    if different:
        raise UserError(
            f"the gate compares like with like only, and these differ: {'; '.join(dict.fromkeys(different))}. Undo the "
            f"change, or write a new reference: {suite.update_command}."
        )


def _differences(old: Case, new: Case) -> Iterator[str]:
    parts = (("weights", "weights_sha256"), ("data", "data_sha256"), ("test messages", "messages_sha256"))
    for part, key in parts:
        before, after = getattr(old, key, None), getattr(new, key, None)
        if before != after:
            yield f"{part} (sha256): reference {str(before)[:12]}; now {str(after)[:12]}"
    # A reference may be older than a key: then it ran with what is the key's default since.
    defaults = RunConfig().model_dump(mode="json", exclude={"seed"})
    before, after = (merged(defaults, case.config) for case in (old, new))
    for key, values in sorted(differences(before, after).items()):
        if key not in PLACES:
            yield f"configuration {key}: reference {values[0]!r}; now {values[1]!r}"


def check_writable(suite: GateSuite) -> None:
    """Raises UserError where the reference can't be written: before hours of runs, not after them."""
    try:
        try_writing(suite.reference)
    except OSError as error:
        raise UserError(
            f"reference folder {str(suite.reference)!r} can't be written ({error.strerror}): name another with "
            "REFERENCE."
        ) from error
