"""What a person types: options are parsed here, and packages are imported by the command that needs them."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape

from harness import __version__
from harness.config.options import option_named
from harness.config.signature import declared, with_options_of
from harness.errors import UserError
from harness.launch.libraries import set_variables

app = typer.Typer(
    help="Which part of a pretrained decoder to fine-tune for classification, which token to read, what it costs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(width=None if sys.stdout.isatty() else 160)


Results = Annotated[Path, declared(option_named("results"))]
Cache = Annotated[Path, declared(option_named("cache"))]
Model = Annotated[str, declared(option_named("model"))]
Weights = Annotated[str, declared(option_named("weights"))]
Reference = Annotated[str | None, declared(option_named("reference"))]
Metric = Annotated[str | None, declared(option_named("metric"))]
Price = Annotated[str | None, declared(option_named("price"))]
Classifier = Annotated[Path, typer.Option(help="the folder of the saved classifier")]
RESULTS: Path = option_named("results").default
CACHE: Path = option_named("cache").default
CLASSIFIER = RESULTS / "classifier"


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"ftbench {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version and end")
    ] = False,
) -> None:
    """Options of the program, beside those of its commands."""


@app.command()
@with_options_of("bench")
def run(**given: Any) -> None:
    """Fine-tune and measure: one run for each strategy and seed, then a comparison table."""
    from harness import commands
    from harness.api.asked import suite_asked
    from harness.config.command_line import parse_price
    from harness.config.schema import ONE_MACHINE, Hosts
    from harness.distributed.hosts import wait_for_name
    from harness.distributed.process_group import leave
    from harness.launch.given_group import asked_of_torchrun, given_group

    hosts = Hosts(node_rank=given["node_rank"], rendezvous=given["rdzv"], hostfile=given["hostfile"])
    group, asked = given_group(os.environ), asked_of_torchrun(os.environ)
    engine: dict[str, int] = {}
    if asked and not group and hosts == ONE_MACHINE and not (given["nproc"] or given["nnodes"]):
        engine, hosts = asked
        wait_for_name(hosts)
    suite = suite_asked(given, {f"engine.{key}": value for key, value in engine.items()})
    how = {name: given[name] for name in ("results", "cache", "force", "save", "quiet", "track")}
    how["price"] = parse_price(given["price"])
    if not group:
        raise typer.Exit(commands.run_suite(console, suite, hosts=hosts, jobs=given["jobs"], **how))
    group.check_alone(hosts, given["jobs"])
    try:
        code = commands.run_in_group(console, suite, group, **how)
    except UserError as error:
        code = _told(error)
    leave(code)


@app.command()
def init(folder: Annotated[Path, typer.Argument(help="made where it is missing")] = Path()) -> None:
    """Write a folder to start from: a suite, a strategy of one's own, some texts, a workflow that runs the gate."""
    from harness.starter import write_starter

    write_starter(console, folder)


@app.command()
@with_options_of("plan")
def plan(**given: Any) -> None:
    """What runs will take in time and memory, by phase, and whether they fit; nothing is trained."""
    from harness import commands
    from harness.api.asked import suite_asked
    from harness.config.command_line import parse_price

    price = parse_price(given["price"])
    suite = suite_asked(given)
    results, cache, device, jobs = given["results"], given["cache"], given["device"], given["jobs"]
    raise typer.Exit(commands.plan_suite(console, suite, results, cache, device, jobs, price))


@app.command()
@with_options_of("bench")
def manifest(
    platform: Annotated[Literal["kubeflow", "skypilot"], typer.Argument(help="what starts the containers")],
    *,
    image: Annotated[str, typer.Option(help="the container image, as the Dockerfile makes it")] = "ftbench:local",
    gpus: Annotated[str | None, typer.Option(help="of each machine: 8, or H100:8 for SkyPilot")] = None,
    volume: Annotated[str | None, typer.Option(help="the volume for RESULTS and CACHE, mounted at /volume")] = None,
    output: Annotated[Path | None, typer.Option(help="the file to write, instead of printing")] = None,
    **given: Any,
) -> None:
    """The YAML with which Kubeflow's Trainer or SkyPilot starts `ftbench run` with the same options."""
    from harness.api.asked import suite_asked
    from harness.config.command_line import parse_price
    from harness.launch.manifests import local_files, manifest_of, write

    parse_price(given["price"])  # refuses what the cluster would
    suite = suite_asked(given)
    write(manifest_of(platform, given, suite, image, gpus, volume), output)
    for name in local_files(suite, given["config"]):
        reminder = f"{name} is a file of this machine: the image or the volume must have it at the same path."
        Console(stderr=True).print(reminder, style="yellow", markup=False, highlight=False, soft_wrap=True)


@app.command()
def table(
    results: Results = RESULTS,
    reference: Reference = None,
    metric: Metric = None,
    price: Price = None,
    sort: Annotated[str | None, typer.Option(help="the best of this column first, such as test or time")] = None,
    columns: Annotated[str | None, typer.Option(help="these, in this order, such as test,verdict,time")] = None,
    contains: Annotated[str, typer.Option("--filter", help="rows whose name contains this")] = "",
    form: Annotated[
        str | None, typer.Option("--format", help="markdown, csv, latex or json: print that and nothing else")
    ] = None,
) -> None:
    """The comparison table of the records in a results folder, printed and written."""
    from harness.config.command_line import parse_price
    from harness.report.command import show_results
    from harness.report.table.comparison_table import View

    view = View(sort, tuple(columns.split(",")) if columns else None, contains)
    show_results(console, results, reference, metric, view, form, parse_price(price))


