"""What `ftbench list` prints. Parameters of GPT-2s are counted beforehand, since importing PyTorch takes seconds."""

from __future__ import annotations

import json
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import strategies
from harness import baselines
from harness.config.command_line import typed
from harness.config.strategy import AttentionKind, Strategy
from harness.model.named.models import GPT2Model, Model
from harness.model.named.shapes import SHAPES
from strategies import Entry

# `python -m tools.trained_parameters` writes it: by the hash of a built-in strategy's source and the size of GPT-2, how
# many parameters it trains without those of classes, and how many of each class.
COUNTS = Path(__file__).parents[1] / "assets" / "trained_parameters.json"


def print_strategies(console: Console, name: str, classes: int, cache: Path) -> None:
    """Tables of every strategy that `strategies.load` knows, and of the baselines."""
    model, counts = _model(name, cache), json.loads(COUNTS.read_text())
    table = Table(box=box.SIMPLE_HEAD, title=f"Strategies on {escape(name)}, {classes} classes", title_style="bold")
    table.add_column("strategy", style="cyan", no_wrap=True)
    table.add_column("trained", justify="right", no_wrap=True)
    table.add_column("reads", no_wrap=True)
    table.add_column("phases", no_wrap=True)
    table.add_column("what it does")
    for name in strategies.names():
        entry = strategies.load(name)
        declared = entry.strategy.resolved_for(model.attention)
        counted = "its own code" if declared.build else f"{_trained(entry, declared, model, classes, counts):,}"
        origin = "" if entry.origin == "built in" else f" [{entry.origin}]"
        reads, phases = _reads(declared, model.attention), ", ".join(declared.phases)
        table.add_row(name, counted, reads, phases, escape(entry.description + origin))
    console.print(table)
    console.print(_baselines())
    one, own = typed("bench", STRATEGY="name"), typed("bench", STRATEGY="path/to/file.py")
    console.print(f"Run one with [bold]{one}[/], your own with [bold]{own}[/].")


def _model(name: str, cache: Path) -> Model:
    if name in SHAPES:
        return GPT2Model(name)
    from harness.planning.resolve import usable_model
    from harness.planning.workspace import Workspace

    return usable_model(name, Workspace(cache))


def _trained(
    entry: Entry, declared: Strategy, model: Model, classes: int, counts: dict[str, dict[str, list[int]]]
) -> int:
    """Parameters that a strategy trains; counts: those of COUNTS."""
    if isinstance(model, GPT2Model) and entry.sha256 in counts:
        fixed, of_class = counts[entry.sha256][model.size]
        return fixed + of_class * classes
    from harness.planning.strategy import trainable_parameters

    return trainable_parameters(declared, model, classes)


def _baselines() -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="Baselines, which need no training loop", title_style="bold")
    table.add_column("baseline", style="cyan", no_wrap=True)
    table.add_column("depends on", no_wrap=True)
    table.add_column("what it does")
    for name in baselines.NAMES:
        baseline = baselines.load(name)
        table.add_row(name, ", ".join(baseline.uses), escape(baseline.description))
    return table


def _reads(strategy: Strategy, pretrained: AttentionKind) -> str:
    """pretrained: the attention that needs no mention."""
    assert strategy.readout is not None, "Strategy.on sets it"
    pad_to = strategy.input.pad_to
    extras = [] if strategy.readout_layer == -1 else [f"block {strategy.readout_layer}"]
    extras += [f"padded to {pad_to}"] if pad_to else []
    extras += [f"{strategy.attention} attention"] if strategy.attention != pretrained else []
    return ", ".join([strategy.readout, *extras])
