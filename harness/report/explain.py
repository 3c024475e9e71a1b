"""What `ftbench explain` prints: what a strategy trains and reads, as a picture of the blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from rich import box
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from torch import nn

import strategies
from harness import baselines
from harness.config.schema import ModelConfig
from harness.config.strategy import IA3, AnyAdapter, PadTo, PrefixTuning, PromptTuning, Strategy
from harness.data.downloads import NotAvailable, assets_folder
from harness.data.tokenizer import load_tokenizer
from harness.errors import UserError
from harness.model.adapters.adapted import Adapted
from harness.model.adapters.prefix import PrefixedAttention
from harness.model.attention import visible
from harness.model.backbone import Block
from harness.model.named.models import Model
from harness.model.packing import PackedBatch
from harness.model.readout import ReadAttention, ReadMax, ReadToken
from harness.model.split import Prefix, Suffix, parameter_counts, split
from harness.planning.resolve import usable_model
from harness.planning.strategy import split_without_tensors
from harness.planning.validate import check_padding, check_room
from harness.planning.workspace import Workspace

SENTENCE: str = "You won a prize, call now"
PADDING = "[pad]"
SHOWN_PADDING = 3
MARKS = {"trained": "■", "frozen": "□", "adapted": "▣", "trained, adapted": "▣", "partly trained": "◧"}
STYLES = {"trained": "bold green", "frozen": "cyan"}


@dataclass(frozen=True)
class Line:
    """A stage, or a run of equal ones, in the picture. state: a key of MARKS. trained: of its parameters.

    once: whether its output is computed once for each text and stored. tokens: those that it computes.
    """

    name: str
    state: str
    parameters: int
    trained: int
    once: bool
    tokens: str


def print_explanation(console: Console, name: str, model_name: str, classes: int, cache: Path) -> None:
    """Raises UserError for a strategy or model that there is not, or a strategy that does not fit the model."""
    if name in baselines.NAMES:
        console.print(_baseline(name), highlight=False)
        return
    entry = strategies.load(name, also_known=baselines.NAMES)
    workspace = Workspace(cache)
    model = usable_model(model_name, workspace)
    strategy = entry.strategy.resolved_for(model.attention)
    check_padding(strategy.input.pad_to, model_name, workspace)
    check_room(strategy, entry.name, None, model_name, workspace)
    prefix, suffix = _cut(entry.name, strategy, model_name, model, classes)
    console.print(f"[bold]{escape(entry.name)}[/] on {escape(model_name)}, {classes} classes", highlight=False)
    for line in filter(None, [entry.description, "" if entry.origin == "built in" else entry.origin]):
        console.print(escape(line), highlight=False)
    console.print(_picture(lines(prefix, suffix), "each step" if "steps" in strategy.phases else "when fitted"))
    for note in _notes(strategy, prefix, suffix):
        console.print(f"  {escape(note)}", highlight=False)
    console.print()
    console.print(_tokens(strategy, model_name, cache), highlight=False)


def _baseline(name: str) -> RenderableType:
    baseline = baselines.load(name)
    return Group(
        f"[bold]{name}[/], a baseline: it needs no training loop.",
        escape(baseline.description),
        f"It depends on {', '.join(baseline.uses)}.",
    )


def _cut(name: str, strategy: Strategy, model_name: str, model: Model, classes: int) -> tuple[Prefix, Suffix]:
    """Code of a strategy's own may look at parameters, so it gets some: random ones, which tell as much."""
    if not strategy.build:
        return split_without_tensors(strategy, model, classes)
    backbone = model.empty()
    model.weights(ModelConfig(name=model_name, weights="random"), None).fill(backbone, backbone.stages())
    try:
        return split(backbone, strategy, classes)
    except UserError:
        raise
    except Exception as error:  # whatever a stranger's code does
        raise UserError(f"strategy {name!r} can't be built on {model_name}: {type(error).__name__}: {error}") from error


