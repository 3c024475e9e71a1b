"""The heading and the notes of a comparison table: what all rows have in common, and how to read it."""

from __future__ import annotations

from collections.abc import Sequence

from harness.config.tree import differences, get_key
from harness.metrics import METRICS
from harness.report.analysis.baselines import LENGTH_RULE, no_better_than_length
from harness.report.analysis.entry import Entry
from harness.report.analysis.grouping import Group, recipe
from harness.report.table.columns import reused, several_seeds
from harness.report.table.notes.device import cost_notes, device_notes, energy_notes, job_notes, settings_of
from harness.report.table.notes.evidence import evidence_notes
from harness.report.table.notes.note import Note
from harness.report.table.rows import MARK
from harness.results.names import engine_name, rate_of, row_name
from harness.results.record import DataFacts, Record


def headings(groups: Sequence[Group]) -> list[str]:
    """One for each table; equal headings are extended by the conditions that differ."""
    texts = [heading(group) for group in groups]
    extended = []
    for group, text in zip(groups, texts, strict=True):
        same = [other.conditions for other, its_text in zip(groups, texts, strict=True) if its_text == text]
        keys = sorted({key for other in same for key in differences(group.conditions, other)})
        extended.append(" · ".join([text, *(_condition(key, get_key(group.conditions, key)) for key in keys)]))
    return extended


def _condition(key: str, value: object) -> str:
    if value is None:
        return f"no {key}"
    return f"{key} {str(value)[:12] if key.endswith('sha256') else value}"


def heading(group: Group) -> str:
    """Model, data, training and machine, as far as all rows of the table have them in common."""
    ran = [record for record in group.records if not record.strategy_source.is_baseline]
    ran = [record for record in ran if record.takes_steps] or ran
    # The record of a run that the kernel killed says nothing about its data.
    parts = [_heading_parts(record) for record in ran if record.data] or [_heading_parts((ran or group.records)[0])]
    common = [part for part in parts[0] if all(part in other for other in parts)]
    return " · ".join([*([group.suite] if group.suite else []), *common])


def _heading_parts(record: Record) -> list[str]:
    config, data = record.config, record.data
    sizes = f" ({data.sizes['train']:,} / {data.sizes['validation']:,} / {data.sizes['test']:,})" if data else ""
    if record.strategy_source.is_baseline:  # others of the table may depend on other conditions
        return ["baselines", f"{data.name if data else config['data']['name']}{sizes}", record.environment["device"]]
    training = config["training"]
    rate = record.sweep_around or rate_of(record)
    weights = record.model.weights if record.model.weights in ("random", "pretrained") else "own"
    return [
        f"{record.model.name}, {weights} weights",
        f"{data.name if data else config['data']['name']}{sizes}",
        *([f"{training['epochs']} epochs, batch {training['batch_size']}, lr {rate:g}"] if record.takes_steps else []),
        f"{record.precision}, {engine_name(record)} x {record.engine.world_size}, {record.environment['device']}",
        *(recipe(record) if record.takes_steps else []),
        *(["plain path"] if config["plain"] else []),
        *settings_of(record),
    ]


