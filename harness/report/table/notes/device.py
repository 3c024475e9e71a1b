"""Notes on what the runs of a table ran on, and how a GPU did their training steps."""

from __future__ import annotations

from harness.report.analysis.entry import Entry, device_hours
from harness.report.table.notes.note import Note
from harness.results.record import Record


def device_notes(entries: list[Entry]) -> list[str]:
    by_device: dict[str, list[str]] = {}
    captured: list[str] = []
    not_captured: dict[str, list[str]] = {}
    for entry in entries:
        for record in entry.records:
            by_device.setdefault(record.environment["device"], []).append(entry.name)
            if graphs := record.graphs:
                names = captured if graphs.not_captured is None else not_captured.setdefault(graphs.not_captured, [])
                names.append(entry.name)
    lines = []
    if len(by_device) > 1:
        lines.append("; ".join(f"on {device}: {_once(names)}" for device, names in by_device.items()) + ".")
    if captured:
        lines.append(f"training steps ran as captured CUDA graphs: {_once(captured)}.")
    lines += [
        f"training steps ran kernel by kernel, not captured: {_once(names)} ({reason})."
        for reason, names in not_captured.items()
    ]
    return lines


def job_notes(entries: list[Entry]) -> list[str]:
    """What was done side by side, and what follows for costs."""
    by_jobs: dict[int, list[str]] = {}
    for entry in entries:
        for jobs in sorted(entry.jobs):
            by_jobs.setdefault(jobs, []).append(entry.name)
    if set(by_jobs) <= {1}:
        return []
    if len(by_jobs) == 1:
        return [f"{next(iter(by_jobs))} runs side by side: speed, memory and time are those of a run beside others."]
    parts = [
        f"{f'{jobs} side by side' if jobs > 1 else 'one at a time'}: {_once(names)}" for jobs, names in by_jobs.items()
    ]
    return [
        f"{'; '.join(parts)}. Speed, memory and time are only compared between runs that had as many beside them: no "
        "best is marked."
    ]


def energy_notes(entries: list[Entry]) -> list[str | Note]:
    """What was measured, by what, and of which rows not. Nothing where no row has it."""
    measured: dict[str, list[str]] = {}
    missing: dict[str, list[str]] = {}
    for entry in entries:
        for energy in (record.energy for record in entry.shown if record.energy):
            if energy.parts:
                how = f"{', '.join(energy.parts)}, by their counters, read by {energy.measured_by}"
                measured.setdefault(how, []).append(entry.name)
            for reason in energy.not_measured:
                missing.setdefault(reason, []).append(entry.name)
    if not measured:
        return []
    lines: list[str | Note] = [
        f"energy of {how}{f': {_once(names)}' if len(measured) > 1 else ''}. What else runs on the machine counts too."
        for how, names in measured.items()
    ]
    lines += [f"energy not measured of {_once(names)}: {reason}." for reason, names in missing.items()]
    part = "per 1000 predictions"
    return [*lines, Note(f"{part}: energy of the evaluation and of the features of its texts.", (part,))]


def cost_notes(entries: list[Entry]) -> list[str]:
    price = entries[0].price
    if price is None:
        return []
    device = "machine" if all(entry.records[0].environment["device"] == "cpu" for entry in entries) else "GPU"
    total = sum(device_hours(record) * price for entry in entries for record in entry.records)
    return [f"cost: time at {price:g} for an hour of a {device}, start-up not included; all runs together {total:.4g}."]


def settings_of(record: Record) -> list[str]:
    """The settings of a GPU that are on, in words; records of older versions have none."""
    words = {"deterministic": "deterministic algorithms", "tf32": "TF32"}
    return [text for key, text in words.items() if record.config.get(key)]


def _once(names: list[str]) -> str:
    return ", ".join(dict.fromkeys(names))
