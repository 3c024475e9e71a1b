"""What `ftbench gate` does: measures the gate's suite, and compares it with the reference or makes it the new one."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape

from harness.gate import measurement, reference
from harness.gate.checks import alarms, compare
from harness.gate.report import print_findings, write_findings


def run_gate(console: Console, results: Path) -> int:
    """Compare with the reference.

    Returns the exit code: 0; 1 where something is worse, a run failed, or the user interrupted.
    Raises UserError for a reference that can't be read or compared with, as far as possible before anything runs.
    """
    committed = reference.read_reference(reference.REFERENCE)
    measured = _measure(console, results)
    if measured is None:
        return 1
    reference.check_comparable(committed, measured)
    findings = compare(committed, measured)
    written = write_findings(results, findings, committed, measured)
    print_findings(console, findings, committed)
    console.print(f"\nWrote {', '.join(map(str, written))}.", highlight=False)
    return int(alarms(findings))


def update_reference(console: Console, results: Path, reason: str) -> int:
    """Write a new reference. Returns the exit code: 0; 1 where a run failed or the user interrupted."""
    reference.check_reason(reason)
    measured = _measure(console, results)
    if measured is None:
        return 1
    console.print(f"Wrote {reference.write_reference(reference.REFERENCE, measured, reason)}.", highlight=False)
    return 0


def _measure(console: Console, results: Path) -> measurement.Measurement | None:
    """None where the suite did not come to its end; the reason is printed."""
    console.print(
        "The suite first; then memory and speed, a minute of short runs in "
        f"{measurement.COST_PROCESSES} processes, one after the other.",
        highlight=False,
        soft_wrap=True,
    )
    try:
        return measurement.rerun(results)
    except KeyboardInterrupt:
        console.print("[bold red]Interrupted:[/] nothing was compared or written.")
    except measurement.FailedRuns as failed:
        for record in failed.records:
            message = escape(f"{record.run_id}, {record.status}: {record.reason}")
            console.print(f"[bold red]{message}[/]", highlight=False, soft_wrap=True)
    return None