def lines(prefix: Prefix, suffix: Suffix) -> list[Line]:
    """The picture from the head down to the embeddings; neighbouring blocks that are alike are one line."""
    # Where the answer is read in the prefix, the suffix is the head alone.
    reading, below = (prefix, []) if prefix.facts.reads else (suffix, list(prefix.stages))
    reads_token = isinstance(reading.readout, ReadToken)
    tops = [number for number, stage in enumerate(reading.stages) if isinstance(stage, Block)]
    top = tops[-1] if tops and reads_token else len(reading.stages)
    if tops and any(isinstance(module, PrefixedAttention) for module in reading.stages[tops[-1]].modules()):
        top = len(reading.stages)  # no kernel knows it
    tokens = ["all"] * (len(below) + top)
    if top < len(reading.stages):
        tokens += ["the read one; keys, values: all"] + ["the read one"] * (len(reading.stages) - top - 1)
    stages = dict(zip((*prefix.names, *suffix.names), (*prefix.stages, *suffix.stages), strict=True))
    once = [prefix.facts.cacheable and number < len(prefix.names) for number in range(len(stages))]
    found = [_line(*named, *where) for named, where in zip(stages.items(), zip(once, tokens, strict=True), strict=True)]
    read = "the read one" if reads_token else f"their {_aggregate(reading.readout)}"
    head = _line("head", suffix.head, False, read)
    readout = [_line("readout", suffix.readout, False, "all")] if suffix.readout else []
    return list(_folded([head, *(line for line in [*readout, *reversed(found)] if line.parameters)]))


def _aggregate(readout: nn.Module | None) -> str:
    return {ReadMax: "largest values", ReadAttention: "weighted mean"}.get(type(readout), "mean")


def _line(name: str, stage: nn.Module, once: bool, tokens: str) -> Line:
    adapters = [module for module in stage.modules() if isinstance(module, Adapted)]
    added = {id(parameter) for adapter in adapters for parameter in adapter.added()}
    own = [parameter for parameter in stage.parameters() if id(parameter) not in added]
    trained_own = sum(parameter.requires_grad for parameter in own)
    state = "partly trained" if trained_own else "frozen"
    if own and trained_own == len(own):
        state = "trained"
    if adapters:
        state = "adapted" if state == "frozen" else "trained, adapted"
    return Line(
        name=name,
        state=state,
        parameters=sum(parameter.numel() for parameter in stage.parameters()),
        trained=sum(parameter.numel() for parameter in stage.parameters() if parameter.requires_grad),
        once=once,
        tokens=tokens,
    )


def _folded(found: list[Line]) -> Iterator[Line]:
    """found: from the top down."""
    kinds = groupby(
        found, key=lambda line: replace(line, name="block" if line.name.startswith("block.") else line.name)
    )
    for kind, group in kinds:
        alike = list(group)
        name = alike[0].name if len(alike) == 1 else f"{alike[-1].name} to {alike[0].name}"
        total, trained = (len(alike) * count for count in (kind.parameters, kind.trained))
        yield replace(kind, name=name, parameters=total, trained=trained)