@app.command()
def report(
    results: Results = RESULTS,
    reference: Reference = None,
    metric: Metric = None,
    price: Price = None,
    cache: Cache = CACHE,
) -> None:
    """Tables, plots and a page (report.html) of the records in a results folder, written."""
    from harness.config.command_line import parse_price
    from harness.report.command import make_report

    make_report(console, results, cache, reference, metric, parse_price(price))


@app.command()
def gate(
    update: Annotated[str | None, typer.Option(help="write a new reference, for this reason")] = None,
    config: Annotated[Path | None, typer.Option(help="the file of a suite of one's own, with --reference")] = None,
    reference: Annotated[str | None, typer.Option(help="the folder of that suite's reference")] = None,
    costs: Annotated[bool, typer.Option("--costs", help="with --update: keep memory and speed, too")] = False,
    results: Results = RESULTS,
    cache: Cache = CACHE,
) -> None:
    """Run a suite again and compare it with its reference; exit code 1 on a real regression."""
    from harness.gate.command import check_costs, run_gate, update_reference
    from harness.gate.suite import chosen

    suite = chosen(config, reference)
    check_costs(costs, update)
    if update is None:
        raise typer.Exit(run_gate(console, suite, results, cache))
    raise typer.Exit(update_reference(console, suite, results, cache, update, costs))


@app.command("check-results")
def check_results(
    folder: Annotated[Path, typer.Argument(help="that holds the contributions")] = RESULTS / "shared",
    write: Annotated[bool, typer.Option("--write", help="write the page that compares them, table.md")] = False,
) -> None:
    """Whether contributions to shared results are whole and consistent; exit code 1 where one is not."""
    from harness.sharing import command

    raise typer.Exit(command.check_results(console, folder, write))


@app.command()
def data(
    data: Annotated[str, typer.Argument(help=option_named("data").help.replace("`", ""))] = "auto",
    model: Annotated[str | None, declared(option_named("model"))] = None,
    set: Annotated[list[str] | None, declared(option_named("set"))] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON and nothing else")] = False,
    cache: Cache = CACHE,
) -> None:
    """What is in a data set, before any run: columns, classes, lengths, repeats, what trivial baselines reach."""
    from harness.config.command_line import split_assignments
    from harness.config.suite import load_suite
    from harness.report.data_screen import print_data

    changes = {"data.name": data, "model.name": model}
    config, *more = load_suite(None, changes, split_assignments(set or [])).runs()
    if more:
        raise UserError(f"DATA={data}: `ftbench data` shows one data set; give the command for each.")
    print_data(console, config, cache, as_json, set or [])


@app.command("list")
def list_strategies(
    model: Annotated[str, typer.Option(help="the size whose parameters are counted")] = "gpt2",
    classes: Annotated[int, typer.Option(min=2, help="classes of the head")] = 2,
    cache: Cache = CACHE,
) -> None:
    """The strategies, with what they train, read and change, and the baselines."""
    from harness.report.catalogue import print_strategies

    print_strategies(console, model, classes, cache)


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
    from harness.report import weights_check

    raise typer.Exit(0 if weights_check.check_weights(console, model, weights, cache) else 1)


@app.command()
def predict(
    texts: Annotated[list[str] | None, typer.Argument(help="texts; without any: a line each of the input")] = None,
    file: Annotated[Path | None, typer.Option(help="a file of texts, one a line, instead of the input")] = None,
    jsonl: Annotated[bool, typer.Option("--jsonl", help='JSON lines in ({"text": ...}) and out')] = False,
    classifier: Classifier = CLASSIFIER,
    cache: Cache = CACHE,
) -> None:
    """Label and probability of texts, by the classifier that `ftbench run --save` saved."""
    from harness.serving import predictions

    predictions.predict(classifier, cache, texts or [], file, jsonl)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="where to write it")],
    form: Annotated[
        Literal["transformers", "onnx"], typer.Option("--format", help="what loads it: transformers, or onnx runtimes")
    ] = "transformers",
    classifier: Classifier = CLASSIFIER,
    cache: Cache = CACHE,
) -> None:
    """Write the saved classifier as a folder that other programs load, with a model card."""
    from harness.serving import predictions

    predictions.export(console, classifier, cache, folder, form)


def main() -> None:
    """The console script `ftbench`: exit code 2 and one line for wrong input."""
    set_variables()  # before any command imports PyTorch
    try:
        app()
    except UserError as error:
        sys.exit(_told(error))
    finally:
        gc.freeze()  # else the interpreter's last collection goes through all objects of PyTorch, which is slow


def _told(error: UserError) -> int:
    """Print what was wrong in one line; returns the exit code."""
    Console(stderr=True).print(f"[bold red]Error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
    return 2
