"""A small suite of the gate, for tests that run it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from harness.gate import suite as gate


def use_suite(monkeypatch: pytest.MonkeyPatch, folder: Path, size: int, seeds: int, strategies: list[str]) -> None:
    tree = yaml.safe_load(gate.SUITE.read_text()) | {"seed": list(range(seeds))}
    tree["rows"] = [row for row in tree["rows"] if row["strategy"] in strategies]
    cost = yaml.safe_load(gate.COST_SUITE.read_text()) | {"seed": [0, 1]}
    cost["data"]["size"], cost["training"] = 60, {"epochs": 1, "batch_size": 2}
    tree["data"]["size"] = size
    for name, content in (("SUITE", tree), ("COST_SUITE", cost)):
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content))
        monkeypatch.setattr(gate, name, path)
    monkeypatch.setattr(gate, "REFERENCE", folder / "reference")