def _picture(found: list[Line], again: str) -> Table:
    """again: when what is not computed once is computed."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("stage", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("parameters", justify="right")
    table.add_column("computed", no_wrap=True)
    table.add_column("at tokens")
    for number, line in enumerate(found):
        if line.once and not found[number - 1].once:
            table.add_section()
        style = STYLES.get(line.state, "yellow")
        partly = 0 < line.trained < line.parameters
        counted = f"{line.trained:,} of {line.parameters:,}" if partly else f"{line.parameters:,}"
        state = f"[{style}]{MARKS[line.state]} {line.state}[/]"
        table.add_row(line.name, state, counted, "once" if line.once else again, line.tokens)
    return table


def _notes(strategy: Strategy, prefix: Prefix, suffix: Suffix) -> list[str]:
    parameters, trained = parameter_counts(prefix, suffix)
    told = [f"Trained: {trained:,} of {parameters:,} parameters ({trained / parameters:.2%})."]
    told += [f"Adapted: {_adaptation(adapter)}." for adapter in strategy.adapt]
    if not prefix.names:
        told.append("Once: nothing. Below the first trained parameter is no block whose output could be stored.")
    elif not prefix.facts.cacheable:
        told.append("Once: nothing. The strategy says that its frozen part may not be stored.")
    else:
        what = "the vector that is read is" if prefix.facts.reads else "the hidden states of all tokens are"
        taken = "in every step" if "steps" in strategy.phases else "when the head is fitted"
        told.append(
            f"Once: what lies below {prefix.facts.boundary} never changes, so for each text {what} stored, and "
            f"taken from there {taken}."
        )
    if "fit_head" in strategy.phases:
        then = "; then all that is trained takes gradient steps" if "steps" in strategy.phases else ", and that is all"
        told.append(f"Phases: logistic regression on the hidden states that are read gives the head{then}.")
    if strategy.rate_decay != 1:
        rate = f"{strategy.rate_decay:g} times the learning rate"
        told.append(f"Rates: the head has the full one; every stage further from it has {rate} of the one above.")
    return told


def _adaptation(adapter: AnyAdapter) -> str:
    if isinstance(adapter, IA3):
        what = {"outputs": adapter.outputs, "inputs": adapter.inputs}
        scaled = " and ".join(f"the {which} of {', '.join(names)}" for which, names in what.items() if names)
        return f"{scaled} are multiplied by trained factors"
    if isinstance(adapter, PrefixTuning):
        where = ", ".join(adapter.targets) or "every block"
        return f"in {where} each token also attends to {adapter.length} trained keys and values"
    if isinstance(adapter, PromptTuning):
        return f"{adapter.length} trained vectors stand before the tokens of each row, and are read like them"
    where = ", ".join(adapter.targets) or "every Linear"
    size = ", and a trained size of each output" if adapter.trains_size else ""
    return f"{where} gets a low-rank update of rank {adapter.rank}, scaled by {adapter.factor:g}{size}"


def _tokens(strategy: Strategy, model_name: str, cache: Path) -> RenderableType:
    """The example sentence as a row, with what is read and what that sees."""
    row, remarks = _example(strategy.input.pad_to, model_name, cache)
    row, padding = _padded(row, strategy.input.pad_to)
    count, causal = len(row), strategy.attention == "causal"
    assert strategy.readout is not None, "Strategy.on sets it"
    read_at = {"first": [0], "last": [count - 1]}.get(strategy.readout, list(range(count)))
    seen = _seen(count, read_at[-1], causal)
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_row("tokens", *(Text(token, "dim" if token == PADDING else "") for token in row))
    table.add_row("read", *(Text("▲" if number in read_at else "", "bold green") for number in range(count)))
    if strategy.readout in ("first", "last"):
        table.add_row("it sees", *("●" if one else "·" for one in seen))
    return Group(table, *(f"  {line}" for line in [*_reading(strategy, padding), *remarks]))


def _example(pad_to: PadTo | None, model_name: str, cache: Path) -> tuple[list[str], list[str]]:
    """Its tokens, cut where `pad_to` does, and remarks on them."""
    limit = pad_to if isinstance(pad_to, int) else None
    try:
        tokenizer = load_tokenizer(model_name, cache, assets_folder())
    except NotAvailable as problem:
        return SENTENCE.split()[:limit], [f"Words stand for tokens here: {problem}."]
    around = tokenizer.template(pair=False)
    ids = tokenizer.encode_ordinary(SENTENCE)
    ids = [*around.beginning, *ids[: limit and max(limit - len(around), 0)], *around.ending]
    return [tokenizer.decode([one]).strip() or "_" for one in ids], []


def _padded(row: list[str], pad_to: PadTo | None) -> tuple[list[str], bool]:
    """The row with its padding, abbreviated where it is long, and whether there is any."""
    count = SHOWN_PADDING if pad_to == "longest" else max(0, (pad_to or 0) - len(row))
    shown = [PADDING] * count if count <= SHOWN_PADDING else [PADDING, "...", PADDING]
    return [*row, *shown], count > 0


def _seen(count: int, read_at: int, causal: bool) -> list[bool]:
    batch = PackedBatch.packed(np.array([count]))
    return visible(batch, torch.tensor([[read_at]]), causal, window=None)[0, 0].tolist()


def _reading(strategy: Strategy, padding: bool) -> list[str]:
    assert strategy.readout is not None, "Strategy.on sets it"
    padded = ", padding included" if padding else ""
    what = {
        "first": "the first token",
        "last": "the last position of the padded row" if padding else "the last token",
        "mean": f"the mean over all tokens{padded}",
        "max": f"the largest value of each dimension over all tokens{padded}",
        "attention": f"a mean over all tokens{padded}, with weights by a learned query",
    }[strategy.readout]
    what += "" if strategy.readout_layer == -1 else f", above block {strategy.readout_layer}"
    sees = "itself and the tokens before it" if strategy.attention == "causal" else f"every token{padded}"
    lines = [f"Read: {what}. Attention is {strategy.attention}: a token sees {sees}."]
    if strategy.input.pad_to:
        to = "the longest training text" if strategy.input.pad_to == "longest" else f"{strategy.input.pad_to} tokens"
        lines.append(f"Padding: rows are filled up to {to}, and the padding is attended to like text.")
    return lines
