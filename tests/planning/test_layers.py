"""LAYERS: every strategy at several layers, which of them is best, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.results.record import Record
from harness.results.store import Store

SMALL = ["--model", "mini", "--data", "synthetic", "--set", "data.size=60 training.epochs=1"]


@pytest.fixture
def run_at(run_cli: Callable, tmp_path: Path) -> Callable[..., list[Record]]:
    def run(*arguments: str) -> list[Record]:
        code, _, told = run_cli("run", *SMALL, "--cache", str(tmp_path / "cache"), "--quiet", *arguments)
        assert (code, told) == (0, "")
        return Store(tmp_path / "results").all()

    return run


def test_every_strategy_at_every_layer(run_at: Callable, run_cli: Callable, tmp_path: Path) -> None:
    """A baseline once; the last layer is the strategy as declared."""
    records = run_at("--strategy", "probe,majority", "--layers", "all")
    of_probe = {one.config["readout_layer"]: one for one in records if one.strategy == "probe"}
    assert sorted(of_probe) == [0, 1, 2, 3]
    assert len(records) == 4 + 1
    best = max(of_probe.values(), key=lambda one: (one.metrics.validation.accuracy, -one.metrics.validation.loss))
    layer, (low, high) = best.config["readout_layer"], best.metrics.test.interval
    table = (tmp_path / "results" / "table.md").read_text()
    assert re.findall(r"^\| (probe[^|]*?) \|", table, re.MULTILINE) == [f"probe (layer {n})" for n in range(4)]
    assert (
        f"Layers: of 4 from 0 to 3 probe is best at layer {layer} on the validation texts, and has "
        f"{100 * best.metrics.test.accuracy:.2f}% [{100 * low:.1f}, {100 * high:.1f}] on test there" in table
    )
    run_cli("report", "--cache", str(tmp_path / "cache"))
    assert "Accuracy over the layer" in (tmp_path / "results" / "report.html").read_text()
    assert (tmp_path / "results" / "plots" / "table1_layer.svg").exists()


def test_layers_by_number_with_another_metric(run_at: Callable, tmp_path: Path) -> None:
    """A negative number is the same layer as the one that it means."""
    records = run_at("--strategy", "probe", "--layers", "0,-1,3", "--metric", "macro_f1", "--readout", "mean")
    assert sorted(one.config["readout_layer"] for one in records) == [0, 3]
    assert "Layers: of 2 from 0 to 3 probe (mean) is best at layer" in (tmp_path / "results" / "table.md").read_text()


def test_layers_of_a_file(run_at: Callable, tmp_path: Path) -> None:
    file = tmp_path / "layers.yaml"
    file.write_text("strategy: probe\nlayers: [1, 2]\n")
    assert sorted(one.config["readout_layer"] for one in run_at("--config", str(file))) == [1, 2]


@pytest.mark.parametrize("layer", ["4", "-5", "0,9"])
def test_a_layer_that_does_not_exist_is_refused(refused: Callable, layer: str) -> None:
    wrong = layer.rpartition(",")[2]
    assert f"LAYERS={wrong}: this backbone has 4 blocks; expected -4 to 3, or all." in refused("--layers", layer)


@pytest.mark.parametrize("given", ["every", "1,", "1.5", "0..3"])
def test_layers_that_are_no_numbers_are_refused(refused: Callable, given: str) -> None:
    assert f"LAYERS='{given}': expected all, or numbers of blocks such as 0,3,6." in refused("--layers", given)


def test_what_decides_on_layers_twice_is_refused(refused: Callable, tmp_path: Path) -> None:
    assert "LAYERS with TUNE=lr" in refused("--layers", "all", "--tune", "lr")
    assert "LAYERS with readout_layer=1: both say" in refused("--layers", "0", "--set", "readout_layer=1")
    rows = tmp_path / "rows.yaml"
    rows.write_text("rows:\n- name: one\n  strategy: head_only\n")
    assert "LAYERS with a file that lists rows" in refused("--layers", "0", "--config", str(rows))


def test_a_block_above_the_layer_is_named(refused: Callable, tmp_path: Path) -> None:
    file = tmp_path / "upper.py"
    file.write_text("from harness import Strategy\n\nstrategy = Strategy(trainable=('block.2',))\n")
    assert "strategy names 'block.2', which matches nothing" in refused("--strategy", str(file), "--layers", "3,0")
