"""What a comparison says, in sentences that a person can repeat: what to take for accuracy, what for cost, what is
open."""

from __future__ import annotations

from collections.abc import Iterator

from harness.report.analysis.entry import Entry, are_costs_comparable
from harness.report.table.columns import reused, seconds_of
from harness.report.table.notes.evidence import what_settles
from harness.statistics import MOST_MESSAGES, MOST_SEEDS, Verdict


def in_words(entries: list[Entry]) -> list[str]:
    """Sentences on a table's entries; none where nothing was compared.

    "Better" and "worse" are the table's verdicts, which hold over all its comparisons together.
    """
    compared = {entry.name: entry.evidence for entry in entries if entry.evidence}
    if not compared:
        return []
    reference = next(iter(compared.values())).reference
    base = next(entry for entry in entries if entry.name == reference)
    better = [entry for entry in entries if entry.evidence and entry.evidence.verdict == "better"]
    best = max(better, key=_value, default=base)
    sentences = [_most_accurate(best, base), *_cheapest(best, base, entries), *_open(entries, reference)]
    if all(len(evidence.seeds) == 1 for evidence in compared.values()):
        sentences.append("All this is about one trained model each; SEEDS=0..4 compares the strategies.")
    return sentences


def _most_accurate(best: Entry, base: Entry) -> str:
    title = best.metric.title
    if best is base or best.evidence is None:
        return f"For {title} nothing is shown to be better than {base.name} ({_shown(base)})."
    low, high = best.evidence.interval
    return (
        f"For {title} take {best.name} ({_shown(best)}): better than {base.name} by "
        f"{100 * best.evidence.difference:.2f} points [{100 * low:.1f}, {100 * high:.1f}]."
    )


def _cheapest(best: Entry, base: Entry, entries: list[Entry]) -> Iterator[str]:
    """What takes least time of those that are shown to be better than the reference; where none is, of those that are
    not shown to be worse. Nothing where their times can't be compared. Never `majority`, which looks at no text: few
    test texts show nothing against it."""
    better = best is not base
    ran = [entry for entry in entries if entry.ok and entry.name != "majority"]
    able = [entry for entry in ran if _verdict(entry) == "better" or (not better and _verdict(entry) != "worse")]
    timed = {entry.name: seconds for entry in able if (seconds := seconds_of(entry)) is not None}
    if not timed or not are_costs_comparable(able):
        return
    fastest = next(entry for entry in able if entry.name == min(timed, key=timed.__getitem__))
    group = "those that are shown to be better" if better else "all that are not shown to be worse"
    if fastest is best:
        yield f"It also takes least time of {group} ({_time(best)})."
    else:
        cost = f"For cost take {fastest.name} ({_shown(fastest)}, {_time(fastest)})"
        yield f"{cost}, of {group} what takes least time; {best.name} takes {_time(best)}."


def _open(entries: list[Entry], reference: str) -> Iterator[str]:
    undecided = {
        entry.name: entry.evidence
        for entry in entries
        if entry.evidence and entry.evidence.verdict == "no evidence" and entry.evidence.difference
    }
    if not undecided:
        return
    yield f"Not settled against {reference}: {', '.join(undecided)}."
    needed = {
        name: (evidence.seeds_needed or MOST_SEEDS, evidence.messages_needed or MOST_MESSAGES)
        for name, evidence in undecided.items()
        if evidence.seeds_needed or evidence.messages_needed
    }
    if needed:
        nearest = min(needed, key=needed.__getitem__)
        settles = what_settles(undecided[nearest])
        yield f"The nearest to it is {nearest}: {settles} would show a difference as large as seen."


def _verdict(entry: Entry) -> Verdict | None:
    return entry.evidence.verdict if entry.evidence else None


def _value(entry: Entry) -> float:
    assert entry.score is not None, f"{entry.name} was compared"
    return entry.score.mean


def _shown(entry: Entry) -> str:
    return f"{100 * _value(entry):.2f}%"


def _time(entry: Entry) -> str:
    stored = ", reusing stored features" if reused(entry) else ""
    return f"{seconds_of(entry):.1f} s{stored}"
