"""The gate's findings: a table in the terminal, gate.md and gate.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.files import write_atomically
from harness.gate.checks import Finding, alarms
from harness.gate.measurement import Measurement
from harness.report.table.markdown import markdown_table

TITLES = ("check", "strategy", "reference", "now", "moved", "verdict")
SHOW: dict[str, Callable[[float], str]] = {
    "accuracy": lambda accuracy: f"{100 * accuracy:.2f}%",
    "losses": lambda loss: f"{loss:.4f}",
    "parameters": lambda count: f"{count:,.0f}",
    "memory": lambda ratio: f"{ratio:.2f} of plain",
    "speed": lambda ratio: f"{ratio:.1f} x plain",
}
STYLES = {"same": "dim", "better": "green", "regression": "bold red"}


def print_findings(console: Console, findings: list[Finding], reference: Measurement) -> None:
    table = Table(*TITLES, title=_title(reference), box=box.SIMPLE_HEAD, title_style="bold", title_justify="left")
    for finding in findings:
        *cells, verdict = map(escape, _cells(finding))
        table.add_row(*cells, f"[{STYLES[finding.verdict]}]{verdict}[/]")
    console.print(table)
    style = "bold red" if alarms(findings) else "bold green"
    console.print(f"[{style}]{_conclusion(findings)}[/]", highlight=False)


def write_findings(results: Path, findings: list[Finding], reference: Measurement, measured: Measurement) -> list[Path]:
    """gate.md and gate.json in the results folder."""
    table = markdown_table(TITLES, [_cells(finding) for finding in findings], left=len(TITLES))
    lines = [f"### {_title(reference)}", "", *table]
    facts = {
        "alarm": alarms(findings),
        "findings": [asdict(finding) for finding in findings],
        "reference": reference.model_dump(mode="json", include={"reason", "finished_at", "environment"}),
        "measured": measured.model_dump(mode="json", include={"finished_at", "environment"}),
    }
    files = {
        "gate.md": "\n".join([*lines, "", _conclusion(findings), ""]),
        "gate.json": json.dumps(facts, indent=2) + "\n",
    }
    for name, content in files.items():
        write_atomically(results / name, content)
    return [results / name for name in files]


def _title(reference: Measurement) -> str:
    return f"gate: against the reference of {reference.finished_at[:10]}"


def _cells(finding: Finding) -> list[str]:
    show = SHOW[finding.check]
    values = [show(finding.before), show(finding.after)]
    return [finding.check, finding.strategy, *values, finding.detail, finding.verdict]


def _conclusion(findings: list[Finding]) -> str:
    def named(verdict: str) -> str:
        return ", ".join(f"{finding.check} of {finding.strategy}" for finding in findings if finding.verdict == verdict)

    worse, better = named("regression"), named("better")
    first = f"Regression: {worse}." if worse else "No regression."
    return f"{first} Better: {better}. `make gate-update` makes that the new reference." if better else first
