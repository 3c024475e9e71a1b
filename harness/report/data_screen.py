"""What `ftbench data` prints: one screen on a data set, before any run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.config.command_line import typed
from harness.config.places import is_hub
from harness.config.schema import RunConfig
from harness.data.dataset import load_dataset
from harness.data.downloads import NotAvailable, assets_folder
from harness.data.splits import SPLITS
from harness.data.tokenizer import Tokenizer, load_tokenizer
from harness.errors import UserError
from harness.model.named.shapes import SHAPES
from harness.planning.data import check_row_length, resolve_data
from harness.report.analysis.survey import Lengths, Survey, survey

if TYPE_CHECKING:
    from harness.model.named.models import Model

MOST_CLASSES = 12
_NAMES = {0: "shortest", 50: "median", 100: "longest"}


def print_data(console: Console, config: RunConfig, cache: Path, as_json: bool, assignments: Sequence[str]) -> None:
    """assignments: what `config` was given by SET, for the command that comes next.

    Raises UserError for data or a model that can't be used."""
    dataset, reason = resolve_data(config.data, lambda wanted: load_dataset(wanted, cache))
    name, tokenizer, context = _tokenizer(config.model.name, cache)
    check_row_length(config.data.max_tokens, name, context)
    found = survey(dataset, reason, name, tokenizer, context)
    if as_json:
        console.out(json.dumps(found.as_dict(), indent=2, ensure_ascii=False), highlight=False)
    else:
        _print(console, found, _next_command(config, assignments))


def _tokenizer(model: str, cache: Path) -> tuple[str, Tokenizer, int]:
    """The model whose tokens are counted, its tokenizer, and the most tokens that it takes."""
    if is_hub(model):
        from harness.planning.workspace import Workspace  # imports PyTorch, which takes seconds

        workspace = Workspace(cache)
        loaded: Model = workspace.model(model)
        return model, workspace.tokenizer(model), loaded.context
    name = "gpt2" if model == "auto" else model
    try:
        return name, load_tokenizer(name, cache, assets_folder()), SHAPES[name].context
    except NotAvailable as error:
        if model != "auto":
            raise UserError(
                f"MODEL={model}: {error}. Connect to the network once, set FTBENCH_ASSETS to a folder that has it, or "
                "use MODEL=mini."
            ) from error
        return f"mini, since {error}", load_tokenizer("mini", cache, None), SHAPES["mini"].context


def _print(console: Console, found: Survey, next_command: str) -> None:
    total = sum(found.sizes.values())
    console.print(
        f"[bold]{escape(found.name)}[/]  {total:,} texts, {len(found.classes)} classes  "
        f"[dim]({escape(found.reason)}; sha256 {found.sha256[:12]})[/]",
        highlight=False,
    )
    for note in found.notes:
        console.print(f"  {escape(note)}", highlight=False, soft_wrap=True)
    console.print(_classes(found))
    console.print(_lengths(found.lengths, total))
    console.print(f"  tokens of {escape(found.lengths.model)}", highlight=False, soft_wrap=True)
    for line in _repeats(found):
        console.print(f"  {line}", highlight=False, soft_wrap=True)
    rules = ", ".join(f"{name} {100 * accuracy:.2f}%" for name, accuracy in found.baselines.items())
    console.print(f"\n[bold]Accuracy on test without any model[/]: {rules}", highlight=False, soft_wrap=True)
    console.print(f"Next: [bold]{escape(next_command)}[/]", highlight=False, soft_wrap=True)


def _next_command(config: RunConfig, assignments: Sequence[str]) -> str:
    """A run on the same data, read in the same way."""
    model = {} if config.model.name == "auto" else {"MODEL": config.model.name}
    settings = {"SET": " ".join(assignments)} if assignments else {}
    return typed("bench", STRATEGY="all", DATA=config.data.name, **model, **settings)


def _classes(found: Survey) -> Table:
    total = sum(found.sizes.values())
    table = Table(box=box.SIMPLE_HEAD, title=f"Classes, split {found.split}", title_style="bold", title_justify="left")
    table.add_column("class", style="cyan")
    for column in (*SPLITS, "all", "share"):
        table.add_column(column, justify="right")
    ranked = sorted(found.classes.items(), key=lambda one: -sum(one[1].values()))
    for label, counts in ranked[:MOST_CLASSES]:
        table.add_row(escape(label), *_cells([counts[name] for name in SPLITS], total))
    rest = ranked[MOST_CLASSES:]
    if rest:
        sums = [sum(counts[name] for _, counts in rest) for name in SPLITS]
        table.add_row(f"{len(rest)} more", *_cells(sums, total))
    table.add_section()
    table.add_row("all", *(f"{found.sizes[name]:,}" for name in SPLITS), f"{total:,}", "")
    return table


def _cells(counts: list[int], total: int) -> list[str]:
    return [*(f"{count:,}" for count in counts), f"{sum(counts):,}", _share(sum(counts), total)]


def _lengths(lengths: Lengths, total: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="Tokens of a text", title_style="bold", title_justify="left")
    for percent in lengths.percentiles:
        table.add_column(_NAMES.get(percent, f"{percent}%"), justify="right")
    for column in ("mean", f"beyond {lengths.limit:,}, cut"):
        table.add_column(column, justify="right")
    cut = f"{lengths.cut:,} ({_share(lengths.cut, total)})"
    table.add_row(*(f"{value:,}" for value in lengths.percentiles.values()), f"{lengths.mean:.1f}", cut)
    return table


def _repeats(found: Survey) -> Iterator[str]:
    repeats, tests = found.repeats, found.sizes["test"]
    verbatim = repeats.across["test in train"]
    yield f"[bold]Across parts[/], verbatim: {_counted(repeats.across)} ({_share(verbatim, tests)} of test)"
    yield f"but for digits, case and punctuation, test in train: {repeats.near:,} ({_share(repeats.near, tests)})"
    yield f"[bold]Within parts[/], verbatim: {_counted(repeats.within)}"
    texts, rows = repeats.contradicting
    yield f"[bold]Contradictions[/]: {texts:,} (texts with several labels), in {rows:,} rows"


def _counted(counts: dict[str, int]) -> str:
    return "; ".join(f"{name}: {count:,}" for name, count in counts.items())


def _share(count: int, total: int) -> str:
    return f"{100 * count / total:.1f}%"
