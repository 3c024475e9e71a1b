"""Where models and data lie. A place is no part of what they are: their content is hashed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.config.tree import get_key, merged

# Of names of models and data sets that the Hugging Face hub has, or its cache.
HUB_PREFIX = "hf:"


def is_hub(name: str) -> bool:
    """Whether a model or a data set is one of the hub, by its name."""
    return name.startswith(HUB_PREFIX)


def data_title(name: str) -> str:
    """`data.name` without the folder of a file; what the hub has keeps its owner."""
    return name if is_hub(name) else Path(name).name


def without_places(config: dict[str, Any]) -> dict[str, Any]:
    """A copy of a run's configuration with the title of its data instead of a path."""
    name = get_key(config, "data.name")
    return merged(config, {"data": {"name": data_title(name)}} if name else {})
