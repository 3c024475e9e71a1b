"""The gate's checks: findings from two measurements of its suite; docs/gate.md gives their error rates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.stats import trim_mean

from harness import statistics
from harness.gate.measurement import Measurement, Run
from harness.metrics import METRICS, MetricName
from harness.statistics import Difference

# Probability of a false alarm, over all rows and checks together. Where memory and speed are checked, too, they have
# half of it; bands of losses are so wide that they need none.
FALSE_ALARMS = 0.01
# Curves are compared by the means of so many steps, within a band between what other instruction sets move them and
# what a missing weight decay does (docs/gate.md).
LOSS_WINDOW = 25
LOSS_BAND = 1e-4
# A curve that leaves its band downwards and ends lower by at least this fraction is an improvement.
LOWER_LOSS = 0.05
# What decides on the bits of a CPU's results; a GPU's are the same each time where a run is deterministic.
ARITHMETIC = ("processor", "cpu_capability", "threads", "device")
TRIMMED = 0.1  # of the values, at either end
# Limits of a ratio to the plain path, as multiples of the reference's. Those of memory: of the gate's own 32 pairs of
# runs, and of the ten that a user's row has.
MOST_MEMORY, USERS_MOST_MEMORY = 1.1, 1.25
LEAST_SPEED = 0.4

Verdict = Literal["same", "better", "regression", "not judged"]


@dataclass(frozen=True)
class Finding:
    """One comparison. before, after: what was compared, in the unit that `check` implies.

    check: accuracy (0 to 1) or another metric, losses (the mean of the last quarter), parameters, memory and speed
    (ratios to the plain path). detail: by how much, and by which rule.
    """

    check: str
    row: str
    before: float
    after: float
    detail: str
    verdict: Verdict


def compare(
    reference: Measurement, measured: Measurement, metric: MetricName = "accuracy", is_own: bool = True
) -> list[Finding]:
    """Findings of every check. Both hold the same number of seeds of the same rows; seeds are paired in order.

    Loss curves are compared where both ran the same seed: other seeds draw other batches. is_own: of the gate's own
    suite, whose losses are known to stay within their band on any machine, and whose costs are measured more often.
    """
    before, after = reference.rows(), measured.rows()
    pairs = [(before[row], after[row]) for row in before]
    findings = _tests(pairs, metric, test_level(reference))
    for old, new in pairs:
        findings += _losses(old, new, None if is_own else other_arithmetic(reference, measured, new[0]))
        findings += _parameters(old, new)
    for row in dict.fromkeys(cost.row for cost in reference.costs):
        memory = MOST_MEMORY if is_own else USERS_MOST_MEMORY
        findings += [_memory(row, reference, measured, memory), _speed(row, reference, measured)]
    return findings


def alarms(findings: list[Finding]) -> bool:
    return any(finding.verdict == "regression" for finding in findings)


def test_level(reference: Measurement) -> float:
    """Of the tests of all rows together."""
    return FALSE_ALARMS / 2 if reference.costs else FALSE_ALARMS


def tests_of(metric: MetricName, rows: Iterable[list[Run]]) -> list[str]:
    """The metrics that are tested; another one than accuracy where the reference has kept what it needs."""
    has_labels = all(run.labels for runs in rows for run in runs)
    return ["accuracy", metric] if metric != "accuracy" and has_labels else ["accuracy"]


def _tests(pairs: list[tuple[list[Run], list[Run]]], metric: MetricName, level: float) -> list[Finding]:
    """One-sided tests on the same messages, for either direction, corrected over rows and metrics (Holm)."""
    names = tests_of(metric, [old for old, _ in pairs])
    tested = [(name, *pair, _difference(name, *pair)) for pair in pairs for name in names]
    lower = np.array([found.estimate < 0 for *_, found in tested])
    half = np.array([found.p / 2 for *_, found in tested])
    fall, rise = (statistics.holm(np.where(side, half, 1 - half)) for side in (lower, ~lower))
    return [
        Finding(
            check=name,
            row=old[0].row,
            before=_mean(name, old),
            after=_mean(name, new),
            detail=f"{100 * found.estimate:+.2f} points, p = {min(fall[number], rise[number]):.2g} "
            f"(one-sided, corrected; alarm below {level:g})",
            verdict=_direction(fall[number] < level, rise[number] < level),
        )
        for number, (name, old, new, found) in enumerate(tested)
    ]


def _difference(name: str, old: list[Run], new: list[Run]) -> Difference:
    """With one seed of messages alone: another seed may differ by more."""
    if name != "accuracy":
        predicted, reference = (np.array([run.predicted for run in runs]) for runs in (new, old))
        return statistics.metric_difference(METRICS[name], np.array(old[0].labels), predicted, reference)
    after, before = (np.array([run.answers() for run in runs]) for runs in (new, old))
    return statistics.mcnemar(after[0], before[0]) if len(old) == 1 else statistics.paired_difference(after, before)


def _mean(name: str, runs: list[Run]) -> float:
    if name == "accuracy":
        return float(np.mean([run.answers() for run in runs]))
    return float(METRICS[name](np.array(runs[0].labels), np.array([run.predicted for run in runs])).mean())


def _direction(worse: bool, better: bool) -> Verdict:
    return "regression" if worse else "better" if better else "same"


def other_arithmetic(reference: Measurement, measured: Measurement, run: Run) -> str | None:
    """Why losses of the same code may differ between the two; None where they are the same to the bit."""

    def described(environment: dict[str, Any]) -> dict[str, Any]:
        torch = {"PyTorch": environment["versions"]["torch"]}
        return torch | {name.replace("_", " "): environment[name] for name in ARITHMETIC}

    before, after = (described(one.environment) for one in (reference, measured))
    other = [f"{name} {before[name]}, now {after[name]}" for name in before if before[name] != after[name]]
    then = next(old.precision for old in reference.runs if (old.row, old.seed) == (run.row, run.seed))
    other += [f"precision {then}, now {run.precision}"] if then != run.precision else []
    if after["device"] != "cpu" and not run.config.get("deterministic"):
        other.append("on a GPU without deterministic=true")
    return "; ".join(other) or None


def _losses(old: list[Run], new: list[Run], other: str | None) -> list[Finding]:
    """other: why the curves may differ without anything being wrong."""
    by_seed = {run.seed: run for run in new}
    pairs = {run.seed: (np.array(run.losses), np.array(by_seed[run.seed].losses)) for run in old if run.seed in by_seed}
    if not any(was.size or now.size for was, now in pairs.values()):
        return []
    if any(len(was) != len(now) for was, now in pairs.values()):
        steps = (float(np.mean([len(pair[which]) for pair in pairs.values()])) for which in (0, 1))
        detail = "training steps, {:g} and {:g}, must be as many".format(*steps)
        return [Finding("losses", old[0].row, *_ends(pairs), detail, "regression")]
    deviation, last_step, seed = max((*farthest(was, now), seed) for seed, (was, now) in pairs.items())
    before, after = _ends(pairs)
    detail = f"at most {deviation:.2g} apart, seed {seed}, up to step {last_step} (band {LOSS_BAND:g})"
    lower = after < before * (1 - LOWER_LOSS)
    verdict: Verdict = "same" if deviation <= LOSS_BAND else "better" if lower else "regression"
    if other and verdict == "regression":
        verdict, detail = "not judged", f"{detail}: other arithmetic ({other})"
    return [Finding("losses", old[0].row, before, after, detail, verdict)]


def farthest(was: np.ndarray, now: np.ndarray) -> tuple[float, int]:
    """The largest distance between the window means of two loss curves [steps], and the last step of that window."""
    starts = range(0, len(was), LOSS_WINDOW)
    distances = [abs(float((now - was)[start : start + LOSS_WINDOW].mean())) for start in starts]
    largest = int(np.argmax(distances))
    return distances[largest], min((largest + 1) * LOSS_WINDOW, len(was))


def _ends(pairs: dict[int, tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """The means of the last quarters, before and after; 0 of a curve without steps."""
    before, after = (
        float(
            np.mean(
                [
                    pair[which][-max(1, len(pair[which]) // 4) :].mean() if pair[which].size else 0.0
                    for pair in pairs.values()
                ]
            )
        )
        for which in (0, 1)
    )
    return before, after


def _parameters(old: list[Run], new: list[Run]) -> list[Finding]:
    """None of a baseline that trains no parameters."""
    counts = [{run.trainable_parameters for run in runs} for runs in (old, new)]
    if counts == [{None}, {None}]:
        return []
    before, after = ({count or 0 for count in side} for side in counts)
    detail = "exact" if before == after else "must be equal"
    verdict = "same" if before == after else "regression"
    return [Finding("parameters", old[0].row, max(before), max(after), detail, verdict)]


def _memory(row: str, reference: Measurement, measured: Measurement, most: float) -> Finding:
    before, after = (_ratio("memory", row, one) for one in (reference, measured))
    change = after / before
    verdict = _direction(change > most, change < 1 / most)
    return Finding("memory", row, before, after, f"x {change:.2f} (allowed at most x {most:g})", verdict)


def _speed(row: str, reference: Measurement, measured: Measurement) -> Finding:
    before, after = (_ratio("speed", row, one) for one in (reference, measured))
    change = after / before
    verdict = _direction(change < LEAST_SPEED, change > 1 / LEAST_SPEED)
    return Finding("speed", row, before, after, f"x {change:.2f} (allowed at least x {LEAST_SPEED:g})", verdict)


def _ratio(check: Literal["memory", "speed"], row: str, measured: Measurement) -> float:
    """The trimmed geometric mean over seeds: outliers, such as the first run, which computes the features for all
    others, don't move it."""
    return float(
        np.exp(trim_mean([np.log(getattr(cost, check)) for cost in measured.costs if cost.row == row], TRIMMED))
    )
