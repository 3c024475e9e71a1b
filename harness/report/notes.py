"""What stands above and below the comparison table: what all rows have in common, and how to read it right."""

from __future__ import annotations

from harness.records import Record
from harness.report.baselines import notes_on_baselines
from harness.report.columns import reused, several_seeds
from harness.report.comparison import Entry, Group
from harness.report.evidence import evidence_notes
from harness.report.names import rate_of, row_name


def heading(group: Group) -> str:
    """What ran on what: what all rows of the table have in common."""
    of_each = [_heading_parts(record) for record in group.records if not record.strategy_source.is_baseline]
    of_each = of_each or [_heading_parts(group.records[0])]
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
    record = next((record for record in records if record.data), records[0])
    lines = [f"{what} chosen by {why}." for what, why in record.choices.items() if why.startswith("auto")]
    lines += evidence_notes(entries)
    if record.data:
        data = record.data
        if data.test_in_train:
            lines.append(
                f"unseen %: without the {data.test_in_train} of {data.sizes['test']} test texts that stand "
                f"in the training set verbatim ({data.test_near_train} but for digits and punctuation)."
            )
        if data.best_accuracy:
            lines.append(f"best possible on average: {100 * data.best_accuracy:.0f}%; the other labels are flipped.")
        if data.cut_texts:
            lines.append(f"{data.cut_texts} texts were longer than a row may be, and were cut.")
        looked_for = f"of {data.classes[1]}" if len(data.classes) == 2 else "mean over classes"
        lines.append(f"F1 ({looked_for}), ROC AUC and ECE (expected calibration error, 15 bins) on test.")
    if several_seeds(entries):
        lines.append("loss and accuracy are means over seeds, speed, memory and time medians.")
    if any(reused(entry) for entry in entries):
        lines.append("*: without the time of what another run had stored of its frozen part.")
    if record.memory:
        lines.append(
            f"memory: {record.memory.definition}, highest of all ranks and phases, above the start of the run."
        )
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
