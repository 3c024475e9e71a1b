"""What a gate runs: the project's own suite with its cost runs, or a suite of the user's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from math import ceil
from pathlib import Path

from harness.config.schema import RunConfig
from harness.config.suite import SuiteConfig, SuiteRow, load_suite
from harness.config.tree import BUILT_IN
from harness.errors import UserError
from harness.measure.clock import WARM_UP_STEPS
from harness.planning.plan import Plan, PlannedRun, resolve
from harness.planning.workspace import Workspace

SUITE, COST_SUITE = BUILT_IN / "gate.yaml", BUILT_IN / "gate_cost.yaml"
# Of a checkout; it is no part of the package.
REFERENCE = Path(__file__).parents[2] / "results" / "reference" / "gate"
# All peaks of a process are a little higher or lower, depending on the layout of its heap (docs/gate.md): the pairs of
# cost runs are distributed over several.
COST_PROCESSES = 8
# Of a user's suite each process has one pair for each row, of a seed that the suite itself hardly has, and of as few
# epochs as give so many steps.
USERS_COST_SEEDS = range(1_000, 1_010)
COST_STEPS = 5 * WARM_UP_STEPS

Pair = tuple[PlannedRun, PlannedRun]


@dataclass(frozen=True)
class GateSuite:
    """config: the suite's file. reference: the folder of its reference."""

    config: Path
    reference: Path

    @property
    def is_own(self) -> bool:
        return self.config == SUITE

    @property
    def update_command(self) -> str:
        named = "" if self.is_own else f" CONFIG={self.config} REFERENCE={self.reference}"
        return f'make gate-update{named} REASON="..."'

    def load(self, seeds: list[int] | None = None) -> SuiteConfig:
        """seeds: instead of its own. Raises UserError for a suite that can't be loaded or that sweeps its rates."""
        suite = load_suite(self.config, {"seed": seeds}, [])
        if suite.tune:
            raise UserError(
                f"suite {str(self.config)!r} has tune={suite.tune}: a gate compares runs of one configuration, and a "
                "sweep chooses rates anew each time; write the rates that it chose into the suite, and leave tune out."
            )
        return suite


def chosen(config: Path | None, reference: str | None) -> GateSuite:
    """The gate's own suite, or that of the user, who names both its file and the folder of its reference."""
    if config is None and reference is None:
        if not REFERENCE.parent.is_dir():
            raise UserError(
                "`ftbench gate` without CONFIG is the gate of ftbench's own code, and needs a checkout of it: name the "
                "file of your suite with CONFIG and the folder of its reference with REFERENCE."
            )
        return GateSuite(SUITE, REFERENCE)
    if reference is None:
        raise UserError(
            f"CONFIG={str(config)!r} without REFERENCE: name the folder of this suite's gate reference, too."
        )
    if config is None:
        raise UserError(f"REFERENCE={reference!r} without CONFIG: name the file of the suite that it is of, too.")
    return GateSuite(config, Path(reference))


def cost_pairs(
    suite: GateSuite, results: Path, workspace: Workspace, seeds: list[int] | None = None
) -> list[list[Pair]]:
    """Of each process pairs of a fast run and its plain path. seeds: instead of those of the gate's own cost suite."""
    if not suite.is_own:
        return _users_pairs(suite.load(), results, workspace)
    fast, plain = (
        resolve(load_suite(COST_SUITE, {"seed": seeds, "plain": is_plain}, []), results, workspace).runs
        for is_plain in (False, True)
    )
    pairs = list(zip(fast, plain, strict=True))
    return [pairs[first::COST_PROCESSES] for first in range(min(COST_PROCESSES, len(pairs)))]


def _users_pairs(suite: SuiteConfig, results: Path, workspace: Workspace) -> list[list[Pair]]:
    rows: dict[str, PlannedRun] = {}
    for run in resolve(suite, results, workspace).runs:
        if run.strategy and run.strategy.takes_steps and not run.config.plain:
            rows.setdefault(run.title, run)
    shortened = {title: _shortened(run, workspace) for title, run in rows.items()}
    if not shortened:
        raise UserError("COSTS=1: no row of this suite has a plain path to be compared with; name a strategy.")
    return [
        [
            _pair(title, config.model_copy(update={"seed": seed}), results, workspace)
            for title, config in shortened.items()
        ]
        for seed in USERS_COST_SEEDS
    ]


def _shortened(run: PlannedRun, workspace: Workspace) -> RunConfig:
    """With fewer epochs, as long as they are enough steps. Raises UserError where all are too few."""
    training, texts = run.config.training, len(run.dataset(workspace).split["train"])
    steps = training.steps_of_epoch(texts)
    if steps * training.epochs <= WARM_UP_STEPS:
        raise UserError(
            f"COSTS=1: row {run.title!r} has {steps * training.epochs} training steps, and the first {WARM_UP_STEPS} "
            "of a run are not timed: give it more epochs, or leave COSTS out."
        )
    fewer = training.model_copy(update={"epochs": min(training.epochs, ceil(COST_STEPS / steps))})
    return run.config.model_copy(update={"training": fewer})


def _pair(title: str, config: RunConfig, results: Path, workspace: Workspace) -> Pair:
    runs = [config.model_copy(update={"plain": plain}) for plain in (False, True)]
    fast, plain = resolve(SuiteConfig(rows=[SuiteRow(name=title, runs=runs)]), results, workspace).runs
    return fast, plain


def plan_of(pairs: Iterable[Pair], results: Path, workspace: Workspace) -> Plan:
    """The runs of one process."""
    return Plan(
        runs=list(chain.from_iterable(pairs)),
        results=results,
        cache=workspace.cache,
        features=workspace.features,
        code_sha256=workspace.code_sha256(),
        quiet=True,
    )
