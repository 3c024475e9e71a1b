"""What options, typed on a command line or given in Python, change in the configuration of a suite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness import baselines
from harness.config.command_line import parse_seeds
from harness.config.options import OPTIONS
from strategies import ALL


def changes_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """By key of the configuration, for `load_suite`; None where an option leaves it as it is.

    given: by `Option.parameter`, all or some. Raises UserError for seeds that are none.
    """
    changes = {option.key: given.get(option.parameter) for option in OPTIONS if option.key}
    changes["strategy"] = _strategy_names(given.get("strategy"))
    seeds = given.get("seeds")
    changes["seed"] = parse_seeds(seeds) if isinstance(seeds, str) and seeds else seeds or None
    return changes


def _strategy_names(given: str | list[str] | None) -> list[str] | None:
    if given == "all":
        return [*ALL, *baselines.NAMES]
    return given.split(",") if isinstance(given, str) and given else given or None
