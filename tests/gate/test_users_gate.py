"""`ftbench gate` on a suite and a csv of one's own."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from harness.gate import suite
from harness.gate.suite import GateSuite
from harness.model import split
from harness.training.engines import ddp

SUITE = {
    "model": {"name": "mini"},
    "data": {"name": "reviews.csv"},
    "seed": [0, 1, 2, 3, 4],
    "metric": "macro_f1",
    "training": {"epochs": 3, "batch_size": 16},
    "optimizer": {"learning_rate": 1e-3},
    "rows": [
        {"name": "trained", "strategy": "last_block"},
        {"name": "words", "strategy": "tfidf", "seed": 0},
    ],
}


def write_reviews(folder: Path, texts: int = 400) -> None:
    """A csv whose label is a word of the text."""
    drawn, lines = random.Random(0), ["text,label"]
    for number in range(texts):
        label, word = ("spam", "free prize") if number % 2 else ("ham", "see you")
        words = [drawn.choice(("call", "now", "today", "me", "the", "at", "home")) for _ in range(6)]
        lines.append(f"{' '.join([*words[:3], word, *words[3:]])},{label}")
    (folder / "reviews.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def users_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_cli: Callable) -> Callable:
    """The command in a folder with a suite and its data; called with the keys of the suite that differ."""
    monkeypatch.chdir(tmp_path)
    write_reviews(tmp_path)

    def run(*arguments: str, **changed: object) -> tuple[int, str, str]:
        Path("my.yaml").write_text(yaml.safe_dump(SUITE | changed))
        return run_cli("gate", "--config", "my.yaml", "--reference", "ref", "--cache", "cache", *arguments)

    return run


def _findings(folder: Path) -> dict[tuple[str, str], str]:
    found = json.loads((folder / "results" / "gate.json").read_text())
    return {(one["check"], one["row"]): one["verdict"] for one in found["findings"]}


def _no_learning(set_learning_rate: Callable) -> Callable:
    return lambda optimizer, rate: set_learning_rate(optimizer, 0.0)


def test_an_unchanged_run_passes_and_a_sabotaged_one_alarms(
    users_gate: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = users_gate("--update", "a test")
    assert (code, "points of the accuracy of trained (5 seeds, 80 test messages" in out) == (0, True)
    code, out, _ = users_gate()
    assert (code, "No regression" in out) == (0, True)
    assert out.index("In at least 8 of 10 cases") < out.index("[1/6]"), "before it runs"
    assert _findings(tmp_path) == {
        (check, row): "same"
        for row, checks in {
            "trained": ("accuracy", "macro_f1", "losses", "parameters"),
            "words": ("accuracy", "macro_f1", "parameters"),
        }.items()
        for check in checks
    }
    assert "cases this gate sees" in (tmp_path / "results" / "gate.md").read_text()
    assert not list((tmp_path / "results" / "gate").glob("features-*"))

    monkeypatch.setattr(ddp, "set_learning_rate", _no_learning(ddp.set_learning_rate))
    code, out, _ = users_gate()
    assert (code, "Regression: " in out) == (1, True)
    alarming = {key for key, verdict in _findings(tmp_path).items() if verdict == "regression"}
    assert alarming == {("accuracy", "trained"), ("macro_f1", "trained"), ("losses", "trained")}


def test_features_of_an_earlier_run_hide_no_change(
    users_gate: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_cli: Callable
) -> None:
    assert users_gate("--update", "a test", seed=0)[0] == 0
    assert run_cli("run", "--config", "my.yaml", "--cache", "cache", results=tmp_path / "other")[0] == 0
    assert list((tmp_path / "cache" / "features").glob("*.features"))
    right = split.Prefix.features
    monkeypatch.setattr(split.Prefix, "features", lambda *given, **named: 0.5 * right(*given, **named))
    assert users_gate(seed=0)[0] == 1


def test_one_seed_is_compared_by_messages(
    users_gate: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = users_gate("--update", "a test", seed=7)
    assert (code, "accuracy of trained (1 seed, 80 test messages" in out) == (0, True)
    assert users_gate(seed=7)[0] == 0
    monkeypatch.setattr(ddp, "set_learning_rate", _no_learning(ddp.set_learning_rate))
    assert users_gate(seed=7)[0] == 1
    assert _findings(tmp_path)["accuracy", "trained"] == "regression"


def test_what_cant_be_compared_is_refused_before_anything_runs(users_gate: Callable, tmp_path: Path) -> None:
    code, out, told = users_gate()
    assert (code, "ref/reference.json' can't be read" in told, "[1/" in out) == (2, True, False)
    assert f"{GateSuite(Path('my.yaml'), Path('ref')).update_command}" in told
    assert users_gate("--update", " ")[0] == 2
    assert users_gate("--update", "a test", tune="lr", rows=None)[0] == 2
    assert users_gate("--update", "a test", seed=0)[0] == 0
    for changed, named in (
        ({"seed": 1}, "trained seed 0, words seed 0; now trained seed 1"),
        ({"seed": 0, "training": {"epochs": 1}}, "training.epochs: reference 3; now 1"),
        ({"seed": 0, "model": {"name": "mini", "weights": "random"}}, "weights (sha256): reference"),
    ):
        code, out, told = users_gate(**changed)
        assert (code, named in told, "[1/" in out) == (2, True, False), told
    write_reviews(tmp_path, 300)
    code, out, told = users_gate(seed=0)
    assert (code, "data (sha256): reference" in told, "[1/" in out) == (2, True, False)
    (tmp_path / "file").touch()
    assert users_gate("--update", "a test", "--reference", "file/ref")[0] == 2


@pytest.mark.parametrize(
    ("given", "named"), [(["--config", "my.yaml"], "REFERENCE"), (["--reference", "ref"], "CONFIG")]
)
def test_one_of_config_and_reference_alone_is_refused(run_cli: Callable, given: list[str], named: str) -> None:
    code, out, told = run_cli("gate", *given)
    assert (code, out, f"without {named}: " in told) == (2, "", True)


def test_costs_belong_to_the_reference(users_gate: Callable) -> None:
    code, _, told = users_gate("--costs")
    assert (code, "COSTS=1 belongs to gate-update" in told) == (2, True)
    code, _, told = users_gate("--update", "a test", "--costs", training={"epochs": 1, "batch_size": 64})
    assert (code, "COSTS=1: row 'trained' has 4 training steps" in told) == (2, True)
    code, _, told = users_gate("--update", "a test", "--costs", rows=[SUITE["rows"][1]])
    assert (code, "COSTS=1: no row" in told) == (2, True)


@pytest.mark.long
def test_memory_and_speed_are_compared_where_the_reference_has_them(
    users_gate: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite, "USERS_COST_SEEDS", range(1_000, 1_002))
    assert users_gate("--update", "a test", "--costs", seed=0)[0] == 0
    path = tmp_path / "ref" / "reference.json"
    tree = json.loads(path.read_text())
    assert {cost["row"] for cost in tree["costs"]} == {"trained"}
    for cost in tree["costs"]:
        cost["memory"] *= 0.4
    path.write_text(json.dumps(tree))
    assert users_gate(seed=0)[0] == 1
    assert _findings(tmp_path)["memory", "trained"] == "regression"
    assert ("speed", "trained") in _findings(tmp_path)
