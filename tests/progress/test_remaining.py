"""How long a suite and its runs will take, as told while they run."""

from __future__ import annotations

import numpy as np
import pytest

from harness.progress.remaining import WINDOW_STEPS, Remaining, of_suite

EPOCHS, STEPS = 5, 500


class Simulated:
    """A suite whose steps take known times: what `Remaining` said at each moment beside what was true."""

    def __init__(self, titles: list[str]) -> None:
        self.remaining, self.now = Remaining(titles), 100.0

    def run(
        self, title: str, steps: np.ndarray, evaluation: float, resumed: int = 0, ok: bool = True
    ) -> list[tuple[int, float | None, float]]:
        """steps: seconds of each. Returns steps done, seconds left as told and as they were."""
        self.remaining.run_started(title, EPOCHS, self.now)
        for name in ("prepare", "features", "train"):
            self.now += 0.5
            self.remaining.phase_started(name, self.now)
        told = []
        left = steps[resumed:].sum() + evaluation
        for done in range(resumed + 1, len(steps) + 1):
            self.now += steps[done - 1]
            left -= steps[done - 1]
            if done % 5 == 0:
                self.remaining.progress(done, len(steps), self.now)
                told.append((done, self.remaining.of_run(self.now), left))
        self.remaining.phase_started("evaluate", self.now)
        self.now += evaluation
        self.remaining.run_finished(ok, self.now)
        return told


def _steps(seconds: float = 0.1, seed: int = 0) -> np.ndarray:
    """Texts differ in length by much, and the first steps are slow."""
    times = seconds * np.random.default_rng(seed).uniform(0.4, 1.6, STEPS)
    times[:3] *= 20
    return times


def _errors(told: list[tuple[int, float | None, float]], since: int) -> list[float]:
    return [abs(seconds - left) / left for done, seconds, left in told if done >= since]


def test_time_left_is_right_after_a_tenth_of_training() -> None:
    suite = Simulated(["a", "a", "b"])
    first = suite.run("a", _steps(), evaluation=4.0)
    assert max(_errors(first, since=STEPS // 10)) < 0.2, "nothing is known of evaluation yet"
    second = suite.run("a", _steps(seed=1), evaluation=4.0)
    assert max(_errors(second, since=STEPS // 10)) < 0.1
    other = suite.run("b", _steps(1.0, seed=2), evaluation=40.0)
    assert max(_errors(other, since=STEPS // 10)) < 0.2, "evaluation is known in proportion to training"


def test_a_machine_that_slows_down_is_noticed_within_the_window() -> None:
    steps = _steps(0.5)
    steps[150:] *= 3
    suite = Simulated(["a"])
    told = suite.run("a", steps, evaluation=60.0)
    within = 150 + WINDOW_STEPS + 5
    assert max(_errors(told, since=within)) < 0.2


def test_a_run_that_went_on_from_a_checkpoint_is_timed_from_there() -> None:
    told = Simulated(["a"]).run("a", _steps(), evaluation=4.0, resumed=300)
    assert told[0][1] is None
    assert max(_errors(told, since=350)) < 0.2


def test_time_left_goes_down_between_two_reports_and_never_below_zero() -> None:
    remaining = Remaining(["a"])
    remaining.run_started("a", 1, 0.0)
    assert remaining.of_run(1.0) is None
    assert of_suite([remaining], 1.0) is None
    remaining.phase_started("train", 1.0)
    for done in (5, 10):
        remaining.progress(done, 20, 1.0 + done)
    assert remaining.of_run(11.0) == pytest.approx(10 + 0.4 * 20)
    assert remaining.of_run(14.0) == pytest.approx(7 + 0.4 * 20)
    assert remaining.of_run(99.0) == pytest.approx(0.4 * 20)
    remaining.progress(20, 20, 21.0)
    remaining.phase_started("evaluate", 21.0)
    assert remaining.of_run(23.0) == pytest.approx(0.4 * 20 - 2)
    assert remaining.of_run(99.0) == 0


def test_the_suites_time_is_that_of_like_runs_else_of_all() -> None:
    suite = Simulated(["a", "a", "a", "a", "b", "b"])
    remaining = suite.remaining

    def run(title: str, seconds: float, ok: bool = True) -> None:
        remaining.run_started(title, EPOCHS, suite.now)
        suite.now += seconds
        remaining.run_finished(ok, suite.now)

    run("a", 10)
    assert of_suite([remaining], suite.now) == pytest.approx(5 * 10), "no b has ended yet: as the mean of all"
    run("a", 30)
    run("a", 11)
    assert of_suite([remaining], suite.now) == pytest.approx(11 + 2 * 17)
    run("b", 100)
    assert of_suite([remaining], suite.now) == pytest.approx(11 + 100)
    run("a", 0.1, ok=False)
    assert of_suite([remaining], suite.now) == pytest.approx(100), "a run that failed at once tells nothing"
    remaining.run_started("b", EPOCHS, suite.now)
    assert of_suite([remaining], suite.now + 30) == pytest.approx(70)


def test_before_any_run_has_ended_all_take_as_long_as_the_first() -> None:
    remaining = Remaining(["a", "b", "b"])
    remaining.run_started("a", 1, 0.0)
    remaining.phase_started("train", 2.0)
    for done in (5, 10):
        remaining.progress(done, 20, 2.0 + done)
    left = 10 + 0.4 * 20
    assert of_suite([remaining], 12.0) == pytest.approx(left + 2 * (12 + left))


def test_the_suites_time_is_shared_by_its_jobs() -> None:
    first = Remaining(["a"] * 5)
    second = first.beside()
    for job in (first, second):
        job.run_started("a", 1, 0.0)
    assert of_suite([first, second], 5.0) is None
    first.run_finished(True, 10.0)
    first.run_started("a", 1, 10.0)
    assert first.waiting == second.waiting == ["a", "a"]
    assert of_suite([first, second], 10.0) == pytest.approx((10 + 0 + 2 * 10) / 2), "what one has seen the other knows"
    second.run_finished(True, 10.0)
    for job in (first, second):
        job.waiting.clear()
    assert of_suite([first, second], 12.0) == pytest.approx(8), "the longest that is under way"


def test_what_is_expected_tells_the_time_left_before_anything_was_seen() -> None:
    remaining = Remaining(["a", "b", "b"], {"a": 10.0, "b": 40.0})
    remaining.run_started("a", epochs=1, now=100.0)
    assert remaining.of_run(103.0) == 7.0
    assert of_suite([remaining], 103.0) == 87.0
    remaining.run_finished(ok=True, now=120.0)
    assert of_suite([remaining], 120.0) == 160.0, "runs take twice what was expected of them"
