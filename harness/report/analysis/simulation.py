"""Scaling beyond the machine, simulated: throughput on up to 1,024 ranks, computed from records of a few.

A step of a rank that computes r texts takes

    (a + b r  +  g  +  the wait for the slowest rank) / cores  +  exchange

seconds: a and b for the model and the optimizer, g for what an engine adds that joins ranks. cores: of the rank, half a
core where two ranks share one; 1 on GPUs. docs/engines.md says where this errs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np
from scipy.special import ndtri

from harness.report.analysis.scaling import ScalingRow

MOST_RANKS = 1024
WORTH_EFFICIENCY = 0.5
# Of a forward and a backward pass: the backward pass computes two products for each one of the forward pass.
BACKWARD = 2 / 3
# Which part of the backward pass exchanges can run beside. gloo copies and sums on the cores that compute, so nothing
# is gained. On GPUs engines exchange gradients while others are computed (Li et al., 2020, VLDB 13, arXiv:2006.15704).
OVERLAP = {"cpu": 0.0, "gpu": 1.0}
# Llama 3 (arXiv:2407.21783, section 3.3.4): 419 unexpected interruptions in 54 days on 16,384 GPUs.
DEVICE_SECONDS_BETWEEN_FAILURES = 54 * 86_400 * 16_384 / 419
# Trained parameters and AdamW's two moments, float32, which the first rank writes: assumed at the rate of one disk.
STATE_BYTES_OF_PARAMETER = 12
WRITE_BYTES_PER_SECOND = 1e9
# From a failure to the first step of the new group, without reading the checkpoint: assumed.
RESTART_SECONDS = 60.0


def expected_maximum(count: int) -> float:
    """Of `count` standard normal draws; the approximation of Blom (1958, *Statistical Estimates and Transformed
    Beta-Variables*), within 0.02 for any count."""
    return float(ndtri((count - 0.375) / (count + 0.25))) if count > 1 else 0.0


def checkpoint_interval(write: float, between_failures: float) -> float:
    """Seconds of computing between checkpoints with the least expected time in all, to a higher order than Young's
    sqrt(2 write between_failures) (Daly, 2006, Future Gener. Comput. Syst. 22). All in seconds."""
    if write >= 2 * between_failures:
        return between_failures
    root = math.sqrt(write / (2 * between_failures))
    return 2 * between_failures * root * (1 + root / 3 + root**2 / 9) - write


def useful_fraction(interval: float, write: float, restart: float, between_failures: float) -> float:
    """Of all seconds, those in steps that count: not in checkpoints, restarts and steps done again (Daly, 2006: times
    between failures are exponential, and one may strike while a checkpoint is written or read). All in seconds."""
    lost = between_failures * math.exp(restart / between_failures) * math.expm1((interval + write) / between_failures)
    return interval / lost


@dataclass(frozen=True)
class Costs:
    """Of a step of one strategy on one engine.

    fixed, each, joined: a, b of one text, and g, in core-seconds. deviation: of the times of ranks, relative to what
    one computes. latency: seconds of a message to the next rank in the ring, of all calls of a collective together;
    per_byte: of a byte sent to it. passes: over the ring, of all collectives; passed_bytes: of the tensors that they
    take, each counted once a pass. overlap: part of the backward pass beside which ranks exchange. trained: parameters.
    batch, cores: texts of a step and cores that one rank had alone.
    """

    fixed: float
    each: float
    joined: float
    deviation: float
    latency: float
    per_byte: float
    passes: int
    passed_bytes: float
    overlap: float
    trained: int
    batch: int
    cores: float

    def step_seconds(self, ranks: int, texts: float, cores: float) -> float:
        """texts, cores: of each rank."""
        computed = self.fixed + self.each * texts + (self.joined if ranks > 1 else 0.0)
        messages = self.passes * (ranks - 1)
        exchanged = self.latency * messages + self.per_byte * self.passed_bytes * (ranks - 1) / ranks
        waited = self.deviation * computed * expected_maximum(ranks)
        return computed / cores + max(0.0, waited / cores + exchanged - self.overlap * BACKWARD * computed / cores)

    def examples_per_second(self, ranks: int, texts: float) -> float:
        """Of all ranks, with checkpoints at the best interval, and with failures."""
        between = DEVICE_SECONDS_BETWEEN_FAILURES / ranks
        write = STATE_BYTES_OF_PARAMETER * self.trained / WRITE_BYTES_PER_SECOND
        useful = useful_fraction(checkpoint_interval(write, between), write, RESTART_SECONDS + write, between)
        return useful * ranks * texts / self.step_seconds(ranks, texts, self.cores)


@dataclass(frozen=True)
class SimulatedPoint:
    """examples_per_second: of all ranks. efficiency: of one of them against one alone."""

    ranks: int
    examples_per_second: float
    efficiency: float

    @property
    def cost(self) -> float:
        """Of an example, relative to one rank alone: in device hours, and so in money."""
        return 1 / self.efficiency


@dataclass(frozen=True)
class Simulation:
    """weak: each rank has as many texts of a step as one alone had. strong: the batch stays as it was, so there are
    no more ranks than it has texts. Both on 1, 2, 4, ... ranks."""

    engine: str
    costs: Costs
    weak: list[SimulatedPoint]
    strong: list[SimulatedPoint]


def simulations(rows: Sequence[ScalingRow]) -> list[Simulation]:
    """Of each engine that ran on several ranks, if it or DDP ran on one."""
    found = []
    for engine in dict.fromkeys(row.engine for row in rows if row.ranks > 1):
        costs = calibrate(rows, engine)
        if costs:
            counts = [2**power for power in range(int(math.log2(MOST_RANKS)) + 1)]
            weak = _points(costs, counts, lambda ranks, batch=costs.batch: float(batch))
            strong = _points(costs, counts, lambda ranks, batch=costs.batch: batch / ranks)
            found.append(Simulation(engine, costs, weak, [point for point in strong if point.ranks <= costs.batch]))
    return found


def worth(points: Sequence[SimulatedPoint]) -> int:
    """The largest number of ranks of which, and of all smaller ones, each does at least half of what one alone does."""
    inefficient = [index for index, point in enumerate(points) if point.efficiency < WORTH_EFFICIENCY]
    return points[inefficient[0] - 1 if inefficient else -1].ranks


def _points(costs: Costs, counts: Sequence[int], texts: Callable[[int], float]) -> list[SimulatedPoint]:
    alone = costs.examples_per_second(1, texts(1))
    rates = {ranks: costs.examples_per_second(ranks, texts(ranks)) for ranks in counts}
    return [SimulatedPoint(ranks, rate, rate / ranks / alone) for ranks, rate in rates.items()]


def calibrate(rows: Sequence[ScalingRow], engine: str) -> Costs | None:
    """From the rows of a scaling table; None where no single rank ran, or no exchange of several was measured.

    a and b are least squares over the numbers of ranks. b is DDP's, which adds nothing to what the model computes, if
    it ran on one and on several ranks; what another engine takes more is in its a and g. Else g is 0, unless one rank
    ran captured steps and several did not, whose b and g are their own then: the host drives them. The part of a
    step outside collectives is computation; that inside is exchange and wait. Where ranks share cores a collective
    waits for ranks that wait for a core, too: there the exchange is what the computation leaves of the step.
    """
    alone = next((row for name in (engine, "ddp") for row in rows if (row.engine, row.ranks) == (name, 1)), None)
    joined = [row for row in rows if row.engine == engine and row.ranks > 1 and row.milliseconds_per_step is not None]
    if alone is None or not joined:
        return None
    overlap = OVERLAP["cpu" if alone.on_cpu else "gpu"]
    fixed, each, more = _computation(alone, joined, rows, overlap)
    deviation = _deviation(alone, joined, overlap)
    passes, passed_bytes = _passes(joined[0])
    exchanged = []
    for row in joined:
        computed = (fixed + each * row.batch / row.ranks + more) * row.ranks / row.cores
        inside = _in_collectives(row) if row.has_own_cores else row.step_seconds - computed
        exchanged.append(inside - deviation * computed * expected_maximum(row.ranks))
    messages = [passes * (row.ranks - 1) for row in joined] if len(joined) > 1 else [0]
    sent = [passed_bytes * (row.ranks - 1) / row.ranks for row in joined]
    latency, per_byte = _least_squares([messages, sent], exchanged, [row.step_seconds for row in joined])
    return Costs(
        fixed=fixed,
        each=each,
        joined=more,
        deviation=deviation,
        latency=latency,
        per_byte=per_byte,
        passes=passes,
        passed_bytes=passed_bytes,
        overlap=overlap,
        trained=alone.trained,
        batch=alone.batch,
        cores=alone.cores,
    )


def _computation(
    alone: ScalingRow, joined: Sequence[ScalingRow], rows: Sequence[ScalingRow], overlap: float
) -> tuple[float, float, float]:
    """a, b and g."""
    ddp = [row for row in rows if row.engine == "ddp" and (row.ranks == 1 or row.milliseconds_per_step is not None)]
    by_ddp = joined[0].engine != "ddp" and ddp[:1] and ddp[0].ranks == 1 < ddp[-1].ranks
    alike = _unshared(ddp if by_ddp else [alone, *joined])
    fitted = [row for row in alike if not row.captured] or alike
    texts, computed = [row.batch / row.ranks for row in fitted], [_computed(row, overlap) for row in fitted]
    scale = [row.step_seconds * row.cores / row.ranks for row in fitted]
    fixed, each = _least_squares([[1.0] * len(fitted), texts], computed, scale)
    if not by_ddp and fitted == alike:
        return fixed, each, 0.0
    fixed = max(0.0, _computed(alone, overlap) - each * alone.batch)
    more = mean(_computed(row, overlap) - fixed - each * row.batch / row.ranks for row in _unshared(joined))
    return fixed, each, max(0.0, more)


def _unshared(rows: Sequence[ScalingRow]) -> Sequence[ScalingRow]:
    """Those whose ranks had cores of their own; all, if no several ranks had."""
    found = [row for row in rows if row.has_own_cores]
    return found if any(row.ranks > 1 for row in found) else rows


def _deviation(alone: ScalingRow, joined: Sequence[ScalingRow], overlap: float) -> float:
    """Of the times of one rank's steps, if normal; at most what the time in collectives leaves for waiting: some steps
    have longer texts than others for all ranks alike."""
    waits = [
        _in_collectives(row) * row.cores / row.ranks / (computed * expected_maximum(row.ranks))
        for row in _unshared(joined)
        if (computed := _computed(row, overlap)) > 0
    ]
    return min([(alone.step_spread - 1) / float(ndtri(0.95)), *waits])


def _computed(row: ScalingRow, overlap: float) -> float:
    """Core-seconds of a step of one rank, without the part in collectives that nothing hides."""
    seconds = min(row.step_seconds, (row.step_seconds - _in_collectives(row)) / (1 - overlap * BACKWARD))
    return seconds * row.cores / row.ranks


def _in_collectives(row: ScalingRow) -> float:
    """Seconds of a step; at most all of it, as collectives that run beside each other count each."""
    return min((row.milliseconds_per_step or 0.0) / 1000, row.step_seconds)


def _passes(row: ScalingRow) -> tuple[int, float]:
    """Over the ring, of all collectives of a step, and bytes of their tensors, once a pass.

    In a pass a rank sends N - 1 messages, each of one N-th of the tensor; an all-reduce takes two, an all-gather or a
    reduce-scatter one (Thakur et al., 2005, Int. J. High Perform. Comput. Appl. 19; Patarasuk and Yuan, 2009, J.
    Parallel Distrib. Comput. 69: no algorithm sends less).
    """
    passes, size = 0, 0.0
    for name, handed in row.bytes_by_collective.items():
        of_one = 2 if "all_reduce" in name or "allreduce" in name else 1
        complete = handed * row.ranks if "gather" in name else handed  # a rank hands over its shard
        passes, size = passes + of_one, size + of_one * complete
    return passes, size


def _least_squares(
    columns: Sequence[Sequence[float]], target: Sequence[float], scale: Sequence[float]
) -> tuple[float, ...]:
    """Coefficients of the columns, not negative, with the least squared errors relative to `scale`."""
    matrix, wanted = np.array(columns).T / np.array(scale)[:, None], np.array(target) / np.array(scale)
    size = np.maximum(np.abs(matrix).max(axis=0), np.finfo(float).tiny)
    from scipy.optimize import nnls  # slow to import, and most tables have no ranks to simulate

    return tuple(float(value) for value in nnls(matrix / size, wanted)[0] / size)
