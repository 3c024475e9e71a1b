"""`ftbench data`: one screen on a data set, before any run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier

from harness.config.schema import DataConfig
from harness.data.dataset import load_dataset
from harness.data.tokenizer import load_tokenizer
from tests.support.data_files import Form, rows_of, write


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """80 texts, of which one stands there three times, once with another label, and one is long."""
    rows = rows_of(np.random.default_rng(0), 77, classes=3)
    odd = [(rows[0][0], "kind0"), (rows[0][0], "kind1"), ("word " * 300, "kind2")]
    return write(tmp_path, [*rows, *odd], Form(delimiter=";"))


def test_the_screen_says_what_is_in_the_file(run_cli: Callable, file: Path, tmp_path: Path) -> None:
    code, out, told = run_cli("data", str(file), "--model", "mini", "--json", results=None)
    assert (code, told) == (0, "")
    found, split = json.loads(out), load_dataset(DataConfig(name=str(file)), tmp_path).split
    assert found["sizes"] == {name: len(part) for name, part in split.items()}
    assert found["classes"] == {
        label: {name: int((part["label"] == label).sum()) for name, part in split.items()}
        for label in ("kind0", "kind1", "kind2")
    }
    assert "separated by semicolons" in found["notes"]
    assert found["repeats"]["contradicting"] == [1, 3]
    train, test = (split[name]["text"] for name in ("train", "test"))
    assert found["repeats"]["across"]["test in train"] == sum(text in set(train) for text in test)
    assert found["repeats"]["within"]["train"] == len(train) - train.nunique()
    texts = [text for part in split.values() for text in part["text"]]
    lengths = sorted(map(len, load_tokenizer("mini", tmp_path, None).encode(texts)))
    assert found["lengths"]["percentiles"]["100"] == lengths[-1] > 256
    assert found["lengths"]["percentiles"]["50"] == lengths[39]
    assert (found["lengths"]["limit"], found["lengths"]["cut"]) == (256, 1)
    majority = DummyClassifier().fit(train, split["train"]["label"]).score(test, split["test"]["label"])
    assert found["baselines"]["majority"] == pytest.approx(majority)


def test_the_baselines_are_those_of_a_run(run_cli: Callable, run_here: Callable, file: Path) -> None:
    _, out, _ = run_cli("data", str(file), "--model", "mini", "--json", results=None)
    names = ["majority", "length_rule", "first_token_lookup"]
    records = run_here(data__name=str(file), model__name="mini", strategy=names)
    found = json.loads(out)["baselines"]
    assert found == {record.strategy: pytest.approx(record.metrics.test.accuracy) for record in records}


def test_the_screen_is_for_people(run_cli: Callable, file: Path) -> None:
    code, out, _ = run_cli("data", str(file), "--model", "mini", "--set", "data.max_tokens=20", results=None)
    assert code == 0
    for part in (
        "80 texts, 3 classes",
        "text 'text', label 'label'",
        "kind1",
        "beyond 20, cut",
        "Contradictions: 1 (texts with several labels), in 3 rows",
    ):
        assert part in out
    command = f"make bench STRATEGY=all DATA={file} MODEL=mini SET=data.max_tokens=20"
    assert command in out.replace("\n", "")


def test_it_needs_no_pytorch(file: Path) -> None:
    code = (
        f"from harness.cli import app; import sys; app({['data', str(file), '--model', 'mini']}, standalone_mode=False)"
    )
    command = [sys.executable, "-c", f"{code}; print('torch' in sys.modules)"]
    assert subprocess.check_output(command, text=True).splitlines()[-1] == "False"


@pytest.mark.parametrize("given", ["nowhere.csv", "data.xlsx"])
def test_wrong_input_is_told_in_words(run_cli: Callable, given: str) -> None:
    code, _, told = run_cli("data", given, results=None)
    assert code == 2
    assert given in told
