"""Metrics, clocks and memory meters: what they leave out, and what they must see."""

from __future__ import annotations

import mmap
import threading
import time

import numpy as np
import pytest
import torch
import torch.distributed as dist
from scipy.special import softmax
from sklearn.metrics import classification_report, roc_auc_score

from harness.measure import memory
from harness.measure.clock import WARM_UP_STEPS, Clock, Step, step_milliseconds, throughput
from harness.measure.communication import measure_communication
from harness.measure.memory import MemoryMeter, anonymous_bytes
from harness.statistics import expected_calibration_error
from harness.training.evaluation import measure

CPU = torch.device("cpu")


def test_warm_up_steps_do_not_count() -> None:
    clock = Clock(CPU)
    clock.steps = [Step(1000.0, 8, 100, 200)] * WARM_UP_STEPS + [Step(0.5, 8, 100, 200)] * 4
    assert throughput([clock.steady_steps()]).model_dump() == {
        "examples_per_second": 16,
        "real_tokens_per_second": 200,
        "padded_tokens_per_second": 400,
    }
    assert step_milliseconds(clock.steady_steps()).model_dump() == {"p50": 500, "p95": 500}


def test_a_run_within_the_warm_up_has_no_throughput() -> None:
    clock = Clock(CPU, steps=[Step(1.0, 8, 100, 200)] * WARM_UP_STEPS)
    assert set(throughput([clock.steady_steps()]).model_dump().values()) == {None}
    assert step_milliseconds(clock.steady_steps()).model_dump() == {"p50": None, "p95": None}


def test_ranks_add_up_and_the_slowest_sets_the_time() -> None:
    fast, slow = [Step(1.0, 4, 10, 20)], [Step(2.0, 4, 30, 40)]
    assert throughput([fast, slow]).model_dump() == {
        "examples_per_second": 4,
        "real_tokens_per_second": 20,
        "padded_tokens_per_second": 30,
    }


def test_phases_add_up_their_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([1.0, 3.0, 10.0, 14.5, 20.0, 20.25])
    monkeypatch.setattr(time, "perf_counter", lambda: next(readings))
    clock = Clock(CPU)
    for name in ("train", "train", "evaluate"):
        with clock.phase(name):
            pass
    assert clock.phases == {"train": 6.5, "evaluate": 0.25}


def test_the_peak_of_a_phase_is_seen_after_the_memory_is_freed_and_not_in_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    meter, sampled = MemoryMeter(CPU), threading.Event()

    def observed() -> int:
        held = anonymous_bytes()
        sampled.set()
        return held

    monkeypatch.setattr(memory, "anonymous_bytes", observed)
    # A mapping of our own goes back to the system whatever the allocator keeps.
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS}
    with meter.phase("large"), mmap.mmap(-1, 100_000_000, **private) as block:
        for start in range(0, 100_000_000, mmap.PAGESIZE):
            block[start] = 1
        for _ in range(2):  # a first one may have begun before
            sampled.clear()
            assert sampled.wait(60)
    with meter.phase("small"):
        pass
    grown = meter.peaks["large"] - meter.at_start
    assert 90_000_000 < grown < 200_000_000
    assert meter.peaks["small"] < meter.peaks["large"] - 50_000_000


def test_a_mapped_file_is_no_memory_of_ours(tmp_path) -> None:
    path = tmp_path / "mapped"
    path.write_bytes(bytes(100_000_000))
    meter = MemoryMeter(CPU)
    with meter.phase("mapped"):
        assert np.memmap(path, dtype=np.uint8, mode="r").sum() == 0
    assert meter.peaks["mapped"] - meter.at_start < 50_000_000


def test_metrics_of_known_logits() -> None:
    logits = np.log(np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]))
    metrics = measure(logits, np.array([0, 1, 1]), ["ham", "spam"])
    assert (metrics.correct, metrics.total) == (2, 3)
    assert metrics.loss == pytest.approx(-np.log([0.9, 0.8, 0.4]).mean())


@pytest.mark.parametrize("classes", [2, 4])
def test_f1_and_roc_auc_are_scikit_learns(classes: int) -> None:
    draw = np.random.default_rng(classes)
    logits, labels = draw.normal(size=(200, classes)), draw.integers(classes, size=200)
    names = [f"class {number}" for number in range(classes)]
    metrics, shares = measure(logits, labels, names), softmax(logits, axis=1)
    report = classification_report(labels, logits.argmax(axis=1), target_names=names, output_dict=True)
    assert metrics.f1 == pytest.approx({name: report[name]["f1-score"] for name in names})
    scores = shares[:, 1] if classes == 2 else shares
    assert metrics.roc_auc == pytest.approx(roc_auc_score(labels, scores, multi_class="ovr"))


def test_metrics_where_a_class_is_missing() -> None:
    logits = np.log(np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]]))
    names = ["a", "b", "c"]
    one_class = measure(logits, np.array([1, 1]), names)
    assert one_class.roc_auc is None
    assert one_class.f1 == pytest.approx({"a": 0, "b": 2 / 3, "c": 0})
    assert measure(logits, np.array([0, 1]), names).roc_auc == 1, "the class that does not occur has no share in it"


def test_calibration_error_by_hand() -> None:
    """Two of three at 0.9 are right, one of two at 0.7: (3 * |2/3 - 0.9| + 2 * |1/2 - 0.7|) / 5."""
    shares = np.array([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1], [0.7, 0.3], [0.3, 0.7]])
    assert expected_calibration_error(shares, np.array([0, 1, 1, 0, 0])) == pytest.approx(0.22)
    certain = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert expected_calibration_error(certain, np.array([0, 1])) == 0
    assert expected_calibration_error(certain, np.array([1, 0])) == 1
    edges = np.array([[0.6, 0.4], [0.65, 0.35]])  # with ten bins both lie in (0.6, 0.7] but the first, on its edge
    assert expected_calibration_error(edges, np.array([0, 1]), bins=10) == pytest.approx((0.4 + 0.65) / 2)


def test_what_is_exchanged_counts_in_its_own_type() -> None:
    """As ZeRO 3 gathers frozen matrices in bfloat16, beside gradients in float32."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        half, whole = torch.ones(1000, dtype=torch.bfloat16), torch.ones(10)

        def step() -> None:
            dist.all_reduce(half)
            dist.broadcast(whole, 0)

        measured = measure_communication(step, element_bytes=4, device=torch.device("cpu"))
    finally:
        dist.destroy_process_group()
    assert measured.bytes_by_collective == {"all_reduce": 2000, "broadcast": 40}
