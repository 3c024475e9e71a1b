"""`ftbench gate`, on a small suite."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from harness.gate import checks as gate_checks
from harness.gate import reference as gate_reference
from harness.gate import suite as gate
from tests.support.gate_suite import use_suite


@pytest.fixture
def small_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_suite(monkeypatch, tmp_path, 400, 2, ["head_only"])
    monkeypatch.setattr(gate, "COST_PROCESSES", 1)


@pytest.mark.long
@pytest.mark.usefixtures("small_suite")
def test_the_command_updates_compares_and_alarms(
    run_cli: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_cli("gate")[0] == 2, "no reference"
    assert run_cli("gate", "--update", "")[0] == 2
    assert run_cli("gate", "--update", "a test")[0] == 0
    monkeypatch.setattr(gate_checks, "LEAST_SPEED", 0.01)  # a busy machine is no subject of this test
    monkeypatch.setattr(gate_checks, "MOST_MEMORY", 100.0)
    code, out, _ = run_cli("gate")
    assert (code, "No regression" in out) == (0, True)
    assert json.loads((tmp_path / "results" / "gate.json").read_text())["alarm"] is False

    path = tmp_path / "reference" / "reference.json"
    content = path.read_text()
    path.write_text(content.replace('"trainable_parameters": 258', '"trainable_parameters": 257'))
    code, out, _ = run_cli("gate")
    assert (code, "Regression: parameters of head_only" in out) == (1, True)
    assert json.loads((tmp_path / "results" / "gate.json").read_text())["alarm"] is True
    assert "| parameters | head_only | 257 | 258 |" in (tmp_path / "results" / "gate.md").read_text()


@pytest.mark.long
@pytest.mark.usefixtures("small_suite")
def test_another_suite_than_the_references_is_refused(run_cli: Callable, tmp_path: Path) -> None:
    assert run_cli("gate", "--update", "a test")[0] == 0
    path = tmp_path / "reference" / "reference.json"
    path.write_text(path.read_text().replace('"epochs": 20', '"epochs": 7'))
    code, _, told = run_cli("gate")
    assert (code, "training.epochs: reference 7; now 20" in told) == (2, True)


def test_the_committed_reference_fits_its_suite() -> None:
    reference = gate_reference.read_reference(gate.chosen(None, None))
    suite = yaml.safe_load(gate.SUITE.read_text())
    assert {(run.row, run.seed) for run in reference.runs} == {
        (row["strategy"], seed) for row in suite["rows"] for seed in suite["seed"]
    }
    assert min(run.messages for run in reference.runs) >= 2_000
    assert (gate.REFERENCE / "reference.json").stat().st_size < 500_000
