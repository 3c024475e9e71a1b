"""Strategies beside the length rule, the simplest baseline."""

from __future__ import annotations

from fractions import Fraction

from harness.report.analysis.entry import Entry

LENGTH_RULE = "length_rule"


def no_better_than_length(entry: Entry, table: list[Entry]) -> bool:
    """Whether a strategy's test accuracy does not exceed that of the length rule in the same table."""
    if entry.is_baseline or entry.accuracy is None:
        return False
    rules = [other for other in table if other.name == LENGTH_RULE and other.is_baseline and other.ok]
    return any(_exact_accuracy(entry) <= _exact_accuracy(rule) for rule in rules)


def _exact_accuracy(entry: Entry) -> Fraction:
    """From counts: means of equal accuracies may differ by a rounding error."""
    tests = [record.ok_metrics.test for record in entry.ok]
    return Fraction(sum(test.correct for test in tests), sum(test.total for test in tests))
