"""The gate: silent where nothing is worse, an alarm where something is, a clear refusal where nothing can be said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.config.schema import DataConfig, RunConfig
from harness.errors import UserError
from harness.gate import checks as gate_checks
from harness.gate import reference as gate_reference
from harness.gate.checks import Finding, alarms, compare
from harness.gate.measurement import Cost, Measurement, Run
from harness.gate.reference import check_comparable
from harness.gate.suite import GateSuite, chosen
from tools.simulated_regressions import lowered, swollen

SEEDS, MESSAGES, STEPS = 5, 2_000, 400
OWN = chosen(None, None)


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
    costs = [Cost(row="last_block", seed=n, config={"plain": False}, memory=0.4, speed=9.0) for n in range(10)]
    return Measurement(finished_at="2026-01-01", environment={}, runs=runs, costs=costs)


def _run(strategy: str, seed: int, right: np.ndarray, losses: list[float]) -> Run:
    return Run(
        row=strategy,
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


def _check_comparable(reference: Measurement, measured: Measurement) -> None:
    check_comparable(OWN, reference, measured.runs, measured.costs)


def _changed(measured: Measurement, strategy: str = "last_block", **update: object) -> Measurement:
    runs = [run.model_copy(update=update) if run.row == strategy else run for run in measured.runs]
    return measured.model_copy(update={"runs": runs})


def _verdicts(findings: list[Finding]) -> dict[tuple[str, str], str]:
    """Of what is not `same`."""
    return {(one.check, one.row): one.verdict for one in findings if one.verdict != "same"}


@pytest.fixture(scope="module")
def reference() -> Measurement:
    return _made({"head_only": 0.7, "last_block": 0.96})


def test_a_run_equals_itself(reference: Measurement) -> None:
    _check_comparable(reference, reference)
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
    (head_only, *_) = (run for run in reference.runs if run.row == "head_only")
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


@pytest.mark.parametrize(
    ("then", "now", "config", "told"),
    [
        ({}, {}, {}, None),
        ({"code_sha256": "a", "cores": 2}, {"code_sha256": "b", "cores": 64}, {}, None),
        ({"processor": "one"}, {"processor": "another"}, {}, "processor one, now another"),
        ({"threads": 1}, {"threads": 2}, {}, "threads 1, now 2"),
        ({"device": "H100"}, {"device": "H100"}, {}, "on a GPU without deterministic=true"),
        ({"device": "H100"}, {"device": "H100"}, {"deterministic": True}, None),
    ],
)
def test_a_users_losses_are_judged_where_the_same_code_gives_the_same_bits(
    reference: Measurement, then: dict, now: dict, config: dict, told: str | None
) -> None:
    machine = {"processor": "one", "cpu_capability": "AVX2", "threads": 1, "device": "cpu", "versions": {"torch": "2"}}
    old, new = (
        _changed(reference, losses=losses, config=config).model_copy(update={"environment": machine | environment})
        for losses, environment in (([0.5] * 50, then), ([0.6] * 50, now))
    )
    seen = {("losses", "last_block"): "not judged" if told else "regression"}
    assert _verdicts(compare(old, new, is_own=False)) == seen
    assert told is None or any(told in one.detail for one in compare(old, new, is_own=False))
    assert _verdicts(compare(old, new)) == {("losses", "last_block"): "regression"}, "the gate's own: on any machine"


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
        _check_comparable(reference, _changed(reference, **update))
    assert all(part in str(refused.value) for part in [*parts, "gate-update"])


def test_places_and_other_rows_of_one_strategy_are_no_reason_to_refuse(reference: Measurement) -> None:
    config = reference.runs[0].config
    moved = config | {"data": {"name": "/elsewhere/my.csv"}, "model": {"name": "mini", "weights": "/elsewhere"}}
    _check_comparable(reference, _changed(reference, config=moved))
    rows = [run.model_copy(update={"row": f"{run.row} again"}) for run in reference.runs]
    twice = reference.model_copy(update={"runs": [*reference.runs, *rows]})
    _check_comparable(twice, twice)
    assert len({one.row for one in compare(twice, twice) if one.check == "accuracy"}) == 4


def test_a_reference_is_written_with_its_reason_and_read_back(reference: Measurement, tmp_path: Path) -> None:
    suite = GateSuite(Path("my.yaml"), tmp_path)
    with pytest.raises(UserError, match=r"needs a reason: make gate-update CONFIG=my\.yaml"):
        gate_reference.write_reference(suite, reference, " ")
    path = gate_reference.write_reference(suite, reference, "a better head")
    assert json.loads(path.read_text())["reason"] == "a better head"
    assert gate_reference.read_reference(suite) == reference.model_copy(update={"reason": "a better head"})


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "No such file"),
        ("", "no JSON"),
        ("{}", "empty"),
        ('{"schema_version": 1, "runs": [], "costs": []}', "empty"),
        ('{"schema_version": 99, "runs": [1], "costs": [1]}', "schema_version 99"),
        ('{"schema_version": 2, "runs": [{}], "costs": []}', "damaged"),
        ('{"schema_version": 3, "record_schema_version": 1, "runs": [1], "costs": [1]}', "record_schema_version 1"),
        ('{"schema_version": 3, "record_schema_version": 2, "runs": [1], "costs": [1]}', "damaged"),
    ],
)
def test_a_reference_that_says_nothing_is_refused(tmp_path: Path, content: str | None, told: str) -> None:
    if content is not None:
        (tmp_path / "reference.json").write_text(content)
    with pytest.raises(UserError, match=told) as refused:
        gate_reference.read_reference(GateSuite(Path("my.yaml"), tmp_path))
    assert f"make gate-update CONFIG=my.yaml REFERENCE={tmp_path}" in str(refused.value)


def test_a_reference_of_schema_version_2_is_compared_as_before(tmp_path: Path) -> None:
    """It named rows by their strategy, and kept neither labels nor predictions nor keys that are younger."""
    run = {"strategy": "full", "seed": 0, "config": {"precision": "fp32", "training": {"epochs": 5}}}
    hashes = dict.fromkeys(("weights_sha256", "data_sha256", "messages_sha256"), "a" * 64)
    run |= {**hashes, "trainable_parameters": 1, "messages": 3, "correct": "a0", "losses": [0.5]}
    cost = {"strategy": "full", "seed": 0, "config": {}, "memory": 0.5, "speed": 2.0}
    tree = {"schema_version": 2, "record_schema_version": 2, "reason": "old", "finished_at": "2026-01-01"}
    (tmp_path / "reference.json").write_text(json.dumps(tree | {"environment": {}, "runs": [run], "costs": [cost]}))
    old = gate_reference.read_reference(GateSuite(Path("my.yaml"), tmp_path))
    config = RunConfig(strategy="full", precision="fp32", data=DataConfig(pair=False))
    config = config.model_dump(mode="json", exclude={"seed"})
    new = _changed(old, "full", config=config, labels=[0, 1, 0], predicted=[0, 0, 0])
    _check_comparable(old, new)
    assert _verdicts(compare(old, new, "macro_f1")) == {}
    with pytest.raises(UserError, match="configuration strategy: reference 'full'; now 'lora'"):
        _check_comparable(old, _changed(new, "full", config=config | {"strategy": "lora"}))
