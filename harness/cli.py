"""What a person types; no logic."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Annotated

import typer
from platformdirs import user_cache_path
from rich.console import Console
from rich.markup import escape

from harness.errors import UserError

app = typer.Typer(
    help="Which part of a pretrained decoder to fine-tune for classification, which token to read, what it costs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(width=None if sys.stdout.isatty() else 160)

Results = Annotated[Path, typer.Option(help="folder for records and tables")]
Cache = Annotated[Path, typer.Option(help="folder for downloads and stored features")]
Model = Annotated[str | None, typer.Option(help="auto, mini, gpt2, gpt2-medium, gpt2-large, gpt2-xl, or hf:NAME")]
Reference = Annotated[str | None, typer.Option(help="the strategy that the others are compared with")]
Weights = Annotated[str | None, typer.Option(help="auto, pretrained, random, or a path")]
Classifier = Annotated[Path, typer.Option(help="the folder of the kept classifier")]
RESULTS = Path("results")
CLASSIFIER = RESULTS / "classifier"
CACHE = user_cache_path("ftbench", appauthor=False)


@app.command()
def run(
    strategy: Annotated[
        str | None, typer.Option(help="a name, a comma list, a path to a .py file, or all (with baselines)")
    ] = None,
    model: Model = None,
    weights: Weights = None,
    data: Annotated[str | None, typer.Option(help="auto, synthetic, sms_spam, or a csv, tsv or jsonl file")] = None,
    readout: Annotated[str | None, typer.Option(help="first, last or mean: overrides the strategy's")] = None,
    engine: Annotated[str | None, typer.Option(help="ddp or deepspeed")] = None,
    zero: Annotated[int | None, typer.Option(help="deepspeed's ZeRO stage, 0 to 3")] = None,
    nproc: Annotated[int | None, typer.Option(help="ranks on each machine")] = None,
    nnodes: Annotated[int | None, typer.Option(help="machines")] = None,
    node_rank: Annotated[int, typer.Option(min=0, help="which of them this one is, from 0")] = 0,
    rdzv: Annotated[str | None, typer.Option(help="HOST:PORT of machine 0, where all meet")] = None,
    hostfile: Annotated[
        Path | None, typer.Option(help="machines for DeepSpeed's launcher, HOST slots=N a line")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="such as 0,1,2 or 0..9")] = None,
    reference: Reference = None,
    tune: Annotated[str | None, typer.Option(help="lr: each strategy also at its own best learning rate")] = None,
    epochs: Annotated[int | None, typer.Option(help="passes over the training texts")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp64")] = None,
    config: Annotated[Path | None, typer.Option(help="a YAML file with what differs from the defaults")] = None,
    assign: Annotated[list[str] | None, typer.Option("--set", help="key=value, for any key; may be repeated")] = None,
    results: Results = RESULTS,
    cache: Cache = CACHE,
    force: Annotated[bool, typer.Option(help="run again what is done")] = False,
    save: Annotated[bool, typer.Option("--save", help="keep the best classifier in RESULTS/classifier")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="print the table and what went wrong, no progress")] = False,
) -> None:
    """Fine-tune and measure: one run for each strategy and seed, then a comparison table."""
    from harness import baselines, commands
    from harness.config.schema import Hosts
    from harness.config.suite import load_suite, parse_seeds, split_assignments
    from strategies import built_in_names

    names = [*built_in_names(), *baselines.NAMES] if strategy == "all" else strategy.split(",") if strategy else None
    options = {
        "strategy": names,
        "seed": parse_seeds(seeds) if seeds else None,
        "reference": reference,
        "tune": tune,
        "model.name": model,
        "model.weights": weights,
        "data.name": data,
        "readout": readout,
        "engine.name": engine,
        "engine.zero_stage": zero,
        "engine.processes": nproc,
        "engine.nodes": nnodes,
        "training.epochs": epochs,
        "precision": precision,
    }
    suite = load_suite(config, options, split_assignments(assign or []))
    hosts = Hosts(node_rank=node_rank, rendezvous=rdzv, hostfile=hostfile)
    raise typer.Exit(commands.run_suite(console, suite, results, cache, force, hosts, save, quiet))


@app.command()
def table(
    results: Results = RESULTS,
    reference: Reference = None,
    sort: Annotated[str | None, typer.Option(help="the best of this column first, such as test or time")] = None,
    columns: Annotated[str | None, typer.Option(help="these, in this order, such as test,verdict,time")] = None,
    contains: Annotated[str, typer.Option("--filter", help="rows whose name contains this")] = "",
    form: Annotated[
        str | None, typer.Option("--format", help="markdown, csv, latex or json: print that and nothing else")
    ] = None,
) -> None:
    """The comparison table of the records in a results folder, printed and written."""
    from harness import commands
    from harness.report.table.comparison_table import View

    view = View(sort, tuple(columns.split(",")) if columns else None, contains)
    commands.show_results(console, results, reference, view, form)


@app.command()
def report(results: Results = RESULTS, reference: Reference = None, cache: Cache = CACHE) -> None:
    """Tables, plots and a page (report.html) of the records in a results folder, written."""
    from harness import commands

    commands.make_report(console, results, cache, reference)


@app.command()
def gate(
    update: Annotated[str | None, typer.Option(help="write a new reference, for this reason")] = None,
    results: Results = RESULTS,
) -> None:
    """Run a small suite again and compare it with the committed reference; exit code 1 on a real regression."""
    from harness import commands

    raise typer.Exit(commands.run_gate(console, results, update))


@app.command("list")
def list_strategies(
    model: Annotated[str, typer.Option(help="the size whose parameters are counted")] = "gpt2",
    classes: Annotated[int, typer.Option(min=2, help="classes of the head")] = 2,
    cache: Cache = CACHE,
) -> None:
    """The strategies, with what they train, read and change, and the baselines."""
    from harness.report import catalogue

    catalogue.print_strategies(console, model, classes, cache)


@app.command()
def explain(
    strategy: Annotated[str, typer.Argument(help="a name, a path to a .py file, or a baseline")],
    model: Annotated[str, typer.Option(help="the model whose blocks are shown")] = "gpt2",
    classes: Annotated[int, typer.Option(min=2, help="classes of the head")] = 2,
    cache: Cache = CACHE,
) -> None:
    """What a strategy trains, stores and reads, as a picture of the model's blocks."""
    from harness.report.explain import print_explanation

    print_explanation(console, strategy, model, classes, cache)


