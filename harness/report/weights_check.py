"""What `ftbench check-weights` prints."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from harness.config.places import is_hub
from harness.config.schema import ModelConfig
from harness.errors import UserError
from harness.model.named.continuation import GPT2_PROOF, MINI_PROOF, continue_greedily
from harness.model.named.shapes import SHAPES
from harness.planning.resolve import resolve_model
from harness.planning.workspace import Workspace


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
