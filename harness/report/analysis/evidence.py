"""What a reader must know of a table's intervals and verdicts."""

from __future__ import annotations

from harness.report.analysis.comparison import Entry
from harness.statistics import MOST_SEEDS


def evidence_notes(entries: list[Entry]) -> list[str]:
    compared = [entry.evidence for entry in entries if entry.evidence]
    lines = _interval_notes(entries)
    if compared:
        lines += _verdict_notes(entries)
    reasons = {entry.name: entry.unread or entry.incomparable for entry in entries}
    lines += [f"not compared: {name}, since {reason}." for name, reason in reasons.items() if reason]
    lines += [
        f"not in the values: {len(entry.failures)} of {len(entry.records)} seeds of {entry.name}, not ended well."
        for entry in entries
        if entry.failures and len(entry.records) > 1
    ]
    return lines


def _interval_notes(entries: list[Entry]) -> list[str]:
    several = [len(entry.ok) > 1 for entry in entries if entry.ok and not entry.is_baseline]
    lines = []
    if any(several):
        lines.append("[95%]: interval of the mean for other seeds and other test messages; sd: over seeds.")
    if not all(several) or not several:
        which = " where one seed ended well" if any(several) else ""
        lines.append(
            f"[95%]{which}: Wilson interval for the size of the test set; how results vary from seed to seed "
            "is not in it."
        )
    elif any(entry.is_baseline for entry in entries):
        lines.append("[95%] of baselines: Wilson interval for the size of the test set; no seed changes them.")
    return lines


def _verdict_notes(entries: list[Entry]) -> list[str]:
    compared = [entry for entry in entries if entry.evidence]
    reference = compared[0].evidence.reference
    pairs = [entry for entry in compared if len(entry.evidence.seeds) == 1]
    lines = [
        f"vs {reference}: points of accuracy on the same messages"
        + ("" if len(pairs) == len(compared) else " and seeds")
        + f", [95%], each for itself; verdict: 5% error over all comparisons of this table together ({len(compared)}, "
        "Holm), so that an interval may leave out 0 without one."
    ]
    if pairs:
        which = "" if len(pairs) == len(compared) else f" ({', '.join(entry.name for entry in pairs)})"
        lines.append(
            f"one seed{which}: the verdict is on these very pairs of trained models (McNemar's test), not on the "
            "strategies: several seeds tell."
        )
    fewer: dict[int, list[str]] = {}
    for entry in compared:
        if entry not in pairs and len(entry.evidence.seeds) < _most_seeds(entries):
            fewer.setdefault(len(entry.evidence.seeds), []).append(entry.name)
    lines += [
        f"compared on {count} seeds only, which ended well for both: {', '.join(names)}."
        for count, names in fewer.items()
    ]
    open_rows = [entry for entry in compared if entry not in pairs and entry.evidence.verdict == "no evidence"]
    alike = [entry for entry in open_rows if not entry.evidence.difference]
    if alike:
        lines.append(f"no difference at all was seen: {', '.join(entry.name for entry in alike)}.")
    open_rows = [entry for entry in open_rows if entry not in alike]
    if open_rows:
        told = "; ".join(f"{entry.name} {_what_settles(entry)}" for entry in open_rows)
        lines.append(f"needed to show a difference as large as seen (80% power): {told}.")
    return lines


def _most_seeds(entries: list[Entry]) -> int:
    return max(len(entry.records) for entry in entries)


def _what_settles(entry: Entry) -> str:
    evidence = entry.evidence
    seeds = f"{evidence.seeds_needed:,} seeds" if evidence.seeds_needed else ""
    messages = f"{evidence.messages_needed:,} test messages" if evidence.messages_needed else ""
    if not seeds and not messages:
        return f"more than {MOST_SEEDS:,} seeds, or more of both seeds and messages"
    return " or ".join(filter(None, (seeds, messages)))
