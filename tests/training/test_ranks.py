"""One process and several ranks: the same arithmetic, from one group of workers that does a whole suite."""

from __future__ import annotations

import subprocess
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
    ROOT,
    command,
    curve_of,
    exchanged_parameters,
    find_assets,
    losses_of,
    predicted_by,
    run_command,
)

# 130 texts: 91 / 13 / 26, of which 91 and 13 divide by neither 2 nor 3; 12 batches an epoch, the last one of 3.
SIZE = 130
OF_MINI: dict[str, Any] = {
    "model": {"name": "mini", "weights": "random"},
    "data": {"name": "synthetic", "size": SIZE},
    "precision": "fp64",
    "training": {"epochs": 2, "drop_last": False, "micro_batch_size": 2},
}


# A head that is fitted before steps at rates that fall with depth.
FITTED = """from harness import Strategy

strategy = Strategy(trainable=("block.-1", "final_norm"), phases=("fit_head", "steps"), rate_decay=0.8)
"""


@dataclass(frozen=True)
class Arranged:
    """What one process and what several made of the same suite, by row: the strategy, or "gpt2"."""

    folder: Path
    ranks: int
    one: dict[str, Record]
    many: dict[str, Record]

    def losses(self, row: str) -> tuple[list[float], list[float]]:
        return losses_of(self.folder / "one" / "results", self.one[row]), losses_of(self.many_results, self.many[row])

    @property
    def many_results(self) -> Path:
        return self.folder / "many" / "results"


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.long)])
def arranged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Arranged:
    """One group of workers does all rows."""
    folder, ranks, found = tmp_path_factory.mktemp("arranged"), request.param, find_assets()
    with pytest.MonkeyPatch.context() as patch:
        if found:
            patch.setenv("FTBENCH_ASSETS", str(found))
        (folder / "suite.yaml").write_text(yaml.safe_dump({"rows": _rows(folder, real_messages=found is not None)}))
        run_command(folder / "one", "run", "--config", str(folder / "suite.yaml"))
        line = command(folder / "many", "run", "--config", str(folder / "suite.yaml"), "--nproc", str(ranks))
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    one, many = (
        {
            "gpt2" if record.model.name == "gpt2" else record.strategy: record
            for record in Store(folder / part / "results").all()
        }
        for part in ("one", "many")
    )
    assert one.keys() == many.keys()
    return Arranged(folder, ranks, one, many)


def _rows(folder: Path, *, real_messages: bool) -> list[dict[str, object]]:
    """The full 124M architecture is among them where there are real messages: 4 batches of those."""
    (folder / "fitted.py").write_text(FITTED)
    regularised = {"class_weights": "balanced", "dropout": 0.2, "label_smoothing": 0.1, "gradient_checkpointing": True}
    weighted = OF_MINI | {"training": {**OF_MINI["training"], **regularised}}
    judged = OF_MINI | {"training": {**OF_MINI["training"], "keep": "best", "patience": 1}}
    scheduled = {"optimizer": {"schedule": "cosine", "warmup": 0.1, "decay_norms_and_biases": False}}
    rows: list[dict[str, object]] = [
        {"name": "last_block", "strategy": "last_block", **judged, **scheduled},
        {"name": "full", "strategy": "full", **weighted},
        *({"name": name, "strategy": name, **judged} for name in ("prefix_tuning", "prompt_tuning")),
        {"name": "fitted", "strategy": str(folder / "fitted.py"), **judged, "optimizer": {"schedule": "linear"}},
    ]
    if real_messages:
        texts = load_dataset(DataConfig(name="sms_spam"), folder).split["train"].iloc[:46]
        texts.to_csv(folder / "sms.csv", index=False)
        gpt2 = {"model": {"name": "gpt2", "weights": "random"}, "data": {"name": str(folder / "sms.csv")}}
        rows.append({"name": "gpt2", "precision": "fp32", "training": {"epochs": 1}, **gpt2})
    return rows


@pytest.mark.parametrize("row", ["last_block", "full", "fitted", "prefix_tuning", "prompt_tuning"])
def test_ranks_share_the_same_global_batches(arranged: Arranged, row: str) -> None:
    """With the same dropout and weight of each row (`full`), the same epoch kept and the same head fitted."""
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


def test_gpt2_in_float32_gives_the_same_first_losses(arranged: Arranged, assets: Path) -> None:
    one, many = arranged.losses("gpt2")
    assert len(one) == 4
    assert many == pytest.approx(one, abs=1e-4)


def test_what_a_rank_imports_is_no_runs_memory(arranged: Arranged) -> None:
    """PyTorch's compiler, which optimizers import when the first is built, takes 70 MB."""
    first = min(arranged.many.values(), key=lambda record: record.finished_at)
    assert first.model.name == "mini", "whose own memory hides nothing"
    assert max(rank.phases["prepare"] - rank.at_start for rank in first.memory.by_rank) < 30e6
