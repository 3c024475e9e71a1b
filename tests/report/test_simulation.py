"""Scaling beyond the machine: what rows of known costs give back, and what must hold for any costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from harness.report.analysis.scaling import ScalingRow
from harness.report.analysis.simulation import (
    BACKWARD,
    Costs,
    calibrate,
    checkpoint_interval,
    expected_maximum,
    simulations,
    useful_fraction,
    worth,
)
from harness.report.plots.drawing import draw, style
from harness.report.plots.scaling import simulation_plot
from harness.report.table.scaling import worth_notes

DAY = 86_400.0
DDP = Costs(
    fixed=0.02,
    each=0.003,
    joined=0.0,
    deviation=0.05,
    latency=1e-4,
    per_byte=2e-9,
    passes=2,
    passed_bytes=2 * 4e6,
    overlap=0.0,
    trained=1_000_000,
    batch=32,
    cores=1,
)
FSDP = replace(DDP, fixed=0.025, joined=0.04, latency=3e-4, passes=3, passed_bytes=3 * 4e6)


def _rows(costs: Costs, engine: str, ranks: Sequence[int] = (1, 2, 4), cores: int = 2) -> list[ScalingRow]:
    """As if measured on a machine of so many cores, one thread a rank."""
    return [_row(costs, engine, count, min(count, cores)) for count in ranks]


def _row(costs: Costs, engine: str, ranks: int, cores: int) -> ScalingRow:
    seconds = costs.step_seconds(ranks, costs.batch / ranks, cores / ranks)
    unhidden = replace(costs, overlap=0.0).step_seconds(ranks, costs.batch / ranks, cores / ranks)
    computed = replace(costs, latency=0.0, per_byte=0.0, deviation=0.0, overlap=0.0)
    milliseconds = 1000 * (unhidden - computed.step_seconds(ranks, costs.batch / ranks, cores / ranks))
    bytes_by_collective = {"all_reduce": 4e6}
    if costs.passes == 3:
        bytes_by_collective["all_gather"] = 4e6 / ranks
    return ScalingRow(
        engine=engine,
        ranks=ranks,
        cores=cores,
        examples_per_second=costs.batch / seconds,
        efficiency=None,
        bytes_by_collective=bytes_by_collective if ranks > 1 else {},
        milliseconds_per_step=milliseconds if ranks > 1 else None,
        has_own_cores=cores >= ranks,
        step_spread=1 + costs.deviation * 1.6448536269514722,
        trained=costs.trained,
        batch=costs.batch,
        on_cpu=costs.overlap == 0.0,
    )


def _as_measured(costs: Costs, row: ScalingRow) -> float:
    return row.batch / costs.step_seconds(row.ranks, row.batch / row.ranks, row.cores / row.ranks)


def test_known_costs_are_recovered_also_where_ranks_share_cores() -> None:
    rows = [*_rows(DDP, "ddp"), *_rows(FSDP, "fsdp")]
    for costs, engine in ((DDP, "ddp"), (FSDP, "fsdp")):
        found = calibrate(rows, engine)
        assert found is not None
        assert vars(found) == pytest.approx(vars(costs), rel=1e-6)


def test_time_that_a_collective_waits_for_a_core_is_not_its_own() -> None:
    one, two, four = _rows(DDP, "ddp")
    assert four.milliseconds_per_step is not None
    waiting = replace(four, milliseconds_per_step=1.5 * four.milliseconds_per_step)
    assert calibrate([one, two, waiting], "ddp") == calibrate([one, two, four], "ddp")


@pytest.mark.parametrize("overlap", [0.0, 1.0], ids=["on CPUs", "on GPUs, hidden behind the backward pass"])
def test_measured_throughput_is_simulated_exactly_where_the_fit_is(overlap: float) -> None:
    costs = replace(DDP, overlap=overlap, per_byte=2e-8)
    for measured in ((1, 2), (1, 2, 4)):
        rows = _rows(costs, "ddp", measured, cores=2 if overlap == 0 else 8)
        found = calibrate(rows, "ddp")
        assert found is not None
        assert found.latency > 0 or len(measured) == 2, "one number of ranks tells nothing of latency"
        assert [_as_measured(found, row) for row in rows] == pytest.approx([row.examples_per_second for row in rows])


@pytest.mark.parametrize("measured", [(1, 2), (1, 2, 4)])
def test_a_rank_alone_that_replays_captured_steps_is_not_fitted_with_those_that_the_host_drives(
    measured: Sequence[int],
) -> None:
    """2 and 4 ranks take eight times as long as one alone, whatever their texts."""
    driven = replace(DDP, fixed=4.4e-3, each=0.0, deviation=0.0, latency=1e-6, per_byte=1e-11, overlap=1.0)
    alone = replace(driven, fixed=5.5e-4)
    rows = [replace(_row(alone, "ddp", 1, 1), captured=True), *_rows(driven, "ddp", measured[1:], cores=8)]
    found = calibrate(rows, "ddp")
    assert found is not None
    assert [_as_measured(found, row) for row in rows] == pytest.approx([row.examples_per_second for row in rows])
    (simulated,) = simulations(rows)
    assert simulated.weak[1].efficiency == pytest.approx(1 / 8, rel=0.05)
    assert worth(simulated.weak) == worth(simulated.strong) == 1
    sharded = replace(driven, joined=1e-3, passes=3, passed_bytes=3 * 4e6)
    both = [*rows, *_rows(sharded, "fsdp", measured[1:], cores=8)]
    assert all(worth(one.weak) == 1 for one in simulations(both))


def test_exchange_that_the_backward_pass_hides_costs_nothing() -> None:
    computed = DDP.fixed + DDP.each * DDP.batch
    quiet = replace(DDP, deviation=0.0, latency=0.0, overlap=1.0)
    hidden = replace(quiet, per_byte=BACKWARD * computed / DDP.passed_bytes)
    assert hidden.step_seconds(2, DDP.batch, 1) == pytest.approx(computed)
    assert replace(hidden, overlap=0.0).step_seconds(2, DDP.batch, 1) > 1.3 * computed


@given(
    st.floats(1e-4, 0.1),
    st.floats(1e-5, 0.01),
    st.floats(0, 0.3),
    st.floats(0, 1e-2),
    st.floats(0, 1e-7),
    st.floats(0, 1),
)
def test_efficiency_falls_with_ranks(
    fixed: float, each: float, deviation: float, latency: float, per_byte: float, overlap: float
) -> None:
    costs = replace(DDP, fixed=fixed, each=each, deviation=deviation, latency=latency, per_byte=per_byte)
    costs = replace(costs, overlap=overlap)
    for growing in (True, False):
        rates = [costs.examples_per_second(n, costs.batch / (1 if growing else n)) / n for n in (1, 2, 4, 8, 16, 32)]
        assert all(more <= fewer * (1 + 1e-12) for fewer, more in pairwise(rates))


def test_simulations_are_of_engines_that_ran_on_one_and_on_several_ranks() -> None:
    assert simulations(_rows(DDP, "ddp", (1,))) == []
    assert simulations(_rows(DDP, "ddp", (2, 4))) == []
    ddp, fsdp = simulations([*_rows(DDP, "ddp", (1, 2)), *_rows(FSDP, "fsdp", (2,))])
    assert (ddp.engine, fsdp.engine) == ("ddp", "fsdp")
    assert [point.ranks for point in ddp.weak] == [2**power for power in range(11)]
    assert [point.ranks for point in ddp.strong] == [1, 2, 4, 8, 16, 32], "no rank without a text"
    assert ddp.weak[3].cost == pytest.approx(1 / ddp.weak[3].efficiency)
    assert ddp.weak[0].efficiency == 1
    assert fsdp.weak[1].efficiency < ddp.weak[1].efficiency


def test_an_engine_whose_exchange_outlasts_its_step_is_not_worth_more_than_one_rank() -> None:
    (slow,) = simulations(_rows(replace(DDP, per_byte=1e-7), "ddp"))
    (quick,) = simulations(_rows(replace(DDP, latency=0.0, per_byte=1e-10), "ddp"))
    assert worth(slow.weak) == worth(slow.strong) == 1
    assert worth(quick.weak) == 1024
    assert 1 < worth(quick.strong) < 32, "what does not shrink with a rank's texts is done by every rank"


@pytest.mark.parametrize("count", [1, 2, 4, 64, 1024])
def test_the_expected_maximum_is_that_of_draws(count: int) -> None:
    drawn = np.random.default_rng(0).standard_normal((4000, count)).max(axis=1)
    assert expected_maximum(count) == pytest.approx(drawn.mean(), abs=0.03 + 3 * drawn.std() / math.sqrt(4000))


@pytest.mark.parametrize(("write", "between"), [(1.5, 30 * DAY), (60, DAY), (600, 3600)])
def test_the_checkpoint_interval_loses_least(write: float, between: float) -> None:
    def lost(logarithm: float) -> float:
        return -useful_fraction(math.exp(logarithm), write, 60, between)

    best = minimize_scalar(lost, bounds=(0, math.log(between)), method="bounded", options={"xatol": 1e-9})
    assert checkpoint_interval(write, between) == pytest.approx(math.exp(best.x), rel=0.01)
    assert lost(math.log(checkpoint_interval(write, between))) == pytest.approx(best.fun, rel=1e-4)


def test_useful_time_is_that_of_runs_with_random_failures() -> None:
    """Against runs drawn one by one: whatever fails before its checkpoint is written is done again."""
    interval, write, restart, between, segments = 900.0, 60.0, 120.0, 3600.0, 20_000
    draws, taken, segment = np.random.default_rng(0), 0.0, 0
    needed = interval + write
    while segment < segments:
        fails = draws.exponential(between)
        if fails >= needed:
            taken, segment, needed = taken + needed, segment + 1, interval + write
        else:
            taken, needed = taken + fails, restart + interval + write
    assert useful_fraction(interval, write, restart, between) == pytest.approx(segments * interval / taken, rel=0.02)


def test_the_plot_marks_what_was_measured_and_dashes_what_was_not() -> None:
    rows = [replace(row, efficiency=1.0) for row in _rows(DDP, "ddp")]
    with style():
        plot = simulation_plot("Scaling", rows, simulations(rows))
        assert "stroke-dasharray" in draw(plot).inline
    weak, strong = plot.figure.axes
    styles = [
        [line.get_linestyle() for line in axes.get_lines() if len(line.get_xdata()) > 2] for axes in (weak, strong)
    ]
    assert styles == [["--"], ["--", "None"]]
    assert "simulated" in plot.title


def test_words_say_how_many_ranks_are_worth_it() -> None:
    (slow,) = worth_notes(simulations(_rows(replace(DDP, per_byte=1e-7), "ddp")))
    assert slow.count("not worth more than one rank") == 2
    (quick,) = worth_notes(simulations(_rows(replace(DDP, latency=0.0, per_byte=1e-10), "ddp")))
    assert "worth up to 1,024 ranks" in quick
