"""What `ftbench plan` prints: time, memory and cost of each run, before any is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.config.schema import EngineConfig
from harness.prediction.predict import PHASES, Prediction
from harness.report.table.columns import cost_text

# Some of these come from several runs: those that differ in their seed only are one row.
Rows = dict[str, list[Prediction]]
Cost = Callable[[Prediction], float]


def print_predictions(
    console: Console,
    title: str,
    predictions: Sequence[Prediction],
    advice: dict[str, str],
    baselines: int,
    cost: Cost | None,
) -> None:
    """title: of the device. advice: by title of the run. baselines: how many, which are not predicted. cost: None where
    no price was given."""
    rows: Rows = {}
    for prediction in predictions:
        rows.setdefault(prediction.planned.title, []).append(prediction)
    console.print(f"   device  [bold]{escape(title)}[/]", highlight=False)
    console.print(_table(rows, cost))
    _print_notes(console, rows, baselines)
    for name, text in advice.items():
        console.print(f"  {escape(name)}: {escape(text)}", highlight=False, soft_wrap=True)


def _table(rows: Rows, cost: Cost | None) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    several = any(len(runs) > 1 for runs in rows.values())
    titles = ["strategy", *(["runs"] if several else []), "engine", "trained", "memory", "of it state", "fits"]
    titles += ["steps", "a step", *PHASES, "in all", *(["cost"] if cost else [])]
    for number, name in enumerate(titles):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for name, runs in rows.items():
        table.add_row(escape(name), *([str(len(runs))] if several else []), *_cells(runs, cost))
    return table


def _cells(runs: list[Prediction], cost: Cost | None) -> list[str]:
    one = runs[0]
    largest = max(runs, key=lambda run: run.bytes.peak)
    return [
        engine_text(one.engine),
        f"{one.parameters.trained:,}",
        gigabytes(largest.bytes.peak),
        gigabytes(largest.bytes.state),
        "yes" if all(run.fits for run in runs) else "[bold red]no[/]",
        f"{one.steps:,}",
        *(_times(runs, cost) if all(run.fits for run in runs) else ["-"] * (len(PHASES) + 2 + bool(cost))),
    ]


def _times(runs: list[Prediction], cost: Cost | None) -> list[str]:
    return [
        f"{1000 * runs[0].step_seconds:.1f} ms",
        *(seconds_text(sum(run.seconds[phase] for run in runs)) for phase in PHASES),
        seconds_text(sum(run.total_seconds for run in runs)),
        *([cost_text(sum(map(cost, runs)))] if cost else []),
    ]


def _print_notes(console: Console, rows: Rows, baselines: int) -> None:
    total = sum(run.total_seconds for runs in rows.values() for run in runs)
    ranks = max(run.ranks for runs in rows.values() for run in runs)
    hours = sum(run.device_seconds for runs in rows.values() for run in runs) / 3600
    of_ranks = f", {hours:.2f} hours of {ranks} devices together" if ranks > 1 else ""
    console.print(f"  In all {seconds_text(total)}{of_ranks}, start-up of the workers not included.", highlight=False)
    available = min(run.available for runs in rows.values() for run in runs)
    console.print(
        f"  [dim]memory: of a rank at its peak, of {gigabytes(available)} that it may take; state: weights, gradients "
        "and the optimizer's. features: of frozen stages, once for all runs that share them; what the cache holds "
        "already takes no time.[/]",
        highlight=False,
        soft_wrap=True,
    )
    if baselines:
        console.print(f"  [dim]{baselines} baseline(s) are not predicted: they take seconds.[/]", highlight=False)


def engine_text(engine: EngineConfig) -> str:
    """Such as `deepspeed 2 x 4`."""
    stage = "" if engine.zero_stage is None else f" {engine.zero_stage}"
    return f"{engine.name}{stage} x {engine.processes * engine.nodes}"


def seconds_text(seconds: float) -> str:
    """With three digits, in the unit that suits."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB"
