"""What options, typed on a command line or given in Python, change in the configuration of a suite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness import baselines
from harness.config.command_line import parse_seeds, split_assignments
from harness.config.options import OPTIONS
from harness.config.suite import SuiteConfig, load_suite
from strategies import ALL


def suite_asked(given: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> SuiteConfig:
    """The suite that a command's options ask for.

    given: by `Option.parameter`. more: keys of the configuration, instead of what options say.
    Raises UserError for whatever is wrong with it.
    """
    return load_suite(given["config"], {**changes_of(given), **(more or {})}, split_assignments(given["set"] or []))


def changes_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """By key of the configuration, for `load_suite`; None where an option leaves it as it is.

    given: by `Option.parameter`, all or some. Raises UserError for a text that names no seeds.
    """
    changes = {option.key: given.get(option.parameter) for option in OPTIONS if option.key}
    strategies, seeds = given.get("strategy"), given.get("seeds")
    changes["strategy"] = _strategy_names(strategies) if isinstance(strategies, str) else strategies
    changes["seed"] = _seeds(seeds) if isinstance(seeds, str) else seeds
    return changes


def _strategy_names(given: str) -> list[str] | None:
    if given == "all":
        return [*ALL, *baselines.NAMES]
    return given.split(",") if given else None


def _seeds(given: str) -> list[int] | None:
    return parse_seeds(given) if given else None
