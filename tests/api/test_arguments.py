"""The arguments of `harness.compare`: what each overrides, and what is refused before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from harness import Comparison, compare


def _frame() -> pd.DataFrame:
    texts = [f"text number {number}, {'good' if number % 2 else 'bad'}" for number in range(60)]
    return pd.DataFrame({"text": texts, "label": ["good" if number % 2 else "bad" for number in range(60)]})


def _compare(folder: Path, *given: Any, **options: Any) -> Comparison:
    return compare(*given, **{"quiet": True, "results": folder / "results", "cache": folder / "cache", **options})


def test_what_no_argument_gives_is_as_the_file_has_it(tmp_path: Path) -> None:
    _frame().to_csv(tmp_path / "own.csv", index=False)
    suite = {"data": [str(tmp_path / "own.csv"), "negation"], "strategy": ["length_rule"], "metric": "mcc"}
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    made = _compare(tmp_path, config=tmp_path / "suite.yaml")
    assert [record.ok_data.name for record in made.records] == ["own.csv", "negation"]
    assert {record.strategy for record in made.records} == {"length_rule"}
    assert made.suite.metric == "mcc"


def test_an_argument_overrides_the_file(tmp_path: Path) -> None:
    rest = {"model": {"name": "gpt2"}, "training": {"epochs": 5}, "seed": [1, 2]}
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump({"data": {"name": "negation"}, "strategy": "full", **rest}))
    arguments: dict[str, Any] = {"model": "mini", "epochs": 0, "seeds": 3}
    (record,) = _compare(tmp_path, _frame(), "head_only", config=tmp_path / "suite.yaml", **arguments).records
    assert record.ok_data.name.startswith("texts-")
    assert (record.strategy, record.seed, record.config["model"]["name"]) == ("head_only", 3, "mini")
    assert record.config["training"]["epochs"] == 0
