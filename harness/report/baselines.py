"""What the comparison table says about baselines, and about strategies beside them."""

from __future__ import annotations

from harness.records import Record

LENGTH_RULE = "length_rule"
MARK = "†"


def no_better_than_length(record: Record, table: list[Record]) -> bool:
    """Whether a strategy's test accuracy does not exceed that of the length rule in the same table."""
    if record.strategy_source.is_baseline or not record.metrics:
        return False
    rules = [other for other in table if other.strategy == LENGTH_RULE and other.strategy_source.is_baseline]
    return any(rule.metrics and record.metrics.test.accuracy <= rule.metrics.test.accuracy for rule in rules)


def notes_on_baselines(table: list[Record]) -> list[str]:
    found = [record for record in table if record.strategy_source.is_baseline]
    lines = []
    if found:
        names = ", ".join(record.strategy for record in found)
        lines.append(f"baselines: {names}. They draw nothing at random, so each runs once, whatever the seeds.")
    if any(no_better_than_length(record, table) for record in table):
        lines.append(f"{MARK}: no better on test than {LENGTH_RULE}, one threshold on the number of tokens.")
    if any(record.strategy == "zero_shot" and record.model.weights == "random" for record in found):
        lines.append("with random weights zero_shot knows no language: what it scores off chance is luck, not skill.")
    return lines
