"""Measurements of the gate made worse by a known amount: for its tests, and for the benchmark of how often it errs."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from harness.gate.measurement import Measurement, Run

FALL, GROWTH = 0.03, 1.2


def lowered(measured: Measurement, rows: Iterable[str], random: np.random.Generator) -> Measurement:
    """Each right answer of `rows` turned wrong with the chance that lowers their accuracy by FALL on average."""
    runs = [_lowered(run, random) if run.row in rows else run for run in measured.runs]
    return measured.model_copy(update={"runs": runs})


def _lowered(run: Run, random: np.random.Generator) -> Run:
    right = run.answers()
    right &= random.random(len(right)) >= FALL / right.mean()
    return run.model_copy(update={"correct": np.packbits(right).tobytes().hex()})


def swollen(measured: Measurement) -> Measurement:
    """With GROWTH times the memory."""
    costs = [cost.model_copy(update={"memory": GROWTH * cost.memory}) for cost in measured.costs]
    return measured.model_copy(update={"costs": costs})
