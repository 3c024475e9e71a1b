"""What `ftbench plan` prints: time, memory and cost of each run, before any is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.config.schema import EngineConfig
from harness.planning.plan import PlannedRun
from harness.prediction.prediction import PHASES, NotPredicted, Prediction, key_of, name_of
from harness.report.table.columns import cost_text
from harness.results.names import changes_of, with_changes

Predicted = Prediction | NotPredicted
Cost = Callable[[Prediction], float]


@dataclass(frozen=True)
class Row:
    """Runs that differ in their seed only."""

    name: str
    runs: Sequence[Predicted]

    @property
    def predictions(self) -> list[Prediction]:
        """Of its runs; none where one of them is not predicted."""
        found = [run for run in self.runs if isinstance(run, Prediction)]
        return found if len(found) == len(self.runs) else []


def rows_of(predicted: Sequence[Predicted]) -> list[Row]:
    by_key: dict[str, list[Predicted]] = {}
    for one in predicted:
        by_key.setdefault(key_of(one.planned), []).append(one)
    configs = [runs[0].planned.config for runs in by_key.values()]
    several_data, several_sizes = (
        len(set(values)) > 1
        for values in ([config.data for config in configs], [config.training.texts for config in configs])
    )
    return [Row(_name(runs[0].planned, several_data, several_sizes), runs) for runs in by_key.values()]


def _name(planned: PlannedRun, several_data: bool, several_sizes: bool) -> str:
    """Of its row, as tables show it, with what stands in their headings."""
    config = planned.config
    of_heading = [config.data.name] if several_data else []
    of_heading += [f"{config.training.texts or 'all'} texts"] if several_sizes else []
    return with_changes(name_of(planned), [*changes_of(config.model_dump(mode="json")), *of_heading])


def print_predictions(
    console: Console, title: str, rows: Sequence[Row], advice: Sequence[str], baselines: int, cost: Cost | None
) -> None:
    """title: of the device. advice: lines. baselines: how many, which are not predicted. cost: None where no price was
    given."""
    console.print(f"   device  [bold]{escape(title)}[/]", highlight=False)
    if rows:
        console.print(_table(rows, cost))
    predictions = [run for row in rows for run in row.predictions]
    if predictions:
        _print_notes(console, predictions)
    if baselines:
        console.print(f"  [dim]{baselines} baseline(s) are not predicted: they take seconds.[/]", highlight=False)
    problems = [str(run.problem) for row in rows for run in row.runs if isinstance(run, NotPredicted)]
    for line in dict.fromkeys([*problems, *advice]):
        console.print(f"  {escape(line)}", highlight=False, soft_wrap=True)


def _table(rows: Sequence[Row], cost: Cost | None) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    several = any(len(row.runs) > 1 for row in rows)
    titles = ["strategy", *(["runs"] if several else []), "engine", "trained", "memory", "of it state", "fits"]
    titles += ["steps", "a step", *PHASES, "in all", *(["cost"] if cost else [])]
    for number, name in enumerate(titles):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        cells = _cells(row.predictions, cost) if row.predictions else _empty_cells(cost)
        engine = engine_text(row.runs[0].planned.config.engine)
        table.add_row(escape(row.name), *([str(len(row.runs))] if several else []), engine, *cells)
    return table


def _empty_cells(cost: Cost | None) -> list[str]:
    return ["-", "-", "-", "not predicted", "-", *_no_times(cost)]


def _no_times(cost: Cost | None) -> list[str]:
    return ["-"] * (len(PHASES) + 2 + bool(cost))


def _cells(runs: list[Prediction], cost: Cost | None) -> list[str]:
    one = runs[0]
    largest = max(runs, key=lambda run: run.bytes.peak)
    return [
        f"{one.parameters.trained:,}",
        gigabytes(largest.bytes.peak),
        gigabytes(largest.bytes.state),
        "yes" if all(run.fits for run in runs) else "[bold red]no[/]",
        f"{one.steps:,}",
        *(_times(runs, cost) if all(run.fits for run in runs) else _no_times(cost)),
    ]


def _times(runs: list[Prediction], cost: Cost | None) -> list[str]:
    return [
        f"{1000 * runs[0].step_seconds:.1f} ms",
        *(seconds_text(sum(run.seconds[phase] for run in runs)) for phase in PHASES),
        seconds_text(sum(run.total_seconds for run in runs)),
        *([cost_text(sum(map(cost, runs)))] if cost else []),
    ]


def _print_notes(console: Console, predictions: Sequence[Prediction]) -> None:
    total = sum(run.total_seconds for run in predictions)
    devices = max(run.devices for run in predictions)
    hours = sum(run.device_seconds for run in predictions) / 3600
    of_devices = f", {hours:.2f} hours of {devices} devices together" if devices > 1 else ""
    console.print(f"  In all {seconds_text(total)}{of_devices}, start-up of the workers not included.", highlight=False)
    available = min(run.available for run in predictions)
    console.print(
        f"  [dim]memory: of a rank at its peak, of {gigabytes(available)} that it may take; state: weights, gradients "
        "and the optimizer's. features: of frozen stages, once for all runs that share them; what the cache holds "
        "already takes no time.[/]",
        highlight=False,
        soft_wrap=True,
    )


def engine_text(engine: EngineConfig) -> str:
    """Such as `deepspeed 2 x 4`."""
    stage = "" if engine.zero_stage is None else f" {engine.zero_stage}"
    return f"{engine.name}{stage} x {engine.world_size}"


def seconds_text(seconds: float) -> str:
    """With three digits, in the unit that suits."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB"
