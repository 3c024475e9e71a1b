"""Notes on a table's intervals and verdicts."""

from __future__ import annotations

from harness.metrics import ACCURACY, METRICS, Metric
from harness.report.analysis.entry import Entry, Evidence
from harness.report.table.notes.note import Note
from harness.statistics import MOST_SEEDS


def evidence_notes(entries: list[Entry]) -> list[str | Note]:
    lines = _interval_notes(entries)
    compared = {entry.name: entry.evidence for entry in entries if entry.evidence}
    if compared:
        most_seeds = max(len(entry.records) for entry in entries)
        lines += _verdict_notes(compared, entries[0].metric, most_seeds)
    reasons = {entry.name: entry.unpaired or entry.incomparable for entry in entries}
    lines += [f"not compared: {name}, since {reason}." for name, reason in reasons.items() if reason]
    lines += [
        f"not in the values: {len(entry.failures)} of {len(entry.records)} seeds of {entry.name}, not ended well."
        for entry in entries
        if entry.failures and len(entry.records) > 1
    ]
    return lines


def _interval_notes(entries: list[Entry]) -> list[str | Note]:
    several = [len(entry.ok) > 1 for entry in entries if entry.ok and not entry.runs_once]
    lines: list[str | Note] = []
    if any(several):
        lines.append("[95%]: interval of the mean for other seeds and other test messages; sd: over seeds.")
    if not all(several) or not several:
        which = " where one seed ended well" if any(several) else ""
        lines.append(
            f"[95%]{which}: Wilson interval for the size of the test set; how results vary from seed to seed "
            "is not in it."
        )
    elif any(entry.runs_once for entry in entries):
        lines.append("[95%] of baselines: Wilson interval for the size of the test set; no seed changes them.")
    if any(entry.scores for entry in entries):
        titles = [metric.title for metric in METRICS.values() if metric is not ACCURACY]
        named = f"{', '.join(titles[:-1])} and {titles[-1]}"
        lines.append(Note(f"{named}: on test, times 100, [95%] from a bootstrap over test messages.", tuple(titles)))
    return lines


def _verdict_notes(compared: dict[str, Evidence], metric: Metric, most_seeds: int) -> list[str]:
    """compared: by name of the row. metric: what they are compared by. most_seeds: of any row of the table."""
    reference = next(iter(compared.values())).reference
    one_seed = [name for name, evidence in compared.items() if len(evidence.seeds) == 1]
    several = {name: evidence for name, evidence in compared.items() if len(evidence.seeds) > 1}
    lines = [
        f"vs {reference}: points of {metric.title} on the same messages"
        + (" and seeds" if several else "")
        + f", [95%], each for itself; verdict: 5% error over all comparisons of this table together ({len(compared)}, "
        "Holm), so that an interval may leave out 0 without one."
    ]
    if one_seed:
        which = f" ({', '.join(one_seed)})" if several else ""
        test = "McNemar's test" if metric is ACCURACY else "bootstrap over messages"
        lines.append(
            f"one seed{which}: the verdict is on these very pairs of trained models ({test}), not on the "
            "strategies: several seeds tell."
        )
    fewer: dict[int, list[str]] = {}
    for name, evidence in several.items():
        if len(evidence.seeds) < most_seeds:
            fewer.setdefault(len(evidence.seeds), []).append(name)
    lines += [
        f"compared on {count} seeds only, which ended well for both: {', '.join(names)}."
        for count, names in fewer.items()
    ]
    return lines + _open_rows_notes(several, metric)


def _open_rows_notes(compared: dict[str, Evidence], metric: Metric) -> list[str]:
    lines = []
    undecided = {name: evidence for name, evidence in compared.items() if evidence.verdict == "no evidence"}
    equal = [name for name, evidence in undecided.items() if not evidence.difference]
    if equal:
        lines.append(f"no difference at all was seen: {', '.join(equal)}.")
    needed = [f"{name} {what_settles(evidence)}" for name, evidence in undecided.items() if evidence.difference]
    if needed and metric is ACCURACY:
        lines.append(f"needed to show a difference as large as seen (80% power): {'; '.join(needed)}.")
    return lines


def what_settles(evidence: Evidence) -> str:
    seeds = f"{evidence.seeds_needed:,} seeds" if evidence.seeds_needed else ""
    messages = f"{evidence.messages_needed:,} test messages" if evidence.messages_needed else ""
    if not seeds and not messages:
        return f"more than {MOST_SEEDS:,} seeds, or more of both seeds and messages"
    return " or ".join(filter(None, (seeds, messages)))
