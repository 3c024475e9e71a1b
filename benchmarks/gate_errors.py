"""How often the gate errs, from real runs: `python -m benchmarks.gate_errors` (about 25 minutes on 2 quiet cores).

It fills a pool, `results/gate_errors`, with the gate's runs: many other seeds, the gate's own under other instruction
sets and thread counts, and its processes of cost runs several times over. What the pool has already is not run again:
delete it to measure a changed code. Then it draws pairs of a reference and a rerun out of the pool, and counts in how
many the gate alarms.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from harness.gate import suite as gate
from harness.gate.checks import alarms, compare, farthest
from harness.gate.measurement import Cost, Measurement, case_of, cost_of, measurement_of, run_of, subject_of
from harness.gate.rerun import measure_costs
from harness.launch.launcher import launch
from harness.planning.plan import Plan, PlannedRun, resolve
from harness.planning.workspace import Workspace
from harness.results.record import Record
from harness.results.store import Store
from tools.simulated_regressions import lowered, swollen

POOL = Path("results") / "gate_errors"
RERUNS = 3000
SEEDS = range(40)
SUITE = gate.chosen(None, None)
GATE_SEEDS = list(dict.fromkeys(run.seed for run in SUITE.load().runs()))
COST_REPEATS = 6
# The gate's own seeds again; the first is what all others are compared with.
VARIANTS = {
    "one thread": {"OMP_NUM_THREADS": "1"},
    "two threads": {"OMP_NUM_THREADS": "2"},
    "AVX2": {"OMP_NUM_THREADS": "1", "ATEN_CPU_CAPABILITY": "avx2"},
    "no vector instructions": {"OMP_NUM_THREADS": "1", "ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"},
}
BASE = "one thread"


@dataclass(frozen=True)
class Pool:
    """variants: by variant and seed. costs: by process, as many pairs as the gate's processes do."""

    variants: dict[str, dict[int, Measurement]]
    costs: list[list[Cost]]


def fill(variant: str) -> None:
    """Do in this process, and the cost runs in others, what the pool lacks of a variant; the environment must be the
    variant's."""
    store, suite, costs = _planned(variant)
    launch(_lacking(suite, store))
    measure_costs([_lacking(plan, store) for plan in costs], store)
    for repeat in range(COST_REPEATS if variant == BASE else 0):
        store, plans = _planned_costs(repeat)
        measure_costs([_lacking(plan, store) for plan in plans], store)


def _lacking(plan: Plan, store: Store) -> Plan:
    done = [record.config for record in store.all()]
    return plan.model_copy(update={"runs": [run for run in plan.runs if run.used not in done]})


def read(variant: str) -> dict[int, Measurement]:
    """Of each seed that is complete."""
    store, suite, costs = _planned(variant)
    workspace = Workspace(suite.cache)
    of_suite, of_costs = (_by_seed(plans, store) for plans in ([suite], costs))
    found = {}
    for seed, done in of_suite.items():
        records, pairs = [record for _, record in done if record], _pairs(of_costs[seed])
        if len(records) == len(done) and pairs:
            runs = [run_of(subject_of(run, workspace), record, store) for run, record in done if record]
            found[seed] = measurement_of(records[0].environment, runs, pairs)
    return found


def read_costs() -> list[list[Cost]]:
    """Of each process."""
    found = []
    for repeat in range(COST_REPEATS):
        store, plans = _planned_costs(repeat)
        found += [[cost for of_seed in _by_seed([plan], store).values() for cost in _pairs(of_seed)] for plan in plans]
    return found


Done = tuple[PlannedRun, Record | None]


def _pairs(done: Sequence[Done]) -> list[Cost]:
    """Of fast runs and their plain paths, in turn; none where one is missing."""
    pairs = list(zip(done[::2], done[1::2], strict=True))
    return [cost_of(case_of(run), fast, plain) for (run, fast), (_, plain) in pairs if fast and plain]


def _by_seed(plans: Sequence[Plan], store: Store) -> dict[int, list[Done]]:
    records = {json.dumps(record.config, sort_keys=True): record for record in store.all()}
    found: dict[int, list[Done]] = {}
    for run in (run for plan in plans for run in plan.runs):
        found.setdefault(run.config.seed, []).append((run, records.get(json.dumps(run.used, sort_keys=True))))
    return found


def _planned(variant: str) -> tuple[Store, Plan, list[Plan]]:
    store, seeds = _store(variant), list(SEEDS) if variant == BASE else list(GATE_SEEDS)
    workspace = Workspace(store.results / "cache")
    return store, resolve(SUITE.load(seeds), store.results, workspace), _cost_plans(store, workspace, seeds)


