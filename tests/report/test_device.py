"""What tables and page say of the device: its name, how it did the training steps, and its settings.

Records of a GPU are those of a CPU with other fields.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from harness.experiment.records.facts import step_graphs
from harness.report.analysis.grouping import groups
from harness.report.page import write_report
from harness.report.table.comparison_table import ComparisonTable, comparison_tables
from harness.results.record import Record, StepGraphs
from harness.results.store import Store
from harness.training.engines.captured import CapturedSteps
from harness.training.engines.ddp import DDPEngine

GPU = "NVIDIA H200"


@pytest.fixture
def two(run_here: Callable) -> list[Record]:
    return run_here(strategy=["head_only", "last_block"], data__size=60, training__epochs=0)


def _on_gpu(record: Record, captured: int = 2, reason: str | None = None, **settings: bool) -> Record:
    return record.model_copy(
        update={
            "environment": record.environment | {"device": GPU},
            "graphs": StepGraphs(captured=captured, not_captured=reason),
            "config": record.config | settings,
        }
    )


def _table(records: list[Record], store: Store) -> ComparisonTable:
    (table,) = comparison_tables(groups(records), store)
    return table


def test_a_table_of_a_gpu_says_how_steps_ran(two: list[Record], store: Store) -> None:
    table = _table([_on_gpu(record) for record in two], store)
    assert GPU in table.heading
    assert "Training steps ran as captured CUDA graphs: head_only, last_block." in table.notes
    mixed = _table([_on_gpu(two[0]), _on_gpu(two[1], 0, "several ranks")], store)
    assert "Training steps ran as captured CUDA graphs: head_only." in mixed.notes
    assert "Training steps ran kernel by kernel, not captured: last_block (several ranks)." in mixed.notes


def test_a_table_of_a_cpu_says_nothing_of_graphs(two: list[Record], store: Store) -> None:
    assert [record.graphs for record in two] == [None, None]
    table = _table(two, store)
    assert ", cpu" in table.heading
    assert not any("captured" in note or GPU in note for note in table.notes)
    assert "TF32" not in table.heading
    assert "deterministic" not in table.heading


def test_rows_of_several_devices_are_told_apart(two: list[Record], store: Store) -> None:
    assert f"On {GPU}: head_only; on cpu: last_block." in _table([_on_gpu(two[0]), two[1]], store).notes


def test_settings_that_are_on_stand_in_the_heading_and_in_a_table_of_their_own(two: list[Record], store: Store) -> None:
    other = [_on_gpu(record, deterministic=True, tf32=True) for record in two]
    plain, strict = comparison_tables(groups([*map(_on_gpu, two), *other]), store)
    assert strict.heading.startswith(f"{plain.heading} · deterministic algorithms · TF32")


def test_records_from_before_there_were_settings_stand_in_the_same_table(two: list[Record], store: Store) -> None:
    config = {key: value for key, value in two[0].config.items() if key not in ("deterministic", "tf32")}
    old = Record.model_validate(two[0].model_dump(exclude={"graphs"}) | {"config": config})
    assert [row.name for row in _table([old, two[1]], store).rows] == ["head_only", "last_block"]


def test_baselines_alone_name_the_device_too(run_here: Callable, store: Store) -> None:
    (record,) = run_here(strategy=["majority"], data__size=60)
    assert _table([record], store).heading.endswith(" · cpu")


def test_the_page_says_it_too(two: list[Record], store: Store, tmp_path: Path) -> None:
    on_gpu = [_on_gpu(record, tf32=True) for record in two]
    for record in on_gpu:
        store.write(record)
    files = write_report(store, on_gpu, [], tmp_path / "cache")
    texts = {path.name: path.read_text() for path in files if path.suffix in (".md", ".html")}
    for name in ("table.md", "report.html"):
        for said in (GPU, "TF32", "Training steps ran as captured CUDA graphs: head_only, last_block."):
            assert said in texts[name]


def _engine(meetings: int, reason: str | None = None) -> DDPEngine:
    """One whose steps met one shape that often. The capture is replaced by the step itself."""

    def capture(body: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        return body

    engine = object.__new__(DDPEngine)
    engine._steps = CapturedSteps(
        lambda micro_batches, count: torch.zeros(2), torch.device("cpu"), None if reason else capture, reason
    )
    for _ in range(meetings):
        engine._steps([], 8)
    return engine


@pytest.mark.parametrize(
    ("meetings", "reason", "expected"),
    [
        (3, None, StepGraphs(captured=1, not_captured=None)),
        (1, None, StepGraphs(captured=0, not_captured="no shape of batch occurred twice")),
        (3, "several ranks", StepGraphs(captured=0, not_captured="several ranks")),
    ],
)
def test_the_record_of_a_gpu_counts_graphs_or_says_why_there_are_none(
    meetings: int, reason: str | None, expected: StepGraphs
) -> None:
    engine = _engine(meetings, reason)
    assert step_graphs(engine, torch.device("cuda")) == expected
    assert step_graphs(engine, torch.device("cpu")) is None
