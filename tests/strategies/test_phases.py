"""Phases of a strategy: the head fitted exactly, alone or before gradient steps."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file
from scipy.special import softmax

from harness import IA3, Adapter, PrefixTuning, PromptTuning, Strategy
from harness.config.schema import OptimizerConfig
from harness.config.strategy import AnyAdapter
from harness.results.record import Record
from harness.results.store import Store
from harness.training.schedule import learning_rate
from tests.support.runs import losses_of

SMALL = {"precision": "fp64", "data__size": 120, "training__epochs": 1}
ADAPTERS = {"dora": "Adapter(rank=2, trains_size=True)", "ia3": "IA3(outputs=('attention.key',))"}


@pytest.mark.parametrize("phases", [(), ("fit",), ("steps", "fit_head"), ("steps", "steps"), ["steps"], "steps"])
def test_other_phases_are_refused(phases: object) -> None:
    with pytest.raises(ValueError, match=r"phases=.*: expected one of \('steps',\), \('fit_head',\), "):
        Strategy(phases=phases)


@pytest.mark.parametrize(
    "declared",
    [
        {"trainable": ("final_norm",)},
        {"adapt": (Adapter(),)},
        {"adapt": (IA3(outputs=("mlp",)),)},
        {"readout": "attention"},
    ],
)
def test_what_no_phase_trains_is_refused(declared: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="without 'steps' nothing but the head is trained"):
        Strategy(phases=("fit_head",), **declared)
    Strategy(phases=("fit_head", "steps"), **declared)


def test_a_head_is_not_fitted_to_what_code_has_built() -> None:
    with pytest.raises(ValueError, match="with a build function"):
        Strategy(phases=("fit_head", "steps"), build=lambda backbone: None)


@pytest.mark.parametrize("adapter", [PrefixTuning(), PromptTuning()])
def test_a_head_is_not_fitted_behind_vectors_that_change_what_it_reads(adapter: AnyAdapter) -> None:
    with pytest.raises(ValueError, match="with a prefix or a prompt"):
        Strategy(phases=("fit_head", "steps"), adapt=(adapter,))


def test_a_readout_that_no_phase_trains_is_refused(refused: Callable) -> None:
    assert "strategy 'probe': phases=('fit_head',): without 'steps'" in refused(
        "--strategy", "probe", "--readout", "attention"
    )


def test_a_class_without_training_text_is_named(refused: Callable, tmp_path: Path) -> None:
    parts = {"train": ["a"] * 12 + ["b"] * 12, "validation": ["a", "c"], "test": ["b", "c"]}
    rows = [(f"text {part} {n}", label, part) for part, labels in parts.items() for n, label in enumerate(labels)]
    pd.DataFrame(rows, columns=["text", "label", "split"]).to_csv(tmp_path / "few.csv", index=False)
    told = refused("--strategy", "probe", data=str(tmp_path / "few.csv"))
    assert "strategy 'probe' fits its head to the training texts, of which none has the label 'c'" in told


def _vectors(tmp_path: Path) -> np.ndarray:
    """The only stored features: those that a strategy of the head alone reads, [texts, 128]."""
    (file,) = (tmp_path / "cache" / "features").glob("*.features")
    return np.fromfile(file, np.float64).reshape(-1, 128)


def _head(tmp_path: Path) -> tuple[np.ndarray, np.ndarray]:
    tensors = load_file(tmp_path / "results" / "classifier" / "model.safetensors")
    return tensors["head.weight"].numpy(), tensors["head.bias"].numpy()


def test_a_probe_is_the_fit_to_the_stored_features_of_head_only(run_here: Callable, tmp_path: Path) -> None:
    """Whose file they share."""
    run_here(strategy=["head_only"], **SMALL)
    stored = _vectors(tmp_path)
    (probe,) = run_here(strategy=["probe"], save=True, **SMALL)
    assert np.array_equal(_vectors(tmp_path), stored)
    assert (probe.prefix.computed_tokens, probe.prefix.boundary) == (0, "head")
    weight, bias = _head(tmp_path)
    predictions = pd.read_csv(tmp_path / "results" / "runs" / probe.run_id / "predictions.csv")
    found = predictions.filter(like="probability").to_numpy()
    logits = stored @ weight.T + bias
    # Every row of the test texts is among those of the distinct texts.
    distances = np.abs(softmax(logits, axis=1)[None] - found[:, None]).max(axis=2).min(axis=1)
    assert distances.max() < 1e-6
    assert probe.metrics.validation.loss == pytest.approx(probe.head_fit.validation_loss, abs=1e-9)
    assert probe.metrics.train.loss < 0.6


def test_a_probe_has_no_steps(run_here: Callable, tmp_path: Path) -> None:
    """Whatever a recipe of steps says; with every seed it is the same, and tables say what it is."""
    recipe = {"training__patience": 9, "training__keep": "best", "optimizer__warmup": 0.99, "training__batch_size": 100}
    records: list[Record] = run_here(strategy=["probe"], seed=[0, 1], **{**SMALL, **recipe, "data__size": 80})
    assert [record.status for record in records] == ["ok", "ok"]
    for record in records:
        assert (record.phases, record.epochs, record.throughput.examples_per_second) == (("fit_head",), None, None)
        assert record.metrics.train_batches is None
        assert not (tmp_path / "results" / "runs" / record.run_id / "losses.csv").exists()
    assert records[0].metrics == records[1].metrics
    table = (tmp_path / "results" / "table.md").read_text()
    strength = f"{records[0].head_fit.strength:.2g}"
    assert f"Head fitted exactly, with an L2 strength by the loss on validation: probe ({strength})." in table
    assert "No steps, so neither epochs nor a learning rate: probe." in table
    heading = next(line for line in table.splitlines() if line.startswith("#"))
    assert not re.search("epochs|lr |warmup|keep", heading), heading


def test_a_report_shows_a_probe_beside_what_takes_steps(run_here: Callable, run_cli: Callable, tmp_path: Path) -> None:
    run_here(strategy=["head_only", "probe"], **SMALL)
    code, _, told = run_cli("report", "--cache", str(tmp_path / "cache"))
    assert (code, told) == (0, "")
    page = (tmp_path / "results" / "report.html").read_text()
    assert "1 epochs, batch 8" in page
    assert page.count(">probe<") >= 1


def test_balanced_classes_weigh_the_fit(run_here: Callable) -> None:
    plain, balanced = (
        run_here(results=weights, strategy=["probe"], training__class_weights=weights, **SMALL, data__split_seed=1)[0]
        for weights in ("none", "balanced")
    )
    assert plain.metrics.train.loss != balanced.metrics.train.loss


def test_a_saved_probe_predicts(run_here: Callable, run_cli: Callable, tmp_path: Path) -> None:
    (record,) = run_here(strategy=["probe"], save=True, **SMALL)
    folder = tmp_path / "results" / "classifier"
    assert json.loads((folder / "classifier.json").read_text())["resolved"]["phases"] == ["fit_head"]
    given = ["--classifier", str(folder), "--cache", str(tmp_path / "cache")]
    code, out, told = run_cli("predict", "--jsonl", "you won a prize", *given, results=None)
    assert (code, told) == (0, "")
    assert json.loads(out)["label"] in record.data.classes


@pytest.mark.parametrize("adapter", ["", *ADAPTERS])
def test_steps_begin_with_the_fitted_head(run_here: Callable, tmp_path: Path, adapter: str) -> None:
    """Without an epoch probe_then_full is the probe, adapters included."""
    options = {**SMALL, "training__epochs": 0}
    (probe,) = run_here(strategy=["probe"], **options)
    then = "probe_then_full"
    if adapter:
        then = str(tmp_path / "then.py")
        declared = f"Strategy(adapt=({ADAPTERS[adapter]},), phases=('fit_head', 'steps'))"
        Path(then).write_text(f"from harness import IA3, Adapter, Strategy\n\nstrategy = {declared}\n")
    (begun,) = run_here(strategy=[then], **options)
    assert begun.head_fit == probe.head_fit
    # DoRA's sizes begin as float32.
    assert begun.metrics.test.loss == pytest.approx(probe.metrics.test.loss, abs=1e-6 if adapter == "dora" else 1e-9)
    assert begun.prefix.reused_tokens == probe.prefix.computed_tokens > 0, "from the file of the probe"


@pytest.mark.parametrize("strategy", ["probe_then_full", pytest.param("layer_decay", marks=pytest.mark.long)])
def test_a_resumed_run_ends_as_an_undisturbed_one(
    run_here: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    """To the bit, with a recipe: 10 steps an epoch, a checkpoint every 4, stopped in step 14."""
    options = {"strategy": [strategy], "data__size": 120, "training__epochs": 3, "training__checkpoint_steps": 4}
    options |= {"optimizer__schedule": "linear", "training__keep": "best", "training__patience": 2}
    (undisturbed,) = run_here(results="undisturbed", **options)

    def stopping(optimizer: OptimizerConfig, step: int, steps: int) -> float:
        if step == 13:
            raise KeyboardInterrupt
        return learning_rate(optimizer, step, steps)

    with monkeypatch.context() as patch:
        patch.setattr("harness.training.loop.learning_rate", stopping)
        (stopped,) = run_here(**options)
    assert stopped.status == "interrupted"
    run_here(**options)
    (resumed,) = Store(tmp_path / "results").all()
    assert resumed.resumed_from_step == 12
    assert (resumed.metrics, resumed.head_fit) == (undisturbed.metrics, undisturbed.head_fit)
    assert resumed.epochs == undisturbed.epochs
    losses = [losses_of(tmp_path / where, one) for where, one in (("results", resumed), ("undisturbed", undisturbed))]
    assert losses[0] == losses[1]


def test_a_learned_query_begins_at_the_mean(run_here: Callable, tmp_path: Path) -> None:
    file = tmp_path / "query.py"
    file.write_text(
        "from harness import Strategy\n\nstrategy = Strategy(readout='attention', phases=('fit_head', 'steps'))\n"
    )
    options = {**SMALL, "training__epochs": 0}
    (mean,) = run_here(strategy=["probe"], readout="mean", **options)
    (query,) = run_here(strategy=[str(file)], **options)
    assert query.head_fit == mean.head_fit
    assert query.metrics.test.loss == pytest.approx(mean.metrics.test.loss, abs=1e-9)


def test_the_plain_path_fits_the_same_head(run_here: Callable, tmp_path: Path) -> None:
    options = {"strategy": ["probe_then_full"], **SMALL, "data__size": 60}
    (fast,), (plain,) = (run_here(results=f"plain {one}", plain=one, **options) for one in (False, True))
    assert plain.head_fit.strength == fast.head_fit.strength
    assert plain.head_fit.validation_loss == pytest.approx(fast.head_fit.validation_loss, abs=1e-7)
    losses = [losses_of(tmp_path / f"plain {one}", record) for one, record in ((False, fast), (True, plain))]
    assert losses[0] == pytest.approx(losses[1], abs=1e-7)


def test_a_rate_is_not_tuned_where_there_are_no_steps(run_here: Callable, refused: Callable, tmp_path: Path) -> None:
    options = {**SMALL, "data__size": 60, "tune": "lr", "strategy": ["head_only", "probe"]}
    records = run_here(**options)
    assert [record.sweep_around for record in records if record.strategy == "probe"] == [None]
    assert any(record.sweep_around for record in records)
    assert "what takes no steps has no learning rate" in refused("--strategy", "probe,majority", "--tune", "lr")


def test_explain_and_list_name_the_phases(run_cli: Callable, tmp_path: Path) -> None:
    cache = ("--cache", str(tmp_path / "cache"))
    _, alone, _ = run_cli("explain", "probe", "--model", "mini", *cache, results=None)
    assert "when fitted" in alone
    assert "each step" not in alone
    _, both, _ = run_cli("explain", "probe_then_full", "--model", "mini", *cache, results=None)
    assert "gives the head; then all that is trained takes gradient steps." in both
    _, listed, _ = run_cli("list", "--model", "mini", *cache, results=None)
    assert re.search(r"probe_then_full .* fit_head, steps ", listed)
