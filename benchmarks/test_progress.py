"""`make perf`: what it costs to tell of a run while it goes on.

The same run again and again in this process, silent, with the live view and with plain lines in turn. Others on the
machine disturb the seconds of a run by more than is measured here; the processor's time of this process, the thread that
draws included, by less.
"""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.test_speed import FULL
from harness.engine.world import World
from harness.plan import Plan, resolve
from harness.records import Store
from harness.report.live import Live
from harness.report.progress import LOG, EventLog, Lines, Several
from harness.report.watching import Silent
from harness.suite import execute, prepare_store
from harness.suite_file import load_suite

ROUNDS = int(os.environ.get("FTBENCH_PERF_ROUNDS", "8"))
SIZE, EPOCHS = 2000, 10 if FULL else 5
WORLD = World(0, 1, torch.device("cpu"))


def test_observers(benchmark, tmp_path: Path) -> None:
    options = {"strategy": "last_block", "model.name": "mini", "data.name": "synthetic", "data.size": SIZE}
    suite = load_suite(None, {**options, "training.epochs": EPOCHS}, [])
    plan, store = resolve(suite, tmp_path / "results", tmp_path / "cache"), Store(tmp_path / "results")
    store.check_writable()
    _seconds(plan, store, lambda _: Silent())  # fills the cache
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in OBSERVERS}

    def all_in_turn() -> None:
        for name, make in OBSERVERS.items():
            measured[name].append(_seconds(plan, store, make))

    benchmark.pedantic(all_in_turn, rounds=ROUNDS)
    benchmark.extra_info |= {
        "run": f"last_block, mini, {SIZE} texts, {EPOCHS} epochs",
        "rounds": ROUNDS,
        "silent_seconds": [wall for wall, _ in measured["silent"]],
        "observers": {
            name: {"wall": _more(measured, name, 0), "processor": _more(measured, name, 1)}
            for name in OBSERVERS
            if name != "silent"
        },
    }


def _more(measured: dict[str, list[tuple[float, float]]], name: str, which: int) -> float:
    """The median over rounds of how much longer it took than the silent run beside it, as a share."""
    pairs = zip(measured[name], measured["silent"], strict=True)
    return statistics.median(told[which] / silent[which] - 1 for told, silent in pairs)


def _seconds(plan: Plan, store: Store, make: Callable[[Plan], Silent]) -> tuple[float, float]:
    """Of one run: by the wall clock, and of the processor."""
    plan, _ = prepare_store(plan, store, force=True)
    gc.collect()
    started, used = time.perf_counter(), time.process_time()
    with make(plan) as observer:
        execute(plan, WORLD, observer)
    return time.perf_counter() - started, time.process_time() - used


def _live(plan: Plan) -> Silent:
    return Several([_log(plan), Live(_terminal(), plan.runs, 1, WORLD.device)])


def _lines(plan: Plan) -> Silent:
    return Several([_log(plan), Lines(_terminal(), plan.runs)])


def _log(plan: Plan) -> EventLog:
    return EventLog(plan.results / LOG, plan.runs)


def _terminal() -> Console:
    """Whoever draws there draws all of it; a terminal emulator's own work is not ours."""
    return Console(file=Path(os.devnull).open("w"), force_terminal=True, width=160)


OBSERVERS: dict[str, Callable[[Plan], Silent]] = {"silent": lambda _: Silent(), "live": _live, "lines": _lines}
