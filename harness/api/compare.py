"""`harness.compare`: what `ftbench run` does, for Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from harness import baselines
from harness.api.arguments import OF_COMPARE, by_key, checked
from harness.api.asked import changes_of
from harness.api.bench import Bench
from harness.api.comparison import Comparison
from harness.api.given import GivenTexts, from_frame
from harness.api.process import process_kept
from harness.config.command_line import parse_price
from harness.config.options import options_of
from harness.config.suite import SuiteConfig, load_suite
from harness.errors import UserError, did_you_mean
from harness.metrics import METRICS
from harness.planning.workspace import Workspace
from harness.report import tracked_suite
from harness.report.files import write_tables
from harness.results.store import Store

# Of a machine among several, which give the same command; what has an argument of another name, or is always done.
_NOT_IN_PYTHON = ("node_rank", "rdzv", "hostfile", "strategy", "data", "set", "save")
# What sets a key of the configuration.
_ARGUMENT_OF = {one.key: one.parameter for one in options_of("bench") if one.key}
_ARGUMENT_OF |= {"strategy": "strategies", "data.text_column": "text", "data.label_column": "label"}

Values = Sequence[Any] | np.ndarray | pd.Series
Column = str | int
Data = str | Path | Sequence[str] | pd.DataFrame | tuple[Values, Values]


def compare(
    data: Data | None = None,
    strategies: str | Path | Sequence[str | Path] | None = None,
    *,
    text: Column | Sequence[Column] | None = None,
    label: Column | None = None,
    model: str | None = None,
    seeds: int | str | Iterable[int] | None = None,
    epochs: int | None = None,
    results: str | Path = "results",
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> Comparison:
    """Fine-tune and measure, one run for each strategy and seed, and compare them.

    data: a DataFrame; texts and their labels, as a pair of lists, arrays or Series; a path, or a name such as
        `sms_spam`, as DATA of the command line; or a list of names. None: that of `config`, or auto.
    strategies: names, paths to `.py` files, or `all` (with baselines). None: those of `config`, or last_block.
    text, label: the columns; of a DataFrame "text", or a pair such as premise and hypothesis, and "label" unless others
        are named, of a file found out. Several texts are joined, or a pair where their names say so.
    settings: keys of the configuration (`harness/config/schema.py`) that no argument sets, such as
        {"optimizer.learning_rate": 1e-4}.
    options: the others of `ftbench run`, as docs/variables.md describes them: engine="fsdp", nproc=4, jobs="auto",
        metric="macro_f1", cache="folder", quiet=True, ...

    Runs that are done are found in the results folder and not done again; KeyboardInterrupt leaves what is finished
    there, and the same call goes on. Raises UserError for wrong input, before anything runs.
    """
    arguments = {"strategies": strategies, "model": model, "seeds": seeds, "epochs": epochs, "results": results}
    given = checked(_with_defaults(options) | arguments | {"settings": settings}, OF_COMPARE)
    store, cache = Store(Path(results)), Path(given["cache"])
    changes = by_key(given["settings"], _ARGUMENT_OF)
    in_memory = _in_memory(data, text, label)
    if in_memory:
        store.check_writable()
        data, text, label = in_memory.write(store.results), in_memory.text_columns, in_memory.label_column
    changes |= _changes_of(given, data) | {"data.text_column": text, "data.label_column": label}
    suite = load_suite(Path(given["config"]) if given["config"] else None, changes, [])
    price = None if given["price"] is None else parse_price(str(given["price"]))
    quiet, track = given["quiet"], given["track"]
    console, metric = Console(), METRICS[suite.metric]
    track = ",".join(track) if isinstance(track, list) else track
    bench = Bench(console, store, Workspace(cache), given["force"], quiet=quiet, jobs=str(given["jobs"]), track=track)
    with process_kept():
        finished = bench.run(suite, save=_has_a_best(suite))
    write_tables(store, suite.reference, metric, price)
    if finished.interrupted:
        raise KeyboardInterrupt
    if finished.plan.tracking:
        tracked_suite.end(console, finished.plan, suite.reference, metric, price, quiet)
    return Comparison(store, cache, suite, finished, price, in_memory.label_of if in_memory else {})


def _with_defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of the command by parameter, those that are not given with their defaults."""
    known = {one.parameter: one.default for one in options_of("bench") if one.parameter not in _NOT_IN_PYTHON}
    for name in options:
        if name not in known:
            hint = did_you_mean(name, known)
            raise UserError(
                f"compare(...) has no option {name!r}: {hint}Known are {', '.join(known)}; other keys of the "
                'configuration go into settings={"a.b": ...}.'
            )
    return known | {name: value for name, value in options.items() if value is not None}


def _changes_of(given: Mapping[str, Any], data: Any) -> dict[str, Any]:
    """What the arguments change in the configuration; data: names or a path."""
    strategies, seeds = given["strategies"], given["seeds"]
    strategies = list(map(str, strategies)) if isinstance(strategies, list) else strategies and str(strategies)
    data = list(map(str, data)) if isinstance(data, list | tuple) else data and str(data)
    seeds = [seeds] if isinstance(seeds, int) else seeds
    return changes_of({**given, "strategy": strategies, "data": data, "seeds": seeds})


def _in_memory(data: Data | None, text: Any, label: Any) -> GivenTexts | None:
    """The texts that are given; None where a name, a path or nothing is."""
    if data is None or isinstance(data, str | Path):
        return None
    if isinstance(data, pd.DataFrame):
        return from_frame(data, text, label)
    if isinstance(data, list | tuple) and data and all(isinstance(one, str | Path) for one in data):
        return None
    if not isinstance(data, list | tuple) or len(data) != 2:
        raise UserError(
            f"data is a {type(data).__name__}: expected a DataFrame, a pair of texts and labels, a path, or a name."
        )
    if text is not None or label is not None:
        raise UserError("text and label name columns, and a pair of texts and labels has none: leave them out.")
    texts, labels = data
    return GivenTexts.of(texts, labels)


def _has_a_best(suite: SuiteConfig) -> bool:
    """Whether one of its runs trains a classifier, and all are of one data set."""
    trains = any(run.strategy not in baselines.NAMES for run in suite.runs())
    return trains and not suite.has_several_data_sets
