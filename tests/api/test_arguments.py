"""The arguments of `harness.compare`: what each overrides, and what is refused before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from harness import Comparison, Strategy, TextClassifier, UserError, compare


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


@pytest.mark.parametrize(
    "given",
    [
        {"strategies": (name for name in ["majority"])},
        {"strategies": np.array(["majority"])},
        {"seeds": np.int64(3), "epochs": np.int64(1)},
        {"seeds": np.arange(3, 5)},
        {"track": ["tensorboard"]},
        {"sizes": np.array([8, 16])},
        {"cache": None, "force": None},
        {"settings": {"training": {"batch_size": np.int64(4)}}},
    ],
)
def test_any_list_and_numbers_of_numpy_are_taken(tmp_path: Path, given: dict[str, Any]) -> None:
    made = _compare(tmp_path, _frame(), **{"strategies": "majority", "model": "mini", **given})
    assert {record.status for record in made.records} == {"ok"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"strategies": Strategy()}, "expected a name of `ftbench list`, a path to a `.py` file, or a list of them."),
        ({"strategies": [Strategy()]}, "expected a name of `ftbench list`, a path to a `.py` file, or a list of them."),
        ({"strategies": 3}, "strategies=3: expected a name of `ftbench list`"),
        ({"strategies": {"majority": 1}}, "strategies={'majority': 1}: expected a name"),
        *(({"seeds": seeds}, f"seeds={seeds!r}: expected a whole number, a list of them, or a text such as '0..9'.")
          for seeds in (1.5, True, [None], ["a"], [1.7])),
        ({"results": None}, "results=None: expected a path."),
        ({"results": 3}, "results=3: expected a path."),
        ({"cache": 3}, "cache=3: expected a path."),
        ({"config": 3}, "config=3: expected a path."),
        ({"force": "yes"}, "force='yes': expected True or False."),
        ({"metric": ["mcc"]}, "metric=['mcc']: expected a name."),
        ({"track": 3}, "track=3: expected a tracker's name, or a list of them."),
        ({"settings": ["data.size"]}, "settings=['data.size']: expected keys of the configuration with their values"),
        ({"settings": {1: 2}}, "settings={1: 2}: expected keys of the configuration with their values"),
        ({"text": 3}, "the DataFrame has no column 3: Its columns are 'text', 'label'; name one with text="),
        ({"label": 0}, "the DataFrame has no column 0: Its columns are"),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_type_is_refused(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        _compare(tmp_path, _frame(), **given)
    assert message in str(refused.value)
    assert not list(tmp_path.rglob("record.json"))


@pytest.mark.parametrize(
    ("key", "argument"),
    [
        ("data.name", "data"),
        ("data.text_column", "text"),
        ("strategy", "strategies"),
        ("seed", "seeds"),
        ("training.epochs", "epochs"),
        ("metric", "metric"),
        ("engine.processes", "nproc"),
        ("data", "data"),
    ],
)
def test_a_setting_that_an_argument_sets_is_refused(tmp_path: Path, key: str, argument: str) -> None:
    with pytest.raises(UserError) as refused:
        _compare(tmp_path, _frame(), "majority", settings={key: "negation"})
    assert str(refused.value) == f"settings={{{key!r}: ...}}: the argument {argument} sets that; give {argument}=..."


def test_a_setting_in_a_part_is_that_key(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"settings={'model.name': \.\.\.}: the argument model sets that"):
        _compare(tmp_path, _frame(), "majority", settings={"model": {"init": "gpt2", "name": "gpt2"}})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seed": -1}, "seed=-1: expected one whole number from 0."),
        ({"seed": [0, 1]}, "seed=[0, 1]: expected one whole number from 0."),
        ({"seed": None}, "seed=None: expected one whole number from 0."),
        ({"strategy": ["head_only", "full"]}, "strategy=['head_only', 'full']: expected a name of `ftbench list`"),
        ({"validation_fraction": None}, "validation_fraction=None: expected a fraction such as 0.1."),
        ({"validation_fraction": "x"}, "validation_fraction='x': expected a fraction such as 0.1."),
        ({"settings": 3}, "settings=3: expected keys of the configuration"),
        ({"settings": {"data.split": "grouped"}}, "the argument validation_fraction sets that"),
        ({"settings": {"strategy": "full"}}, "the argument strategy sets that; give strategy=..."),
        ({"settings": {"data": {"name": "sms_spam"}}}, "settings={'data.name': ...}: the argument X sets that"),
    ],
)
def test_what_a_classifier_can_not_be_fitted_with_is_refused(given: dict[str, Any], message: str) -> None:
    frame = _frame()
    with pytest.raises(UserError) as refused:
        TextClassifier(**{"model": "mini", **given}).fit(frame["text"], frame["label"])
    assert isinstance(refused.value, ValueError)
    assert message in str(refused.value)


def test_plots_and_predictions_that_there_are_not_are_refused(tmp_path: Path) -> None:
    made = _compare(tmp_path, _frame(), "majority", model="mini")
    with pytest.raises(UserError, match="unknown plot None of this comparison"):
        made.plot(None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match="unknown strategy 3 of this comparison: Known are majority"):
        made.predictions(3)  # pyright: ignore[reportArgumentType]
    for table in (9, -1, "x"):
        with pytest.raises(UserError, match=f"plot\\(table={table!r}\\): expected a number from 0 to 0:"):
            made.plot(table=table)  # pyright: ignore[reportArgumentType]