@app.command("check-weights")
def check_weights(model: Model = "gpt2", weights: Weights = "pretrained", cache: Cache = CACHE) -> None:
    """Let the model continue a text (`Every effort moves you`), and say whether the pretrained one answers so."""
    from harness.report import catalogue

    raise typer.Exit(0 if catalogue.check_weights(console, model, weights, cache) else 1)


@app.command()
def predict(
    texts: Annotated[list[str] | None, typer.Argument(help="texts; without any: a line each of the input")] = None,
    file: Annotated[Path | None, typer.Option(help="a file of texts, one a line, instead of the input")] = None,
    jsonl: Annotated[bool, typer.Option("--jsonl", help='JSON lines in ({"text": ...}) and out')] = False,
    classifier: Classifier = CLASSIFIER,
    cache: Cache = CACHE,
) -> None:
    """Label and probability of texts, by the classifier that `ftbench run --save` has kept."""
    from harness.serving import predictions

    predictions.predict(classifier, cache, texts or [], file, jsonl)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="where to write it")],
    classifier: Classifier = CLASSIFIER,
    cache: Cache = CACHE,
) -> None:
    """Write the kept classifier as a folder that transformers loads with GPT2ForSequenceClassification."""
    from harness.serving import predictions

    predictions.export(console, classifier, cache, folder)


def main() -> None:
    try:
        app()
    except UserError as error:
        Console(stderr=True).print(f"[bold red]Error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    finally:
        gc.freeze()  # at its end the interpreter would look for cycles among all that PyTorch made: 0.9 s
