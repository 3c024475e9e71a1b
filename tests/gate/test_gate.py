"""The gate: silent where nothing is worse, an alarm where something is, a clear refusal where nothing can be said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from harness.errors import UserError
from harness.gate import checks as gate_checks
from harness.gate import measurement as gate
from harness.gate.checks import Finding, alarms, compare
from harness.gate.measurement import Cost, Measurement, Run, check_comparable
from harness.model import split
from harness.model.attention import Attended
from harness.model.backbone import run_stages
from harness.training import loop as train
from harness.training.engines import ddp, optimizer
from tools.simulated_regressions import lowered, swollen

SEEDS, MESSAGES, STEPS = 5, 2_000, 400


def _made(rates: dict[str, float], seed: int = 0) -> Measurement:
    """As if strategies had been right at `rates`, the same messages being hard for all seeds."""
    random = np.random.default_rng(seed)
    runs = []
    for strategy, rate in rates.items():
        hard = random.random(MESSAGES) > rate
        for number in range(SEEDS):
            right = hard ^ (random.random(MESSAGES) > 0.02)
            losses = 0.7 * np.exp(-np.arange(STEPS) / 200) + random.uniform(0, 0.2, STEPS)
            runs.append(_run(strategy, number, right, losses.tolist()))
    costs = [Cost(strategy="last_block", seed=n, config={"plain": False}, memory=0.4, speed=9.0) for n in range(10)]
    return Measurement(finished_at="2026-01-01", environment={}, runs=runs, costs=costs)


def _run(strategy: str, seed: int, right: np.ndarray, losses: list[float]) -> Run:
    return Run(
        strategy=strategy,
        seed=seed,
        config={"model": {"name": "mini"}, "training": {"epochs": 1}},
        weights_sha256="a" * 64,
        data_sha256="b" * 64,
        trainable_parameters=258,
        messages=len(right),
        messages_sha256="d" * 64,
        correct=np.packbits(right).tobytes().hex(),
        losses=losses,
    )


def _changed(measured: Measurement, strategy: str = "last_block", **update: object) -> Measurement:
    runs = [run.model_copy(update=update) if run.strategy == strategy else run for run in measured.runs]
    return measured.model_copy(update={"runs": runs})


def _verdicts(findings: list[Finding]) -> dict[tuple[str, str], str]:
    """Of what is not `same`."""
    return {(one.check, one.strategy): one.verdict for one in findings if one.verdict != "same"}


@pytest.fixture(scope="module")
def reference() -> Measurement:
    return _made({"head_only": 0.7, "last_block": 0.96})


def test_a_run_equals_itself(reference: Measurement) -> None:
    check_comparable(reference, reference)
    findings = compare(reference, reference)
    assert {one.check for one in findings} == {"accuracy", "losses", "parameters", "memory", "speed"}
    assert _verdicts(findings) == {}


@pytest.mark.parametrize("strategy", ["head_only", "last_block"])
def test_three_points_less_of_one_strategy_are_seen_and_as_many_more_told(reference: Measurement, strategy) -> None:
    worse = lowered(reference, [strategy], np.random.default_rng(0))
    assert _verdicts(compare(reference, worse)) == {("accuracy", strategy): "regression"}
    findings = compare(worse, reference)
    assert _verdicts(findings) == {("accuracy", strategy): "better"}
    assert not alarms(findings)


def test_as_many_right_answers_on_other_messages_are_no_regression(reference: Measurement) -> None:
    (head_only, *_) = (run for run in reference.runs if run.strategy == "head_only")
    shifted = _changed(reference, "head_only", correct=np.packbits(np.roll(head_only.answers(), 1)).tobytes().hex())
    assert ("accuracy", "head_only") not in _verdicts(compare(reference, shifted))


def test_losses_off_their_band_alarm_unless_they_end_lower(reference: Measurement) -> None:
    def moved(change: Callable[[np.ndarray], np.ndarray]) -> dict:
        runs = [
            run.model_copy(update={"losses": change(np.array(run.losses)).tolist()}) if run.seed == 3 else run
            for run in reference.runs
        ]
        return _verdicts(compare(reference, reference.model_copy(update={"runs": runs})))

    both = [("losses", "head_only"), ("losses", "last_block")]
    window = slice(gate_checks.LOSS_WINDOW, 2 * gate_checks.LOSS_WINDOW)
    assert moved(lambda losses: losses + 0.9 * gate_checks.LOSS_BAND) == {}
    assert moved(lambda losses: _added(losses, window, 1.1 * gate_checks.LOSS_BAND)) == dict.fromkeys(
        both, "regression"
    )
    assert moved(lambda losses: _added(losses, window, -1.1 * gate_checks.LOSS_BAND)) == dict.fromkeys(
        both, "regression"
    )
    assert moved(lambda losses: losses / 2) == dict.fromkeys(both, "better")
    assert moved(lambda losses: losses[:-1]) == dict.fromkeys(both, "regression")


def _added(losses: np.ndarray, window: slice, amount: float) -> np.ndarray:
    losses = losses.copy()
    losses[window] += amount
    return losses


def test_trainable_parameters_memory_and_speed(reference: Measurement) -> None:
    assert _verdicts(compare(reference, _changed(reference, trainable_parameters=257))) == {
        ("parameters", "last_block"): "regression"
    }
    assert _verdicts(compare(reference, swollen(reference))) == {("memory", "last_block"): "regression"}
    assert _verdicts(compare(swollen(reference), reference)) == {("memory", "last_block"): "better"}
    slow = [cost.model_copy(update={"speed": cost.speed / 3}) for cost in reference.costs]
    slower = reference.model_copy(update={"costs": slow})
    assert _verdicts(compare(reference, slower)) == {("speed", "last_block"): "regression"}


def test_one_wild_run_is_no_regression(reference: Measurement) -> None:
    wild = reference.costs[0].model_copy(update={"memory": 20.0, "speed": 0.01})
    once = reference.model_copy(update={"costs": [wild, *reference.costs[1:]]})
    assert _verdicts(compare(reference, once)) == {}


@pytest.mark.parametrize(
    ("update", "parts"),
    [
        ({"weights_sha256": "c" * 64}, ["weights", "a" * 12, "c" * 12]),
        ({"data_sha256": "c" * 64}, ["data", "b" * 12, "c" * 12]),
        ({"messages_sha256": "c" * 64, "messages": 9}, ["test messages", "d" * 12, "c" * 12]),
        ({"config": {"model": {"name": "mini"}, "training": {"epochs": 2}}}, ["training.epochs", "1", "2"]),
        ({"seed": 9}, ["configuration", "last_block seed 9"]),
    ],
)
def test_what_cant_be_compared_is_refused_by_name(reference: Measurement, update: dict, parts: list[str]) -> None:
    with pytest.raises(UserError) as refused:
        check_comparable(reference, _changed(reference, **update))
    assert all(part in str(refused.value) for part in [*parts, "gate-update"])


def test_a_reference_is_written_with_its_reason_and_read_back(reference: Measurement, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs a reason"):
        gate.write_reference(tmp_path, reference, " ")
    path = gate.write_reference(tmp_path, reference, "a better head")
    assert json.loads(path.read_text())["reason"] == "a better head"
    assert gate.read_reference(tmp_path) == reference.model_copy(update={"reason": "a better head"})


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "No such file"),
        ("", "no JSON"),
        ("{}", "empty"),
        ('{"schema_version": 1, "runs": [], "costs": []}', "empty"),
        ('{"schema_version": 99, "runs": [1], "costs": [1]}', "schema_version 99"),
        ('{"schema_version": 2, "record_schema_version": 1, "runs": [1], "costs": [1]}', "record_schema_version 1"),
        ('{"schema_version": 2, "record_schema_version": 2, "runs": [1], "costs": [1]}', "damaged"),
    ],
)
def test_a_reference_that_says_nothing_is_refused(tmp_path: Path, content: str | None, told: str) -> None:
    if content is not None:
        (tmp_path / "reference.json").write_text(content)
    with pytest.raises(UserError, match=told) as refused:
        gate.read_reference(tmp_path)
    assert "gate-update" in str(refused.value)


# The command, on a suite of its own


def _use_suite(monkeypatch: pytest.MonkeyPatch, folder: Path, size: int, seeds: int, strategies: list[str]) -> None:
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


def test_the_command_updates_compares_alarms_and_refuses(
    run_cli: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use_suite(monkeypatch, tmp_path, 400, 2, ["head_only"])
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

    path.write_text(content.replace('"epochs": 20', '"epochs": 7'))
    code, _, told = run_cli("gate")
    assert (code, "training.epochs: reference 7; now 20" in told) == (2, True)


def test_the_committed_reference_fits_its_suite() -> None:
    reference = gate.read_reference(gate.REFERENCE)
    suite = yaml.safe_load(gate.SUITE.read_text())
    assert {(run.strategy, run.seed) for run in reference.runs} == {
        (row["strategy"], seed) for row in suite["rows"] for seed in suite["seed"]
    }
    assert min(run.messages for run in reference.runs) >= 2_000
    assert (gate.REFERENCE / "reference.json").stat().st_size < 500_000


# Real sabotage: the code is broken in memory, and the gate's small suite runs again


def _no_learning(monkeypatch: pytest.MonkeyPatch) -> None:
    def adamw(named, config, fused):
        return optimizer.adamw(named, config.model_copy(update={"learning_rate": 0.0}), fused)

    monkeypatch.setattr(ddp, "adamw", adamw)


def _no_weight_decay(monkeypatch: pytest.MonkeyPatch) -> None:
    def adamw(named, config, fused):
        return optimizer.adamw(named, config.model_copy(update={"weight_decay": 0.0}), fused)

    monkeypatch.setattr(ddp, "adamw", adamw)


def _readout_off_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(stages, hidden, rows, readout, plain=False):
        hidden, rows = rows.apart(run_stages(stages, hidden, rows))
        return hidden[rows.starts + rows.lengths - 2]

    monkeypatch.setattr(split, "read", read)


def _padding_attended(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = Attended.mask

    def all_cells(self):
        rows = self.rows
        return mask(self) if self.read_at is None else torch.ones(len(rows.lengths), 1, 1, rows.width, dtype=torch.bool)

    monkeypatch.setattr(Attended, "mask", all_cells)


def _last_block_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    named_stages = split._named_stages
    monkeypatch.setattr(
        split, "_named_stages", lambda stages, name: [] if name.startswith("block") else named_stages(stages, name)
    )


def _labels_swapped(monkeypatch: pytest.MonkeyPatch) -> None:
    micro_batch = train._micro_batch

    def swapped(*arguments):
        made = micro_batch(*arguments)
        made.labels[:2] = made.labels[:2].flip(0)
        return made

    monkeypatch.setattr(train, "_micro_batch", swapped)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Measurement:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("honest")
        _use_suite(patch, folder, 3_000, 3, ["head_only", "last_block"])
        return gate.rerun(folder / "results")


@pytest.mark.long
@pytest.mark.parametrize(
    ("sabotage", "seen_by"),
    [
        (
            _no_learning,
            {"accuracy of head_only", "accuracy of last_block", "losses of head_only", "losses of last_block"},
        ),
        (_no_weight_decay, {"losses of head_only", "losses of last_block"}),
        (_readout_off_by_one, {"losses of head_only", "losses of last_block"}),
        (_padding_attended, {"losses of head_only", "losses of last_block"}),
        (_last_block_frozen, {"accuracy of last_block", "losses of last_block", "parameters of last_block"}),
        (_labels_swapped, {"losses of head_only", "losses of last_block"}),
    ],
)
def test_sabotage_is_seen(
    sabotage: Callable, seen_by: set[str], honest: Measurement, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use_suite(monkeypatch, tmp_path, 3_000, 3, ["head_only", "last_block"])
    sabotage(monkeypatch)
    findings = compare(honest, gate.rerun(tmp_path / "results"))
    alarming = {f"{one.check} of {one.strategy}" for one in findings if one.verdict == "regression"}
    for one in findings:
        print(one)
    assert seen_by <= alarming