def _planned_costs(repeat: int) -> tuple[Store, list[Plan]]:
    store = _store(f"costs {repeat}")
    return store, _cost_plans(store, Workspace(store.results / "cache"), None)


def _cost_plans(store: Store, workspace: Workspace, seeds: list[int] | None) -> list[Plan]:
    pairs = gate.cost_pairs(SUITE, store.results, workspace, seeds)
    return [gate.plan_of(of_process, store.results, workspace) for of_process in pairs]


def _store(name: str) -> Store:
    store = Store(POOL / name.replace(" ", "_"))
    store.check_writable()
    return store


def _together(seeds: Sequence[Measurement], pool: Pool, random: np.random.Generator) -> Measurement:
    """The runs of `seeds`, with the costs of as many processes as the gate has, drawn with replacement."""
    drawn = random.integers(len(pool.costs), size=gate.COST_PROCESSES)
    costs = [cost for number in drawn for cost in pool.costs[number]]
    return seeds[0].model_copy(update={"runs": [run for one in seeds for run in one.runs], "costs": costs})


def other_seeds(pool: Pool, random: np.random.Generator) -> tuple[Measurement, Measurement]:
    """A reference and a rerun that have no seed in common."""
    count = len(GATE_SEEDS)
    drawn = random.choice(list(pool.variants[BASE]), 2 * count, replace=False)
    parts = ([pool.variants[BASE][int(seed)] for seed in part] for part in (drawn[:count], drawn[count:]))
    return tuple(_together(part, pool, random) for part in parts)


def same_seeds(pool: Pool, random: np.random.Generator) -> tuple[Measurement, Measurement]:
    """The gate's seeds, each as one variant ran it and as another did."""
    pairs = []
    for seed in GATE_SEEDS:
        having = [variant for variant, of in pool.variants.items() if seed in of]
        if len(having) > 1:
            pairs.append([pool.variants[str(variant)][seed] for variant in random.choice(having, 2, replace=False)])
    return tuple(_together(side, pool, random) for side in zip(*pairs, strict=True))


def rates(pool: Pool, draw: Callable, random: np.random.Generator) -> dict[str, float]:
    """The share of reruns in which the gate alarms, by what was done to the rerun."""
    names = list(dict.fromkeys(run.row for one in pool.variants[BASE].values() for run in one.runs))
    changes: dict[str, Callable[[Measurement], Measurement]] = {"nothing worse": lambda rerun: rerun}
    for strategies in ([name] for name in names):
        changes[f"{strategies[0]} 3 points lower"] = lambda rerun, these=strategies: lowered(rerun, these, random)
    changes["memory 20% up"] = swollen
    alarmed = dict.fromkeys(changes, 0)
    for _ in range(RERUNS):
        reference, rerun = draw(pool, random)
        for what, change in changes.items():
            alarmed[what] += alarms(compare(reference, change(rerun)))
    return {what: count / RERUNS for what, count in alarmed.items()}


def spread_table(pool: Pool) -> Table:
    """What the checks saw of the variants: how far losses were from BASE's, and both ratios."""
    table = _table("Each variant", ["seeds", "largest distance of losses", "memory", "speed"])
    for variant, seeds in pool.variants.items():
        apart = [
            farthest(np.array(ours.losses), np.array(theirs.losses))[0]
            for seed in seeds.keys() & pool.variants[BASE].keys()
            for ours, theirs in zip(seeds[seed].runs, pool.variants[BASE][seed].runs, strict=True)
        ]
        costs = [cost for one in seeds.values() for cost in one.costs]
        ratios = [np.array([getattr(cost, name) for cost in costs]) for name in ("memory", "speed")]
        shown = [f"{ratio.min():.2f} to {ratio.max():.2f}" for ratio in ratios if len(ratio)]
        table.add_row(variant, str(len(seeds)), f"{max(apart, default=0):.2g}", *shown)
    return table


def _table(title: str, columns: list[str]) -> Table:
    return Table("", *columns, title=title, box=box.MARKDOWN, title_justify="left")


def main() -> None:
    for variant, environment in VARIANTS.items():
        command = [sys.executable, "-m", "benchmarks.gate_errors", variant]
        subprocess.run(command, env=os.environ | environment, check=True)
    console, random = Console(width=120), np.random.default_rng(0)
    pool = Pool({variant: read(variant) for variant in VARIANTS}, read_costs())
    console.print(spread_table(pool), "")
    found = {"other seeds": rates(pool, other_seeds, random), "same seeds": rates(pool, same_seeds, random)}
    table = _table(f"Alarms in {RERUNS} reruns, %", list(found))
    for what in found["same seeds"]:
        table.add_row(what, *(f"{100 * of[what]:.1f}" for of in found.values()))
    console.print(table)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        fill(sys.argv[1])
    else:
        main()
