"""The gate's checks: findings from two measurements of its suite; docs/gate.md gives their error rates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import trim_mean

from harness import statistics
from harness.gate.measurement import Measurement, Run

# Probability of an alarm where nothing is worse, over all strategies together (Holm): half of what the gate as a whole
# may have.
ACCURACY_LEVEL = 0.005
# Curves are compared by the means of so many steps, within a band between what other instruction sets move them and
# what a missing weight decay does (docs/gate.md).
LOSS_WINDOW = 25
LOSS_BAND = 1e-4
# A curve that leaves its band downwards and ends lower by at least this fraction is an improvement.
LOWER_LOSS = 0.05
TRIMMED = 0.1  # of the values, at either end
# Limits of a ratio to the plain path, as multiples of the reference's.
MOST_MEMORY = 1.1
LEAST_SPEED = 0.4

Verdict = Literal["same", "better", "regression"]


@dataclass(frozen=True)
class Finding:
    """One comparison. before, after: what was compared, in the unit that `check` implies.

    check: accuracy (0 to 1), losses (the mean of the last quarter), parameters, memory and speed (ratios to the plain
    path). detail: by how much, and by which rule.
    """

    check: str
    strategy: str
    before: float
    after: float
    detail: str
    verdict: Verdict


def compare(reference: Measurement, measured: Measurement) -> list[Finding]:
    """Findings of every check. Both hold the same number of seeds of the same strategies; seeds are paired in order.

    Loss curves are compared where both ran the same seed: other seeds draw other batches.
    """
    strategies = list(dict.fromkeys(run.strategy for run in reference.runs))
    pairs = [(_of(reference.runs, name), _of(measured.runs, name)) for name in strategies]
    findings = _accuracy(pairs)
    for old, new in pairs:
        findings += _losses(old, new)
        findings.append(_parameters(old, new))
    return [*findings, _ratio("memory", reference, measured), _ratio("speed", reference, measured)]


def alarms(findings: list[Finding]) -> bool:
    return any(finding.verdict == "regression" for finding in findings)


def _of(runs: list[Run], strategy: str) -> list[Run]:
    return sorted((run for run in runs if run.strategy == strategy), key=lambda run: run.seed)


def _accuracy(pairs: list[tuple[list[Run], list[Run]]]) -> list[Finding]:
    """One-sided tests on the same messages, for either direction, corrected over the strategies (Holm)."""
    before, after = (np.array([[run.answers() for run in pair[which]] for pair in pairs]) for which in (0, 1))
    found = statistics.paired_difference(after, before)
    lower = found.estimate < 0
    fall, rise = (statistics.holm(np.where(side, found.p / 2, 1 - found.p / 2)) for side in (lower, ~lower))
    return [
        Finding(
            check="accuracy",
            strategy=old[0].strategy,
            before=float(before[number].mean()),
            after=float(after[number].mean()),
            detail=f"{100 * found.estimate[number]:+.2f} points, p = {min(fall[number], rise[number]):.2g} "
            f"(one-sided, corrected; alarm below {ACCURACY_LEVEL:g})",
            verdict=_direction(fall[number] < ACCURACY_LEVEL, rise[number] < ACCURACY_LEVEL),
        )
        for number, (old, _) in enumerate(pairs)
    ]


def _direction(worse: bool, better: bool) -> Verdict:
    return "regression" if worse else "better" if better else "same"


def _losses(old: list[Run], new: list[Run]) -> list[Finding]:
    by_seed = {run.seed: run for run in new}
    pairs = {run.seed: (np.array(run.losses), np.array(by_seed[run.seed].losses)) for run in old if run.seed in by_seed}
    if not pairs:
        return []
    before, after = (float(np.mean([_end(pair[which]) for pair in pairs.values()])) for which in (0, 1))
    if any(len(was) != len(now) for was, now in pairs.values()):
        return [Finding("losses", old[0].strategy, before, after, "another number of training steps", "regression")]
    deviation, last_step, seed = max((*farthest(was, now), seed) for seed, (was, now) in pairs.items())
    lower = after < before * (1 - LOWER_LOSS)
    verdict: Verdict = "same" if deviation <= LOSS_BAND else "better" if lower else "regression"
    detail = f"at most {deviation:.2g} apart, seed {seed}, up to step {last_step} (band {LOSS_BAND:g})"
    return [Finding("losses", old[0].strategy, before, after, detail, verdict)]


def farthest(was: np.ndarray, now: np.ndarray) -> tuple[float, int]:
    """The largest distance between the window means of two loss curves [steps], and the last step of that window."""
    starts = range(0, len(was), LOSS_WINDOW)
    distances = [abs(float((now - was)[start : start + LOSS_WINDOW].mean())) for start in starts]
    largest = int(np.argmax(distances))
    return distances[largest], min((largest + 1) * LOSS_WINDOW, len(was))


def _end(losses: np.ndarray) -> float:
    """The mean of the last quarter."""
    return float(losses[-max(1, len(losses) // 4) :].mean())


def _parameters(old: list[Run], new: list[Run]) -> Finding:
    before, after = ({run.trainable_parameters for run in runs} for runs in (old, new))
    detail = "exact" if before == after else "must be equal"
    verdict = "same" if before == after else "regression"
    return Finding("parameters", old[0].strategy, max(before), max(after), detail, verdict)


def _ratio(check: Literal["memory", "speed"], reference: Measurement, measured: Measurement) -> Finding:
    """Trimmed geometric means over seeds: outliers, such as the first run, which computes the features for all others,
    don't move them."""
    before, after = (
        float(np.exp(trim_mean([np.log(getattr(cost, check)) for cost in one.costs], TRIMMED)))
        for one in (reference, measured)
    )
    change = after / before
    if check == "memory":
        worse, better, limit = change > MOST_MEMORY, change < 1 / MOST_MEMORY, f"at most x {MOST_MEMORY:g}"
    else:
        worse, better, limit = change < LEAST_SPEED, change > 1 / LEAST_SPEED, f"at least x {LEAST_SPEED:g}"
    verdict = _direction(worse, better)
    return Finding(check, reference.costs[0].strategy, before, after, f"x {change:.2f} (allowed {limit})", verdict)
