"""A results folder with a report, for the tests of what it tells and of how a browser shows it."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from harness import commands
from harness.config.suite import load_suite
from harness.report import command

SCRIPT = "<script>alert(1)</script>"
STRATEGIES = ["head_only", "last_block", "tfidf", "majority", "length_rule"]
PLOTS = {"accuracy", "memory", "accuracy_time", "accuracy_memory", "throughput", "confusion"}
PLOTS |= {"loss", "training_accuracy"}


def _data_file(folder: Path) -> Path:
    """160 messages that hold a script, some with the wrong label, of two classes of which one is named like a tag."""
    lines = ["text,label"]
    for number in range(160):
        says = "buy now" if number % 2 else "see you"
        lines.append(f"{SCRIPT} number {number} {says},{'<b>' if number % 2 != (number % 7 == 0) else 'ham'}")
    path = folder / "texts.csv"
    path.write_text("\n".join(lines))
    return path


def make_report(folder: Path) -> Path:
    """A results folder with two tables, a damaged record and their report."""
    results, cache = folder / "results", folder / "cache"
    console = Console(quiet=True)
    base = {"model.name": "mini", "training.epochs": 1, "seed": [0, 1]}
    for options in (
        {"data.name": str(_data_file(folder)), "strategy": STRATEGIES},
        {"data.name": "synthetic", "data.size": 200, "strategy": ["head_only", "last_block"]},
    ):
        commands.run_suite(console, load_suite(None, base | options, []), results, cache, force=False)
    damaged = results / "runs" / "a damaged <i>one" / "record.json"
    damaged.parent.mkdir()
    damaged.write_text("{}")
    command.make_report(console, results, cache)
    return results