def notes(entries: list[Entry]) -> list[str | Note]:
    """What a reader must know to interpret the table."""
    records = [record for entry in entries for record in entry.records]
    chosen = [(what, why) for record in records for what, why in record.choices.items() if why.startswith("auto")]
    lines: list[str | Note] = [f"{what} chosen by {why}." for what, why in chosen]
    lines += evidence_notes(entries)
    lines += [*device_notes(entries), *job_notes(entries), *energy_notes(entries), *cost_notes(entries)]
    lines += _data_notes([record.data for record in records if record.data])
    lines += [*_calibration_notes(entries), *_forgetting_notes(entries)]
    if several_seeds(entries):
        lines.append("loss and accuracy are means over seeds, speed, memory and time medians.")
    if any(reused(entry) for entry in entries):
        lines.append(Note("*: without the time of what another run had stored of its frozen part.", ("time", "cost")))
    lines += _joint_notes(entries)
    lines += [_epoch_note(entry) for entry in entries if any(record.epochs for record in entry.ok)]
    lines += _head_notes([entry for entry in entries if any(record.head_fit for record in entry.ok)])
    lines += [
        Note(f"memory: {definition}, highest of all ranks and phases, above the start of the run.", ("memory",))
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
    return [*lines, *_baseline_notes(entries)]


def _calibration_notes(entries: list[Entry]) -> list[Note]:
    found = [entry for entry in entries if any(record.calibration for record in entry.ok)]
    if not found:
        return []
    texts = [
        "scaled ECE and scaled loss: on test, of logits divided by one temperature, which is fitted on validation and "
        "changes no prediction."
    ]
    for entry in found:
        reasons = [one.calibration.not_fitted for one in entry.ok if one.calibration and one.calibration.not_fitted]
        seeds = f" on {len(reasons)} of {len(entry.ok)} seeds" if len(entry.ok) > 1 else ""
        if reasons:
            texts.append(f"no temperature for {entry.name}{seeds}: {'; '.join(dict.fromkeys(reasons))}.")
    return [Note(text, ("scaled ECE", "scaled loss")) for text in texts]


def _forgetting_notes(entries: list[Entry]) -> list[str]:
    found = [(entry.name, record.model.name, record.forgetting) for entry in entries for record in entry.ok]
    lines: list[str] = []
    not_measured: dict[str, dict[str, None]] = {}
    for name, model, one in found:
        if one and one.not_measured:
            not_measured.setdefault(one.not_measured, {})[name] = None
        elif one:
            lines.append(
                f"forgetting: by how much the loss of the language model {model} on the {one.tokens:,} tokens of the "
                f"test texts rose from {one.loss_before:.3f} nats a token."
            )
    lines += [f"no forgetting was measured of {', '.join(names)}: {reason}." for reason, names in not_measured.items()]
    return lines


def _joint_notes(entries: list[Entry]) -> list[str]:
    joint = {entry.name: [record for record in entry.shown if record.joint_runs] for entry in entries}
    if not any(joint.values()):
        return []
    shares = [entry.name for entry in entries if entry.timed and all(record.joint_runs for record in entry.timed)]
    lines = [
        f"trained as one model with runs of other seeds or rates: {', '.join(name for name in joint if joint[name])}; "
        "time, speed and memory are those of a run that was trained by itself."
    ]
    if shares:
        lines.append(f"no run was trained by itself, so that time is its share of a joint one: {', '.join(shares)}.")
    return lines


def _epoch_note(entry: Entry) -> str:
    judged = [record.epochs for record in entry.ok if record.epochs]
    kept = ", ".join(f"{epochs.kept} of {len(epochs.scores)}" for epochs in judged)
    seeds = ", by seed" if len(judged) > 1 else ""
    return f"by {METRICS[judged[0].metric].title} on validation {entry.name} kept epoch {kept} that ran{seeds}."


def _head_notes(fitted: list[Entry]) -> list[str]:
    """fitted: entries whose head was fitted."""
    chosen = []
    for entry in fitted:
        strengths = dict.fromkeys(f"{record.head_fit.strength:.2g}" for record in entry.ok if record.head_fit)
        chosen.append(f"{entry.name} ({', '.join(strengths)})")
    lines = [f"head fitted exactly, with an L2 strength by the loss on validation: {', '.join(chosen)}."]
    if without := [entry.name for entry in fitted if not entry.ok[0].takes_steps]:
        lines.append(f"no steps, so neither epochs nor a learning rate: {', '.join(without)}.")
    return lines if fitted else []


def _baseline_notes(entries: list[Entry]) -> list[str]:
    found = [entry for entry in entries if entry.is_baseline]
    lines = []
    if found:
        names = ", ".join(entry.name for entry in found)
        lines.append(f"baselines: {names}. {_how_often(found)}")
    if any(no_better_than_length(entry, entries) for entry in entries):
        lines.append(f"{MARK}: no better on test than {LENGTH_RULE}, one threshold on the number of tokens.")
    if any(entry.name == "zero_shot" and entry.records[0].model.weights == "random" for entry in found):
        lines.append("with random weights zero_shot knows no language: what it scores off chance is luck, not skill.")
    return lines


def _how_often(baselines: list[Entry]) -> str:
    once = [entry.name for entry in baselines if entry.runs_once]
    if len(once) == len(baselines):
        return "They draw nothing at random, so each runs once, whatever the seeds."
    rest = f"; {', '.join(once)} trains on none and runs once" if once else ""
    return f"They run once a seed, which draws the training texts{rest}."


def _data_notes(data: list[DataFacts]) -> list[str | Note]:
    """With the name of the data set where the rows have several."""
    lines: list[str | Note] = []
    several = len({facts.name for facts in data}) > 1
    for facts in data:
        on = f"on {facts.name}, " if several else ""
        if facts.test_in_train:
            unseen = (
                f"{on}unseen %: without the {facts.test_in_train} of {facts.sizes['test']} test texts that stand "
                f"in the training set verbatim ({facts.test_near_train} but for digits and punctuation)."
            )
            lines.append(Note(unseen, ("unseen",)))
        if facts.best_accuracy:
            best = f"{100 * facts.best_accuracy:.0f}%"
            lines.append(f"{on}best possible on average: {best}; the other labels are flipped.")
        lines += [f"{on}{note}." for note in facts.notes]
        if facts.cut_texts:
            share = 100 * facts.cut_texts / sum(facts.sizes.values())
            lines.append(f"{on}{facts.cut_texts} texts ({share:.1f}%) were longer than a row may be, and were cut.")
        scored = f"of {facts.classes[1]}" if len(facts.classes) == 2 else "mean over classes"
        scores = f"{on}F1 ({scored}), ROC AUC and ECE (expected calibration error, 15 bins) on test."
        lines.append(Note(scores, ("F1", "ROC AUC", "ECE")))
    return lines
