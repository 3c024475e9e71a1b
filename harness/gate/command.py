"""What `ftbench gate` does: measures a suite, and compares it with its reference or makes it the new one."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape

from harness.errors import UserError
from harness.gate import reference, rerun
from harness.gate.checks import alarms, compare
from harness.gate.measurement import Measurement
from harness.gate.report import print_findings, print_visible_falls, write_findings
from harness.gate.rerun import FailedRuns, Rerun
from harness.gate.suite import GateSuite
from harness.gate.visible_fall import visible_falls
from harness.report import messages


def run_gate(console: Console, suite: GateSuite, results: Path, cache: Path) -> int:
    """Compare with the reference.

    Returns the exit code: 0; 1 where something is worse, a run failed, or the user interrupted.
    Raises UserError, before anything runs, for a reference that can't be read or compared with.
    """
    committed, metric = reference.read_reference(suite), suite.load().metric
    with rerun.planned(suite, results, cache, bool(committed.costs)) as planned:
        reference.check_comparable(suite, committed, planned.subjects(), planned.cost_cases())
        visible = visible_falls(committed, metric)
        print_visible_falls(console, visible)
        measured = _measure(console, planned)
    if measured is None:
        return 1
    findings = compare(committed, measured, metric, suite.is_own)
    written = write_findings(results, suite, findings, visible, committed, measured)
    print_findings(console, suite, findings, committed)
    console.print(f"\nWrote {', '.join(map(str, written))}.", highlight=False)
    return int(alarms(findings))


def update_reference(console: Console, suite: GateSuite, results: Path, cache: Path, reason: str, costs: bool) -> int:
    """Write a new reference; costs: with memory and speed, which the gate's own always has.

    Returns the exit code: 0; 1 where a run failed or the user interrupted.
    """
    reference.check_reason(suite, reason)
    reference.check_writable(suite)
    with rerun.planned(suite, results, cache, costs or suite.is_own) as planned:
        measured = _measure(console, planned)
    if measured is None:
        return 1
    print_visible_falls(console, visible_falls(measured, suite.load().metric))
    console.print(f"Wrote {reference.write_reference(suite, measured, reason)}.", highlight=False)
    return 0


def check_costs(costs: bool, update: str | None) -> None:
    """Raises UserError where costs are asked for and no reference is written."""
    if costs and update is None:
        raise UserError(
            "COSTS=1 belongs to gate-update: the gate measures memory and speed where its reference has them."
        )


def _measure(console: Console, planned: Rerun) -> Measurement | None:
    """None where the suite did not come to its end; the reason is printed."""
    messages.print_warnings(console, planned.plan)
    messages.print_plan(console, planned.plan, [])
    if planned.pairs:
        console.print(
            f"The suite first; then memory and speed, short runs in {len(planned.pairs)} processes, one after the "
            "other.",
            highlight=False,
            soft_wrap=True,
        )
    try:
        return planned.measure()
    except KeyboardInterrupt:
        console.print("[bold red]Interrupted:[/] nothing was compared or written.")
    except FailedRuns as failed:
        for record in failed.records:
            message = escape(f"{record.run_id}, {record.status}: {record.reason}")
            console.print(f"[bold red]{message}[/]", highlight=False, soft_wrap=True)
    return None
