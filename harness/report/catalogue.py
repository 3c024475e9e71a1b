"""What `ftbench list` and `ftbench check-weights` print."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import strategies
from harness import baselines
from harness.config.schema import ModelConfig
from harness.config.strategy import AttentionKind, Strategy
from harness.data.model_files.hub import is_hub
from harness.errors import UserError
from harness.model.continuation import GPT2_PROOF, MINI_PROOF, continue_greedily
from harness.model.models import Model
from harness.model.shapes import SHAPES
from harness.planning.resolve import resolve_model
from harness.planning.strategy import trainable_parameters
from harness.planning.workspace import Workspace


def print_strategies(console: Console, name: str, classes: int, cache: Path) -> None:
    """Tables of every strategy that `strategies.load` knows, and of the baselines."""
    model = usable_model(name, Workspace(cache))
    table = Table(box=box.SIMPLE_HEAD, title=f"Strategies on {escape(name)}, {classes} classes", title_style="bold")
    table.add_column("strategy", style="cyan", no_wrap=True)
    table.add_column("trained", justify="right", no_wrap=True)
    table.add_column("reads", no_wrap=True)
    table.add_column("phases", no_wrap=True)
    table.add_column("what it does")
    for name in strategies.names():
        entry = strategies.load(name)
        declared = entry.strategy.resolved_for(model.attention)
        counted = "its own code" if declared.build else f"{trainable_parameters(declared, model, classes):,}"
        origin = "" if entry.origin == "built in" else f" [{entry.origin}]"
        reads, phases = _reads(declared, model.attention), ", ".join(declared.phases)
        table.add_row(name, counted, reads, phases, escape(entry.description + origin))
    console.print(table)
    console.print(_baselines())
    console.print("Run one with [bold]make bench STRATEGY=name[/]; add your own with STRATEGY=path/to/file.py.")


def usable_model(name: str, workspace: Workspace) -> Model:
    """Raises UserError for a model that is unknown, not there or not usable."""
    if name not in SHAPES and not is_hub(name):
        raise UserError(f"unknown model {name!r}: expected hf:... or one of {', '.join(SHAPES)}.")
    if is_hub(name):
        resolve_model(ModelConfig(name=name, weights="random"), workspace)  # is it there, and can it be used?
    return workspace.model(name)


def _baselines() -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="Baselines, which need no training loop", title_style="bold")
    table.add_column("baseline", style="cyan", no_wrap=True)
    table.add_column("depends on", no_wrap=True)
    table.add_column("what it does")
    for name in baselines.NAMES:
        baseline = baselines.load(name)
        table.add_row(name, ", ".join(baseline.uses), escape(baseline.description))
    return table


def check_weights(console: Console, name: str, weights: str, cache: Path) -> bool:
    """Print the model's greedy continuation; whether it is that of the pretrained mini, else of the pretrained 124M."""
    if is_hub(name):
        raise UserError(
            f"check-weights knows what GPT-2 answers, and not {name!r}: expected one of {', '.join(SHAPES)}."
        )
    workspace = Workspace(cache)
    resolved = resolve_model(ModelConfig(name=name, weights=weights), workspace)
    proof = MINI_PROOF if resolved.name == "mini" else GPT2_PROOF
    model = workspace.model(resolved.name)
    backbone = model.empty()
    model.weights(resolved.config, resolved.weights_path).fill(backbone, backbone.stages())
    tokenizer = workspace.tokenizer(resolved.name)
    wanted = len(tokenizer.encode_ordinary(proof.expected))
    text = tokenizer.decode(continue_greedily(backbone, tokenizer.encode_ordinary(proof.prompt), wanted))
    console.print(
        f"{resolved.name}, {resolved.config.weights} weights ({resolved.weights_path or resolved.choices['weights']})",
        highlight=False,
    )
    console.print(f"prompt        {proof.prompt!r}", highlight=False, markup=False)
    console.print(f"continuation  {text!r}", highlight=False, markup=False)
    if text == proof.expected:
        console.print(
            f"[bold green]This is what the pretrained {proof.model} answers: the weights are loaded right.[/]"
        )
        return True
    console.print(f"expected      {proof.expected!r}", highlight=False, markup=False)
    console.print(
        f"[bold red]This is not what the pretrained {proof.model} answers.[/] "
        "Other sizes, random weights and fine-tuned checkpoints answer otherwise."
    )
    return False


def _reads(strategy: Strategy, pretrained: AttentionKind) -> str:
    """pretrained: the attention that needs no mention."""
    assert strategy.readout is not None, "Strategy.on sets it"
    pad_to = strategy.input.pad_to
    extras = [] if strategy.readout_layer == -1 else [f"block {strategy.readout_layer}"]
    extras += [f"padded to {pad_to}"] if pad_to else []
    extras += [f"{strategy.attention} attention"] if strategy.attention != pretrained else []
    return ", ".join([strategy.readout, *extras])
