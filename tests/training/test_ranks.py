"""One process and several ranks: the same arithmetic, from one group of workers that does a whole suite."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.config.schema import DataConfig
from harness.data.dataset import load_dataset
from harness.results.record import Record
from harness.results.store import Store
from tests.support.runs import (
    curve_of,
    exchanged_parameters,
    losses_of,
    predicted_by,
    run_command,
)
from tests.support.strategies import long

# 130 texts: 91 / 13 / 26, of which 91 and 13 divide by neither 2 nor 3; 12 batches an epoch, the last one of 3.
SIZE = 130
OF_MINI: dict[str, Any] = {
    "model": {"name": "mini", "weights": "random"},
    "data": {"name": "synthetic", "size": SIZE},
    "precision": "fp64",
    "training": {"epochs": 2, "drop_last": False, "micro_batch_size": 2},
}
JUDGED = OF_MINI | {"training": {**OF_MINI["training"], "keep": "best", "patience": 1}}
VECTORS = ("prefix_tuning", "prompt_tuning")
# A head that is fitted before steps at rates that fall with depth.
FITTED = """from harness import Strategy

strategy = Strategy(trainable=("block.-1", "final_norm"), phases=("fit_head", "steps"), rate_decay=0.8)
"""


@dataclass(frozen=True)
class Arranged:
    """What one process and what several made of the same suite, by strategy."""

    folder: Path
    ranks: int
    one: dict[str, Record]
    many: dict[str, Record]

    def losses(self, row: str) -> tuple[list[float], list[float]]:
        return losses_of(self.folder / "one" / "results", self.one[row]), losses_of(self.many_results, self.many[row])

    @property
    def many_results(self) -> Path:
        return self.folder / "many" / "results"


@pytest.fixture(scope="module", params=[2, *long(3)])
def arranged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Arranged:
    folder = tmp_path_factory.mktemp("arranged")
    return _arranged(folder, request.param, _rows(folder))


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Arranged:
    """Of strategies with trained vectors before the rows."""
    rows = [{"name": name, "strategy": name, **JUDGED} for name in VECTORS]
    return _arranged(tmp_path_factory.mktemp("vectors"), 2, rows)


def _arranged(folder: Path, ranks: int, rows: list[dict[str, Any]]) -> Arranged:
    """One group of workers does all rows."""
    (folder / "suite.yaml").write_text(yaml.safe_dump({"rows": rows}))
    run_command(folder / "one", "run", "--config", str(folder / "suite.yaml"))
    run_command(folder / "many", "run", "--config", str(folder / "suite.yaml"), "--nproc", str(ranks))
    one, many = (
        {record.strategy: record for record in Store(folder / part / "results").all()} for part in ("one", "many")
    )
    assert one.keys() == many.keys()
    return Arranged(folder, ranks, one, many)


def _rows(folder: Path) -> list[dict[str, Any]]:
    (folder / "fitted.py").write_text(FITTED)
    regularised = {"class_weights": "balanced", "dropout": 0.2, "label_smoothing": 0.1, "gradient_checkpointing": True}
    weighted = OF_MINI | {"training": {**OF_MINI["training"], **regularised}}
    scheduled = {"optimizer": {"schedule": "cosine", "warmup": 0.1, "decay_norms_and_biases": False}}
    return [
        {"name": "last_block", "strategy": "last_block", **JUDGED, **scheduled},
        {"name": "full", "strategy": "full", **weighted},
        {"name": "fitted", "strategy": str(folder / "fitted.py"), **JUDGED, "optimizer": {"schedule": "linear"}},
    ]


@pytest.mark.parametrize("row", ["last_block", "full", "fitted"])
def test_ranks_share_the_same_global_batches(arranged: Arranged, row: str) -> None:
    """With the same dropout and weight of each row (`full`), the same epoch kept and the same head fitted."""
    _assert_shared(arranged, row)


@pytest.mark.long
@pytest.mark.parametrize("row", VECTORS)
def test_ranks_share_vectors_before_the_rows(vectors: Arranged, row: str) -> None:
    _assert_shared(vectors, row)


def _assert_shared(arranged: Arranged, row: str) -> None:
    single, shared = arranged.one[row], arranged.many[row]
    assert shared.engine.world_size == arranged.ranks
    single_losses, shared_losses = arranged.losses(row)
    assert len(single_losses) == 24
    assert shared.head_fit == single.head_fit
    assert (shared.head_fit is not None) == (row == "fitted")
    assert shared_losses == pytest.approx(single_losses, abs=1e-9)
    of_one = arranged.folder / "one" / "results"
    right = [curve_of(of_one, single)["accuracy"], curve_of(arranged.many_results, shared)["accuracy"]]
    assert right[0].tolist() == pytest.approx(right[1].tolist())
    assert predicted_by(arranged.many_results, shared) == predicted_by(of_one, single)
    assert (shared.epochs is None) == (row == "full")
    if shared.epochs and single.epochs:
        assert shared.epochs.kept == single.epochs.kept
    assert shared.metrics.test.total == 26
    assert shared.metrics.test.loss == pytest.approx(single.metrics.test.loss, abs=1e-9)
    assert [rank.rank for rank in shared.memory.by_rank] == list(range(arranged.ranks))
    assert shared.throughput.real_tokens_per_second > 0
    gradients = 8 * exchanged_parameters(shared)
    assert (single.communication, shared.communication.bytes_by_collective) == (None, {"all_reduce": gradients})
    assert shared.communication.milliseconds_per_step > 0


@pytest.mark.long
@pytest.mark.usefixtures("assets")
def test_gpt2_in_float32_gives_the_same_first_losses(tmp_path: Path) -> None:
    """The full 124M architecture, on 4 batches of real messages."""
    texts = load_dataset(DataConfig(name="sms_spam"), tmp_path).split["train"].iloc[:46]
    texts.to_csv(tmp_path / "sms.csv", index=False)
    gpt2 = {"model": {"name": "gpt2", "weights": "random"}, "data": {"name": str(tmp_path / "sms.csv")}}
    row = {"name": "gpt2", "strategy": "last_block", "precision": "fp32", "training": {"epochs": 1}, **gpt2}
    one, many = _arranged(tmp_path, 2, [row]).losses("last_block")
    assert len(one) == 4
    assert many == pytest.approx(one, abs=1e-4)


def test_what_a_rank_imports_is_no_runs_memory(arranged: Arranged) -> None:
    """PyTorch's compiler, which optimizers import when the first is built, takes 70 MB."""
    first = min(arranged.many.values(), key=lambda record: record.finished_at)
    assert max(rank.phases["prepare"] - rank.at_start for rank in first.memory.by_rank) < 30e6
