"""What the comparison table says about baselines, and about strategies beside them."""

from __future__ import annotations

from fractions import Fraction

from harness.report.analysis.comparison import Entry

LENGTH_RULE = "length_rule"
MARK = "†"


def no_better_than_length(entry: Entry, table: list[Entry]) -> bool:
    """Whether a strategy's test accuracy does not exceed that of the length rule in the same table."""
    if entry.is_baseline or entry.accuracy is None:
        return False
    rules = [other for other in table if other.name == LENGTH_RULE and other.is_baseline and other.ok]
    return any(_rightness(entry) <= _rightness(rule) for rule in rules)


def _rightness(entry: Entry) -> Fraction:
    """Of whole counts: a mean of rounded shares may lie beside an equal one."""
    tests = [record.metrics.test for record in entry.ok]
    return Fraction(sum(test.correct for test in tests), sum(test.total for test in tests))


def notes_on_baselines(table: list[Entry]) -> list[str]:
    found = [entry for entry in table if entry.is_baseline]
    lines = []
    if found:
        names = ", ".join(entry.name for entry in found)
        lines.append(f"baselines: {names}. They draw nothing at random, so each runs once, whatever the seeds.")
    if any(no_better_than_length(entry, table) for entry in table):
        lines.append(f"{MARK}: no better on test than {LENGTH_RULE}, one threshold on the number of tokens.")
    if any(entry.name == "zero_shot" and entry.records[0].model.weights == "random" for entry in found):
        lines.append("with random weights zero_shot knows no language: what it scores off chance is luck, not skill.")
    return lines
