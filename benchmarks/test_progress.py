"""`make perf`: what it costs to tell of a run while it goes on.

The same run again and again in this process, silent, with the live view and with plain lines in turn. What others do on
the machine only ever adds time, so the fastest of each counts; since that may still be more than is measured here, the
processor's time of telling is measured by itself, too.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.test_speed import FULL
from harness.config.schema import TrainingConfig
from harness.config.suite import load_suite
from harness.distributed.process_group import World
from harness.distributed.signals import StopSignals
from harness.experiment.runner import Runner, prepare_store
from harness.planning.plan import Plan, resolve
from harness.planning.workspace import Workspace
from harness.progress.event_log import LOG, EventLog
from harness.progress.live import REFRESHES_PER_SECOND, Live
from harness.progress.observer import Observer, Observers
from harness.progress.plain import PlainLines
from harness.results.store import Store
from harness.training.loop import EXCHANGE_EVERY_STEPS

ROUNDS = int(os.environ.get("FTBENCH_PERF_ROUNDS", "10" if FULL else "1"))
SIZE, EPOCHS, REPEATS = 1000, 20 if FULL else 5, 1000
BATCH, TRAINED = TrainingConfig().batch_size, 0.7  # of the texts
WORLD = World(0, 1, torch.device("cpu"))


def test_observers(benchmark, tmp_path: Path) -> None:
    options = {"strategy": "last_block", "model.name": "mini", "data.name": "synthetic", "data.size": SIZE}
    suite = load_suite(None, {**options, "training.epochs": EPOCHS}, [])
    plan, store = resolve(suite, tmp_path / "results", Workspace(tmp_path / "cache")), Store(tmp_path / "results")
    store.check_writable()
    _seconds(plan, store, lambda _: Observer())  # fills the cache
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in OBSERVERS}

    def all_in_turn() -> None:
        for name, make in OBSERVERS.items():
            measured[name].append(_seconds(plan, store, make))

    benchmark.pedantic(all_in_turn, rounds=ROUNDS)
    seconds = {name: [min(of_all) for of_all in zip(*runs, strict=True)] for name, runs in measured.items()}
    silent = seconds.pop("silent")
    benchmark.extra_info |= {
        "run": f"last_block, mini, {SIZE} texts, {EPOCHS} epochs, fastest of {ROUNDS}",
        "observers": {
            name: {"seconds": wall / silent[0] - 1, "processor": processor / silent[1] - 1}
            for name, (wall, processor) in seconds.items()
        },
        "measured": measured,
        "own_share": _own_share(plan, steps_per_second=EPOCHS * TRAINED * SIZE / BATCH / silent[0]),
    }


def _own_share(plan: Plan, steps_per_second: float) -> float:
    """The share of the processor's time that the live view and the log take by what they do in a second."""
    console = _terminal()
    view = Live(console, plan.runs, 1, WORLD.device)
    observer = Observers([_log(plan), view])
    observer.run_started(plan.runs[0], 1, 1)
    observer.phase("train")
    report = _processor_seconds(lambda number: observer.progress(5 * number, 5 * REPEATS, 0.5, 0.9))
    draw = _processor_seconds(lambda _: console.print(view.lines()))
    return REFRESHES_PER_SECOND * draw + steps_per_second / EXCHANGE_EVERY_STEPS * report


def _processor_seconds(do: Callable[[int], None]) -> float:
    """Of one of many calls."""
    started = time.process_time()
    for number in range(REPEATS):
        do(number)
    return (time.process_time() - started) / REPEATS


def _seconds(plan: Plan, store: Store, make: Callable[[Plan], Observer]) -> tuple[float, float]:
    """Of one run: by the wall clock, and of the processor."""
    plan, _ = prepare_store(plan, store, force=True)
    gc.collect()
    started, used = time.perf_counter(), time.process_time()
    with make(plan) as observer:
        Runner.of(plan, WORLD, observer, StopSignals(), Workspace(plan.cache)).execute()
    return time.perf_counter() - started, time.process_time() - used


def _live(plan: Plan) -> Observer:
    return Observers([_log(plan), Live(_terminal(), plan.runs, 1, WORLD.device)])


def _lines(plan: Plan) -> Observer:
    return Observers([_log(plan), PlainLines(_terminal(), plan.runs)])


def _log(plan: Plan) -> EventLog:
    return EventLog(plan.results / LOG, plan.runs)


def _terminal() -> Console:
    """Whoever draws there draws all of it; a terminal emulator's own work is not ours."""
    return Console(file=Path(os.devnull).open("w"), force_terminal=True, width=160)


OBSERVERS: dict[str, Callable[[Plan], Observer]] = {"silent": lambda _: Observer(), "live": _live, "lines": _lines}
