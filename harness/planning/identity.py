"""How a finished run is recognised: by all that determines its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.config.places import HUB_PREFIX, without_places


def identity_of(used: dict[str, Any], *hashes: str | None) -> str:
    """used: the configuration that the result depends on; where its data lies does not count. hashes: of the contents
    and the code that it depends on."""
    content = json.dumps([without_places(used), *hashes], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def run_id_of(name: str, used: dict[str, Any], seed: int, identity: str) -> str:
    """name: of the strategy or baseline. used: as in `identity_of`."""
    model = used.get("model", {}).get("name", "").rpartition("/")[2].removeprefix(HUB_PREFIX)
    parts = [name, model, Path(used["data"]["name"]).stem, f"s{seed}", short_identity(identity)]
    return "-".join(filter(None, parts))


def short_identity(identity: str) -> str:
    """How it stands at the end of a run's name."""
    return identity[:10]


def only(tree: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Of a tree two levels deep what `keys` name, dotted where they mean one entry of a part."""
    chosen = {}
    for key in keys:
        part, dot, entry = key.partition(".")
        chosen[part] = {entry: tree[part][entry]} if dot else tree[part]
    return chosen
