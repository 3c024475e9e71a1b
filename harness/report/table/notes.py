"""What stands above and below the comparison table: what all rows have in common, and how to read it right."""

from __future__ import annotations

from collections.abc import Sequence

from harness.config.tree import differences, get_key
from harness.report.analysis.baselines import notes_on_baselines
from harness.report.analysis.comparison import Entry, Group
from harness.report.analysis.evidence import evidence_notes
from harness.report.table.columns import reused, several_seeds
from harness.results.names import rate_of, row_name
from harness.results.record import DataFacts, Record


def headings(groups: Sequence[Group]) -> list[str]:
    """One for each table; those that are alike tell the conditions that are not."""
    texts = [heading(group) for group in groups]
    told = []
    for group, text in zip(groups, texts, strict=True):
        alike = [other.conditions for other, its in zip(groups, texts, strict=True) if its == text]
        keys = sorted({key for other in alike for key in differences(group.conditions, other)})
        told.append(" · ".join([text, *(_condition(key, get_key(group.conditions, key)) for key in keys)]))
    return told


def _condition(key: str, value: object) -> str:
    if value is None:
        return f"no {key}"
    return f"{key} {str(value)[:12] if key.endswith('sha256') else value}"


def heading(group: Group) -> str:
    """What ran on what: what all rows of the table have in common."""
    ran = [record for record in group.records if not record.strategy_source.is_baseline]
    # What the kernel has killed tells nothing of its data.
    of_each = [_heading_parts(record) for record in ran if record.data] or [_heading_parts((ran or group.records)[0])]
    common = [part for part in of_each[0] if all(part in other for other in of_each)]
    return " · ".join([*([group.suite] if group.suite else []), *common])


def _heading_parts(record: Record) -> list[str]:
    config, data = record.config, record.data
    sizes = f" ({data.sizes['train']:,} / {data.sizes['validation']:,} / {data.sizes['test']:,})" if data else ""
    if record.strategy_source.is_baseline:  # one of several that need not depend on the same
        return ["baselines", f"{data.name if data else config['data']['name']}{sizes}"]
    training = config["training"]
    rate = record.sweep_around or rate_of(record)
    weights = record.model.weights if record.model.weights in ("random", "pretrained") else "own"
    return [
        f"{record.model.name}, {weights} weights",
        f"{data.name if data else config['data']['name']}{sizes}",
        f"{training['epochs']} epochs, batch {training['batch_size']}, lr {rate:g}",
        f"{record.precision}, {engine_name(record)} x {record.engine.world_size}, {record.environment['device']}",
        *(["plain path"] if config["plain"] else []),
    ]


def engine_name(record: Record) -> str:
    stage = record.engine.zero_stage
    return record.engine.name if stage is None else f"{record.engine.name} ZeRO {stage}"


def notes(entries: list[Entry]) -> list[str]:
    """What a reader must know to read the table right."""
    records = [record for entry in entries for record in entry.records]
    chosen = [(what, why) for record in records for what, why in record.choices.items() if why.startswith("auto")]
    lines = [f"{what} chosen by {why}." for what, why in chosen]
    lines += evidence_notes(entries)
    lines += _data_notes([record.data for record in records if record.data])
    if several_seeds(entries):
        lines.append("loss and accuracy are means over seeds, speed, memory and time medians.")
    if any(reused(entry) for entry in entries):
        lines.append("*: without the time of what another run had stored of its frozen part.")
    lines += [
        f"memory: {definition}, highest of all ranks and phases, above the start of the run."
        for definition in dict.fromkeys(record.memory.definition for record in records if record.memory)
    ]
    lines += [
        f"{row_name(other)} ran code from outside the harness: {other.strategy_source.origin}."
        for other in records
        if other.strategy_source.is_outside
    ]
    lines += [
        f"{row_name(other)} computed its frozen part in every step: {other.prefix.not_stored}."
        for other in records
        if other.prefix and other.prefix.not_stored
    ]
    lines += notes_on_baselines(entries)
    return list(dict.fromkeys(line[0].upper() + line[1:] for line in lines))


def _data_notes(data: list[DataFacts]) -> list[str]:
    """Each with the name of its data set where the rows have several."""
    lines, several = [], len({facts.name for facts in data}) > 1
    for facts in data:
        on = f"on {facts.name}, " if several else ""
        if facts.test_in_train:
            lines.append(
                f"{on}unseen %: without the {facts.test_in_train} of {facts.sizes['test']} test texts that stand "
                f"in the training set verbatim ({facts.test_near_train} but for digits and punctuation)."
            )
        if facts.best_accuracy:
            best = f"{100 * facts.best_accuracy:.0f}%"
            lines.append(f"{on}best possible on average: {best}; the other labels are flipped.")
        if facts.cut_texts:
            lines.append(f"{on}{facts.cut_texts} texts were longer than a row may be, and were cut.")
        looked_for = f"of {facts.classes[1]}" if len(facts.classes) == 2 else "mean over classes"
        lines.append(f"{on}F1 ({looked_for}), ROC AUC and ECE (expected calibration error, 15 bins) on test.")
    return lines
