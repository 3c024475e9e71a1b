"""What the gate says: how small a fall it sees, before it runs, and its findings; terminal, gate.md, gate.json."""

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
from harness.gate.suite import GateSuite
from harness.gate.visible_fall import EXAMPLE, VisibleFall
from harness.report.table.markdown import markdown_table

TITLES = ("check", "row", "reference", "now", "moved", "verdict")


def _percentage(share: float) -> str:
    return f"{100 * share:.2f}%"


# All other checks are of metrics.
SHOW: dict[str, Callable[[float], str]] = {
    "losses": lambda loss: f"{loss:.4f}",
    "parameters": lambda count: f"{count:,.0f}",
    "memory": lambda ratio: f"{ratio:.2f} of plain",
    "speed": lambda ratio: f"{ratio:.1f} x plain",
}
STYLES = {"same": "dim", "better": "green", "regression": "bold red", "not judged": "yellow"}


def print_visible_falls(console: Console, visible: list[VisibleFall]) -> None:
    for line in _visible(visible):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _visible(visible: list[VisibleFall]) -> list[str]:
    return ["In at least 8 of 10 cases this gate sees", *(f"- {_sentence(one)}" for one in visible)]


def _sentence(visible: VisibleFall) -> str:
    fall = "no fall" if visible.fall is None else f"a fall of {100 * visible.fall:.1f} points"
    seeds = f"{visible.seeds} {'seed' if visible.seeds == 1 else 'seeds'}"
    sentence = f"{fall} of the accuracy of {visible.row} ({seeds}, {visible.messages:,} test messages"
    if visible.fall is not None and visible.fall <= EXAMPLE:
        return f"{sentence})"
    ways = [f"{visible.messages_for_example:,} messages with as many seeds"] if visible.messages_for_example else []
    ways += [f"{visible.seeds_for_example} seeds on as many messages"] if visible.seeds_for_example else []
    needed = " or ".join(ways) or "more of both, seeds and messages"
    return f"{sentence}; {100 * EXAMPLE:g} point needs {needed})"


def print_findings(console: Console, suite: GateSuite, findings: list[Finding], reference: Measurement) -> None:
    table = Table(*TITLES, title=_title(reference), box=box.SIMPLE_HEAD, title_style="bold", title_justify="left")
    for finding in findings:
        *cells, verdict = map(escape, _cells(finding))
        table.add_row(*cells, f"[{STYLES[finding.verdict]}]{verdict}[/]")
    console.print(table)
    style = "bold red" if alarms(findings) else "bold green"
    console.print(f"[{style}]{escape(_conclusion(suite, findings))}[/]", highlight=False, soft_wrap=True)


def write_findings(
    results: Path,
    suite: GateSuite,
    findings: list[Finding],
    visible: list[VisibleFall],
    reference: Measurement,
    measured: Measurement,
) -> list[Path]:
    """gate.md and gate.json in the results folder."""
    table = markdown_table(TITLES, [_cells(finding) for finding in findings], left=len(TITLES))
    first, *rest = _visible(visible)
    lines = [f"### {_title(reference)}", "", *table, "", _conclusion(suite, findings), "", f"{first}:", "", *rest, ""]
    facts = {
        "alarm": alarms(findings),
        "findings": [asdict(finding) for finding in findings],
        "visible_falls": [asdict(one) for one in visible],
        "reference": reference.model_dump(mode="json", include={"reason", "finished_at", "environment"}),
        "measured": measured.model_dump(mode="json", include={"finished_at", "environment"}),
    }
    for name, content in {"gate.md": "\n".join(lines), "gate.json": json.dumps(facts, indent=2) + "\n"}.items():
        write_atomically(results / name, content)
    return [results / "gate.md", results / "gate.json"]


def _title(reference: Measurement) -> str:
    return f"gate: against the reference of {reference.finished_at[:10]}"


def _cells(finding: Finding) -> list[str]:
    show = SHOW.get(finding.check, _percentage)
    values = [show(finding.before), show(finding.after)]
    return [finding.check, finding.row, *values, finding.detail, finding.verdict]


def _conclusion(suite: GateSuite, findings: list[Finding]) -> str:
    def named(verdict: str) -> str:
        return ", ".join(f"{finding.check} of {finding.row}" for finding in findings if finding.verdict == verdict)

    worse, better, skipped = named("regression"), named("better"), named("not judged")
    sentences = [f"Regression: {worse}." if worse else "No regression."]
    sentences += [f"Better: {better}. `{suite.update_command}` makes that the new reference."] if better else []
    sentences += [f"Not judged: {skipped}; the same code gives other losses there."] if skipped else []
    return " ".join(sentences)
