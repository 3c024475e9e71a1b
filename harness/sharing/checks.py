"""Whether a contribution is whole and consistent: each of its runs, and all of them together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from harness.metrics import ACCURACY
from harness.report.analysis.entry import Entry
from harness.report.analysis.grouping import groups
from harness.report.analysis.sweep import without_other_rates
from harness.results.record import Record
from harness.results.store import newest_of_each
from harness.sharing.contribution import PREDICTIONS, Contribution
from harness.sharing.free_parts import free_part_problems, revision_of
from harness.sharing.page import page_of
from harness.sharing.prediction_checks import prediction_problems, read_predictions
from harness.sharing.private import private_parts
from harness.sharing.record_checks import record_problems

FEWEST_SEEDS = 3
# What all runs of a contribution have in common, by place in the environment of a record.
MACHINE = ("device", "processor", "cores", "threads")
CODE = "code_sha256"


def problems_of(contribution: Contribution) -> list[str]:
    """All that is wrong with one contribution, looked at by itself."""
    found = [*contribution.problems]
    if contribution.about:
        found += private_parts(contribution.about.model_dump(mode="json"))
    for name, record in contribution.runs.items():
        problems = _listed(_run_problems(record, contribution.store.runs / name))
        found += [f"{name}: {problem}" for problem in problems]
    if contribution.records:
        found += _listed(_machine_problems(contribution)) + _listed(_label_problems(contribution))
    if not found:  # rows follow from configurations, which have to be right
        found += _listed(_seed_problems(contribution))
    if not found:
        found += _listed(_page_problems(contribution))
    return found


def _listed(problems: Iterator[str]) -> list[str]:
    """All of them. The data are foreign: what a check fails at is one, too, and the others are still looked at."""
    found = []
    try:
        found.extend(problems)
    except Exception as error:
        found.append(f"can't be checked ({type(error).__name__}: {error}): it is not what a run writes")
    return found


def copies(contributions: Sequence[Contribution]) -> dict[str, list[str]]:
    """By name of a contribution the problems with runs that another one has: two runs never take the same time."""
    first: dict[tuple[str, float | str], str] = {}
    found: dict[str, list[str]] = {}
    for contribution in contributions:
        for name, record in contribution.runs.items():
            taken = record.seconds.total or record.finished_at  # a run that the kernel killed has no times
            owner = first.setdefault((record.identity, taken), contribution.name)
            if owner != contribution.name:
                problem = f"{name}: the same run as in {owner}; delete one of them"
                found.setdefault(contribution.name, []).append(problem)
    return found


def _run_problems(record: Record, folder: Path) -> Iterator[str]:
    yield from private_parts(record.model_dump(mode="json"))
    if problems := list(free_part_problems(record)):  # the other checks read them
        yield from problems
        return
    yield from record_problems(record, folder.name)
    if record.status == "ok" and record.metrics and record.data:
        yield from prediction_problems(record, folder / PREDICTIONS)


def _machine_problems(contribution: Contribution) -> Iterator[str]:
    """One machine and one revision of the code for all runs, and the revision that the contribution names."""
    for key in (*MACHINE, CODE):
        counts = Counter(str(record.environment.get(key)) for record in contribution.records)
        if len(counts) > 1 or "None" in counts:
            shown = ", ".join(f"{value[:40]} ({runs} runs)" for value, runs in counts.most_common())
            yield f"environment.{key} is {shown}: expected one; make a contribution of each machine and code"
    sound = [record for record in contribution.records if not any(free_part_problems(record))]
    for revision, runs in Counter(map(revision_of, sound)).items():
        if revision.endswith("modified"):
            yield f"{runs} runs have uncommitted changes in their code: commit them, and run again"
        elif contribution.about and revision != contribution.about.revision:
            yield f"{runs} runs are of revision {revision}, not {contribution.about.revision}"


def _label_problems(contribution: Contribution) -> Iterator[str]:
    """Runs on the same data have the same labels."""
    labels: dict[str, tuple[str, pd.Series]] = {}
    for name, record in contribution.runs.items():
        frame = read_predictions(contribution.store.runs / name / PREDICTIONS)
        if record.data is None or isinstance(frame, str) or not {"index", "label"} <= {*frame.columns}:
            continue
        found = frame.set_index("index")["label"].sort_index()
        owner, expected = labels.setdefault(record.data.sha256, (name, found))
        common = found.index.intersection(expected.index)
        if found.index.is_unique and expected.index.is_unique and not found[common].equals(expected[common]):
            yield f"{name}: {PREDICTIONS} has other labels than that of {owner}"


def _page_problems(contribution: Contribution) -> Iterator[str]:
    """None but what its part of the page can't be made for."""
    page_of([contribution])
    yield from ()


def _seed_problems(contribution: Contribution) -> Iterator[str]:
    """At least three runs that ended well of each row, but for what is the same with every seed."""
    for group in groups(newest_of_each(contribution.records)):
        rows: dict[str, list[Record]] = {}
        for record in without_other_rates(group.records, ACCURACY.name):
            rows.setdefault(group.name_of(record), []).append(record)
        for name, records in rows.items():
            entry = Entry(name, records, [record for record in records if record.status == "ok"])
            seeds = {record.seed for record in entry.ok}
            if seeds and not entry.runs_once and len(seeds) < FEWEST_SEEDS:
                yield f"{name} has {len(seeds)} seeds: expected {FEWEST_SEEDS} or more, such as SEEDS=0..4"
