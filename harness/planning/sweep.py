"""TUNE=lr: a small grid of learning rates for each strategy, of which the validation texts choose one.

One rate for all strategies favours some of them, so each is shown at the common rate and at its own best one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import strategies
from harness import baselines
from harness.config.schema import RunConfig
from harness.config.suite import SuiteConfig, SuiteRow
from harness.errors import UserError
from harness.planning.identity import short_identity
from harness.planning.plan import Plan, PlannedRun
from harness.results.record import Record

# Half decades around the common rate, which is one of them. Few parameters want high rates.
GRID = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
SWEPT_SEEDS = 3


def sweep_of(suite: SuiteConfig, common: float) -> SuiteConfig:
    """Every strategy that has a rate at every rate of the grid, with the first seeds of the suite."""
    if any(row.name for row in suite.rows):
        raise UserError("TUNE=lr with a file that lists rows: their rates are given; leave TUNE out.")
    runs = [run for run in suite.runs() if _has_rate(run)]
    seeds = list(dict.fromkeys(run.seed for run in runs))[:SWEPT_SEEDS]
    rates = [common if factor == 1 else float(f"{common * factor:.3g}") for factor in GRID]
    swept = [_at(run, rate) for run in runs if run.seed in seeds for rate in rates]
    return suite.model_copy(update={"rows": [SuiteRow(name=None, runs=swept)]})


def at_own_rates(suite: SuiteConfig, rates: dict[str, float]) -> SuiteConfig:
    """Every strategy with every seed at its own rate; rates: by strategy."""
    runs = [_at(run, rates[run.strategy]) for run in suite.runs() if run.strategy in rates]
    return suite.model_copy(update={"rows": [SuiteRow(name=None, runs=runs)]})


def marked(plan: Plan, common: float) -> Plan:
    """The plan's runs as points of a sweep around the common rate; those at it are ordinary runs.

    The others are no records of ordinary runs at their rate: a table shows these among themselves, and all of them.
    """

    def mark(run: PlannedRun) -> PlannedRun:
        if run.config.optimizer.learning_rate == common:
            return run
        identity = hashlib.sha256(f"{run.identity} around {common}".encode()).hexdigest()
        name = run.run_id.removesuffix(short_identity(run.identity)) + short_identity(identity)
        return run.model_copy(update={"sweep_around": common, "identity": identity, "run_id": name})

    return plan.model_copy(update={"runs": [mark(run) for run in plan.runs]})


def _has_rate(run: RunConfig) -> bool:
    return run.strategy not in baselines.NAMES and "steps" in strategies.load(run.strategy).strategy.phases


def _at(run: RunConfig, rate: float) -> RunConfig:
    return run.model_copy(update={"optimizer": run.optimizer.model_copy(update={"learning_rate": rate})})


def tuned(
    suite: SuiteConfig,
    plan: Plan,
    resolve: Callable[[SuiteConfig], Plan],
    do: Callable[[Plan], list[Record]],
    choose: Callable[[list[Record]], dict[str, float]],
) -> Plan:
    """The plan with the runs at each strategy's own rate added, which a sweep finds.

    resolve: plans a suite; do: does a plan and returns its records; choose: the best rate by strategy.
    """
    rates = {run.config.optimizer.learning_rate for run in plan.runs if _has_rate(run.config)}
    if not rates:
        raise UserError("TUNE=lr: what takes no steps has no learning rate, as baselines; name a strategy that does.")
    common = rates.pop()
    assert common is not None, "a plan resolves it"
    chosen = choose(do(marked(resolve(sweep_of(suite, common)), common)))
    own = marked(resolve(at_own_rates(suite, chosen)), common).runs if chosen else []
    return plan.model_copy(update={"runs": list({run.run_id: run for run in [*plan.runs, *own]}.values())})
