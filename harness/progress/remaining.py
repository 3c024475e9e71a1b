"""The time left of a run and of its suite, estimated from what was seen so far.

It has no clock: the caller passes the time, in seconds from any origin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

# The speed is measured over the last seconds, since it drifts on a shared machine, and over enough steps to meet texts
# of all lengths.
WINDOW_SECONDS, WINDOW_STEPS = 20.0, 40
POINT_EVERY_SECONDS = 0.5
# Assumed until a run has been evaluated; of the size that the embedded model shows.
EVALUATION_IN_EPOCHS = 0.4


@dataclass(frozen=True)
class _Done:
    """A run that ended well. seconds: since the end of the one before. evaluation_in_epochs: None where training had no
    steps."""

    title: str
    seconds: float
    evaluation: float
    evaluation_in_epochs: float | None


class Remaining:
    """Follows every event of a suite's runs and estimates the seconds left; None while there is nothing to go by.

    Events and questions may come from different threads.
    """

    def __init__(self, waiting: Sequence[str], expected: Mapping[str, float] | None = None) -> None:
        """waiting: the titles of the runs to come; runs with the same title take about as long. expected: their
        seconds, where they were estimated beforehand."""
        self.waiting, self._expected = list(waiting), dict(expected or {})
        self._done: list[_Done] = []
        self._title: str | None = None
        self._ended: float | None = None
        self._started, self._epochs = 0.0, 0
        self._enter("", 0.0)

    def beside(self) -> Remaining:
        """Of another job that does runs of the same suite: both know what waits, and what either has seen."""
        other = Remaining([], self._expected)
        other.waiting, other._done = self.waiting, self._done
        return other

    def run_started(self, title: str, epochs: int, now: float) -> None:
        self.waiting.remove(title)
        self._started = now if self._ended is None else self._ended  # time between runs is the next one's
        self._enter("", now)
        self._title, self._epochs = title, epochs

    def phase_started(self, name: str, now: float) -> None:
        epoch = self._epoch_seconds() if name == "evaluate" else None
        self._enter(name, now)
        self._trained_epoch = epoch

    def _enter(self, phase: str, now: float) -> None:
        self._phase, self._phase_started = phase, now
        self._points: list[tuple[float, int]] = []
        self._latest, self._steps = (now, 0), 0
        self._trained_epoch: float | None = None

    def progress(self, done: int, steps: int, now: float) -> None:
        """`done` of `steps` training steps are done, some of them perhaps before the run resumed from a checkpoint."""
        points = self._points or [(now, done)]  # everything before the first call is warm-up
        if now - points[-1][0] >= POINT_EVERY_SECONDS:
            points = [*points, (now, done)]
        recent = [(at, then) for at, then in points if now - at <= WINDOW_SECONDS or done - then <= WINDOW_STEPS]
        self._latest, self._steps = (now, done), steps
        self._points = recent

    def run_finished(self, ok: bool, now: float) -> None:
        assert self._title is not None
        if ok:
            evaluation = now - self._phase_started
            in_epochs = evaluation / self._trained_epoch if self._trained_epoch else None
            self._done.append(_Done(self._title, now - self._started, evaluation, in_epochs))
        self._title, self._ended = None, now

    def steps_per_second(self) -> float | None:
        points, (now, done) = self._points, self._latest
        if not points or now == points[0][0]:
            return None
        return (done - points[0][1]) / (now - points[0][0])

    def of_run(self, now: float) -> float | None:
        """Seconds left of the run that is under way; 0 between runs."""
        if self._title is None:
            return 0.0
        rate, evaluation = self.steps_per_second(), self._evaluation()
        if self._phase == "evaluate" and evaluation is not None:
            return max(0.0, evaluation - (now - self._phase_started))
        if rate and evaluation is not None:
            at, done = self._latest
            return max(0.0, (self._steps - done) / rate - (now - at)) + evaluation
        usual = self._usual(self._title)
        return None if usual is None else max(0.0, usual - (now - self._started))

    def of_waiting(self, now: float) -> float | None:
        """Seconds that the runs to come will take in all; those of which nothing is known as long as the one under
        way."""
        left = self.of_run(now)
        as_this = now - self._started + left if self._title is not None and left is not None else None
        usual = [self._usual(title) for title in list(self.waiting)]
        expected = [as_this if seconds is None else seconds for seconds in usual]
        known = [seconds for seconds in expected if seconds is not None]
        return sum(known) if len(known) == len(expected) else None

    def _usual(self, title: str) -> float | None:
        """Seconds of a complete run: the median of those with this title; else what is expected of it, times what
        others took of what was expected of them; else the mean of all that ended well."""
        same = [run.seconds for run in self._done if run.title == title]
        if same:
            return median(same)
        if title in self._expected:
            known = [run.seconds / self._expected[run.title] for run in self._done if self._expected.get(run.title)]
            return self._expected[title] * (median(known) if known else 1.0)
        return fmean(run.seconds for run in self._done) if self._done else None

    def _evaluation(self) -> float | None:
        """Seconds of this run's, in proportion to its training: as in runs with this title, else as in others."""
        epoch = self._epoch_seconds() or self._trained_epoch
        same = [run for run in self._done if run.title == self._title]
        ratios = [run.evaluation_in_epochs for run in same or self._done if run.evaluation_in_epochs is not None]
        if epoch:  # rather than seconds: the machine's speed may have changed
            return epoch * (median(ratios) if ratios else EVALUATION_IN_EPOCHS)
        return median(run.evaluation for run in same) if same else None

    def _epoch_seconds(self) -> float | None:
        rate = self.steps_per_second()
        return self._steps / self._epochs / rate if rate and self._epochs else None


def of_suite(jobs: Sequence[Remaining], now: float) -> float | None:
    """Seconds left of a suite that these do side by side: as long as the longest run under way, and at best an equal
    part of all that is left for each."""
    under_way = [job.of_run(now) for job in jobs]
    waiting = next((seconds for job in jobs if (seconds := job.of_waiting(now)) is not None), None)
    known = [seconds for seconds in under_way if seconds is not None]
    if waiting is None or len(known) < len(jobs):
        return None
    return max(*known, (sum(known) + waiting) / len(jobs))
