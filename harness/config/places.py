"""Where data lies is no part of what it is: its content is hashed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.config.tree import get_key, merged


def data_title(name: str) -> str:
    """`data.name` without the folder of a file; what the hub has keeps its owner."""
    return name if name.startswith("hf:") else Path(name).name


def without_places(config: dict[str, Any]) -> dict[str, Any]:
    """A copy of a run's configuration with the title of its data instead of a path."""
    name = get_key(config, "data.name")
    return merged(config, {"data": {"name": data_title(name)}} if name else {})
