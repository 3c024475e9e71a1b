"""Intervals and tests for predictions of several seeds on the same messages; knows nothing of models."""

from harness.statistics.accuracy import (
    MOST_MESSAGES,
    MOST_SEEDS,
    POWER,
    MeanSquares,
    accuracy_interval,
    mcnemar,
    mean_squares,
    messages_needed,
    paired_difference,
    seeds_needed,
    smallest_shown,
)
from harness.statistics.bootstrap import metric_difference, metric_interval
from harness.statistics.one_run import expected_calibration_error, next_run_interval, wilson_interval
from harness.statistics.temperature import fitted_temperature
from harness.statistics.verdicts import LEVEL, Difference, Verdict, holm, verdict

__all__ = [
    "LEVEL",
    "MOST_MESSAGES",
    "MOST_SEEDS",
    "POWER",
    "Difference",
    "MeanSquares",
    "Verdict",
    "accuracy_interval",
    "expected_calibration_error",
    "fitted_temperature",
    "holm",
    "mcnemar",
    "mean_squares",
    "messages_needed",
    "metric_difference",
    "metric_interval",
    "next_run_interval",
    "paired_difference",
    "seeds_needed",
    "smallest_shown",
    "verdict",
    "wilson_interval",
]
