"""What a run is made of: file, options and assignments, and what is said about a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.config.command_line import parse_seeds, split_assignments, typed
from harness.config.schema import RunConfig
from harness.config.suite import load_suite
from harness.errors import UserError
from tests.support.runs import ROOT


@pytest.mark.parametrize(
    ("given_seeds", "expected"),
    [("0", [0]), ("0,1,2", [0, 1, 2]), ("7, 3", [7, 3]), ("0..3", [0, 1, 2, 3]), ("4..4", [4])],
)
def test_seeds(given_seeds: str, expected: list[int]) -> None:
    assert parse_seeds(given_seeds) == expected


@pytest.mark.parametrize("wrong", ["", "a", "1,", "3..1", "0..", "..3", "1.5", "0,1..3", "0...3"])
def test_wrong_seeds_are_named(wrong: str) -> None:
    with pytest.raises(UserError, match="0,1,2 or a range such as") as caught:
        parse_seeds(wrong)
    assert repr(wrong) in str(caught.value)


def test_nothing_given_is_the_textbooks_run() -> None:
    (run,) = load_suite(None, {}, []).runs()
    assert run == RunConfig()
    assert (run.strategy, run.seed, run.training.epochs, run.training.batch_size) == ("last_block", 0, 5, 8)
    assert run.optimizer.weight_decay == 0.1


def test_assignments_win_over_options_and_options_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "one.yaml"
    file.write_text("strategy: full\ntraining: {epochs: 1, batch_size: 4, drop_last: false}\nseed: [3, 4]\nmodel:\n")
    options = {"training.epochs": 2, "training.batch_size": 16, "model.name": "mini", "strategy": None}
    suite = load_suite(file, options, ["training.epochs=7"])
    assert [(run.strategy, run.seed) for run in suite.runs()] == [("full", 3), ("full", 4)]
    training = suite.runs()[0].training
    assert (training.epochs, training.batch_size, training.drop_last) == (7, 16, False)
    assert suite.runs()[0].model.name == "mini"


def test_the_metric_that_decides_is_the_options_else_the_files_else_accuracy(tmp_path: Path) -> None:
    file = tmp_path / "one.yaml"
    file.write_text("strategy: full\nmetric: macro_f1\n")
    given = [(None, {}), (file, {}), (file, {"metric": None}), (file, {"metric": "mcc"})]
    assert [load_suite(*one, []).metric for one in given] == ["accuracy", "macro_f1", "macro_f1", "mcc"]
    file.write_text("metric: [mcc]\n")
    with pytest.raises(UserError, match=r"METRIC=\['mcc'\]: expected one of accuracy, macro_f1"):
        load_suite(file, {}, [])


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "empty.yaml"
    file.write_text("# nothing\n")
    assert load_suite(file, {}, []) == load_suite(None, {}, [])


def test_runs_are_every_strategy_with_every_seed_on_one_configuration() -> None:
    runs = load_suite(None, {"strategy": ["full", "lora"], "seed": [1, 0], "training.epochs": 2}, []).runs()
    assert [(run.strategy, run.seed) for run in runs] == [("full", 1), ("full", 0), ("lora", 1), ("lora", 0)]
    assert {run.training.epochs for run in runs} == {2}


@pytest.mark.parametrize("written", ["1e-4", "0.0001", "1E-4", "1.0e-04"])
def test_numbers_as_people_write_them(written: str) -> None:
    suite = load_suite(None, {}, [f"optimizer.learning_rate={written}"])
    assert suite.runs()[0].optimizer.learning_rate == pytest.approx(1e-4)


@given(st.floats(min_value=1e-30, max_value=1e30))
@settings(max_examples=50)
def test_any_rate_that_python_prints_is_read(rate: float) -> None:
    assert load_suite(None, {}, [f"optimizer.learning_rate={rate!r}"]).runs()[0].optimizer.learning_rate == rate


@pytest.mark.parametrize(
    ("assignment", "key", "value"),
    [
        ("pad_to=longest", "pad_to", "longest"),
        ("pad_to=120", "pad_to", 120),
        ("pad_to=null", "pad_to", None),
        ("plain=true", "plain", True),
        ("data.name=a=b.csv", "data.name", "a=b.csv"),
        ("adapter.alpha=8", "adapter.alpha", 8.0),
    ],
)
def test_assigned_values(assignment: str, key: str, value: object) -> None:
    (found,) = load_suite(None, {}, [assignment]).runs()
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("assignment", "key", "hint"),
    [
        ("learning_rate=1e-4", "learning_rate", "optimizer.learning_rate"),
        ("training.learning_rate=1e-4", "training.learning_rate", "optimizer.learning_rate"),
        ("optimizer.learning_rat=1e-4", "optimizer.learning_rat", "optimizer.learning_rate"),
        ("training.epoch=1", "training.epoch", "training.epochs"),
        ("redout=last", "redout", "readout"),
        ("precison=fp32", "precison", "precision"),
        ("optimizer.lr=1", "optimizer.lr", "optimizer.learning_rate"),
        ("zzzzz=1", "zzzzz", "training.epochs"),
        ("zzzzz=[1", "zzzzz", "training.epochs"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest(assignment: str, key: str, hint: str) -> None:
    with pytest.raises(UserError, match="unknown configuration key") as caught:
        load_suite(None, {}, [assignment])
    message = str(caught.value)
    assert repr(key) in message
    assert hint in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("assignment", "parts"),
    [
        ("training.epochs=many", ["'training.epochs'", "'many'", "integer"]),
        ("training.epochs=1.5", ["'training.epochs'", "1.5", "integer"]),
        ("training.epochs=-1", ["'training.epochs'", "-1", "greater than or equal to 0"]),
        ("training.batch_size=0", ["'training.batch_size'", "greater than or equal to 1"]),
        ("optimizer.learning_rate=0", ["'optimizer.learning_rate'", "greater than 0"]),
        ("optimizer.learning_rate=inf", ["'optimizer.learning_rate'", "finite"]),
        ("optimizer.weight_decay=nan", ["'optimizer.weight_decay'", "finite"]),
        ("data.split_seed=4294967296", ["'data.split_seed'", "4294967296"]),
        ("data.balance=maybe", ["'data.balance'", "'maybe'", "boolean"]),
        ("model.name=gpt2-mediun", ["'model.name'", "'gpt2-mediun'", "did you mean 'gpt2-medium'?"]),
        ("readout=lst", ["'readout'", "'lst'", "did you mean 'last'?"]),
        ("pad_to=longst", ["'pad_to'", "'longst'", "integer or 'longest'", "did you mean 'longest'?"]),
        ("pad_to=0", ["'pad_to'", "greater than or equal to 1"]),
        ("pad_to=true", ["'pad_to'", "True", "integer"]),
        ("adapter.rank=0", ["'adapter.rank'", "greater than or equal to 1"]),
        ("model=mini", ["'model'", "'mini'", "model.name"]),
        ("seed=x", ["'seed'", "'x'", "integer"]),
        ("seed=-1", ["'seed'", "-1"]),
        ("seed=[0,1,0]", ["0", "twice"]),
        ("seed=[]", ["'seed'", "empty"]),
        ("strategy=[]", ["'strategy'", "empty"]),
        ("strategy=3", ["'strategy'", "3", "string"]),
        ("strategy=[full,lora,full]", ["'full'", "twice"]),
        ("training.epochs", ["'training.epochs'", "key=value"]),
        ("seed.first=1", ["'seed'", "{'first': 1}"]),
    ],
)
def test_a_wrong_value_is_named_with_its_key(assignment: str, parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load_suite(None, {}, [assignment])
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value), "one mistake, one line"


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(UserError) as caught:
        load_suite(None, {"training.epochs": -1, "readout": "middle"}, ["nonsense=1"])
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert all(any(key in line for line in lines) for key in ("training.epochs", "readout", "nonsense"))


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"- full\n- lora\n", "keys and values"),
        (b"strategy: [full\n", "is not YAML: line 2: "),
        (b"strategy: \xff\n", "can't be read"),
        (b"1: 2\n", "unknown configuration key '1'"),
        (b"model: mini\n", "'model' is 'mini'"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"model.name": "mini"}], ids=["alone", "with an option"])
def test_a_wrong_file_is_named(tmp_path: Path, content: bytes, part: str, options: dict) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_suite(file, options, [])
    assert part in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.yaml"):
        load_suite(tmp_path / "absent.yaml", {}, [])


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "configs").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_configuration_that_ships_is_valid_and_changes_something(path: Path) -> None:
    assert load_suite(path, {}, []) != load_suite(None, {}, [])


def test_a_value_in_quotes_may_hold_spaces() -> None:
    assignments = split_assignments(["data.text_column='the text' training.epochs=2", "seed=3"])
    suite = load_suite(None, {}, assignments)
    assert suite.runs()[0].data.text_column == "the text"
    assert (suite.runs()[0].training.epochs, suite.runs()[0].seed) == (2, 3)
    with pytest.raises(UserError, match="close the quotes"):
        split_assignments(["data.text_column='the text"])


def test_a_command_is_told_as_it_is_typed_where_the_user_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"STRATEGY": "all", "SET": "a=1 b=2", "SAVE": "1"}
    monkeypatch.chdir(ROOT)
    assert typed("bench", **given) == 'make bench STRATEGY=all SET="a=1 b=2" SAVE=1'
    monkeypatch.chdir(tmp_path)
    assert typed("bench", **given) == 'ftbench run --strategy all --set "a=1 b=2" --save'
    assert typed("bench", EPOCHS="1") == "ftbench run --epochs 1"
    assert typed("report") == "ftbench report"
