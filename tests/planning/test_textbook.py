"""The published table as a suite: what each row runs, and what a user's own rows may say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.config.schema import RunConfig
from harness.config.suite import SuiteConfig, SuiteRow, load_suite
from harness.errors import UserError
from harness.model.backbone import run_stages
from harness.model.gpt2 import GPT2
from harness.model.named.models import GPT2Model
from harness.model.named.shapes import SHAPES
from harness.model.packing import PackedBatch
from harness.planning import plan, resolve
from harness.planning.strategy import resolve_strategy, trainable_parameters
from harness.planning.workspace import Workspace
from harness.results.store import Store

TEXTBOOK = Path(__file__).parents[2] / "configs" / "textbook.yaml"
# model, weights, readout, trained parameters, pad_to, batch size, micro-batch size, attention: section 2 of the design.
LAST_BLOCK, TWO_BLOCKS, ALL, LORA = 7_090_946, 14_178_818, 124_441_346, 2_668_066
SPECIFIED = {
    1: ("gpt2", "pretrained", "last", LAST_BLOCK, 120, 8, None, "causal"),
    2: ("gpt2", "pretrained", "first", LAST_BLOCK, 120, 8, None, "causal"),
    3: ("gpt2", "pretrained", "last", 1_538, 120, 8, None, "causal"),
    4: ("gpt2", "pretrained", "last", TWO_BLOCKS, 120, 8, None, "causal"),
    5: ("gpt2", "pretrained", "last", ALL, 120, 8, None, "causal"),
    6: ("gpt2-medium", "pretrained", "last", 12_600_322, 120, 8, None, "causal"),
    7: ("gpt2-large", "pretrained", "last", 19_682_562, 120, 8, None, "causal"),
    8: ("gpt2-xl", "pretrained", "last", 30_747_202, 120, 8, None, "causal"),
    9: ("gpt2-xl", "pretrained", "last", 1_557_614_402, 120, 8, None, "causal"),
    10: ("gpt2", "random", "last", ALL, 120, 8, None, "causal"),
    11: ("gpt2", "pretrained", "last", LORA, 120, 8, None, "causal"),
    12: ("gpt2-xl", "pretrained", "last", 22_147_234, 120, 8, None, "causal"),
    13: ("gpt2", "pretrained", "last", LAST_BLOCK, 1024, 8, None, "causal"),
    14: ("gpt2", "pretrained", "last", LAST_BLOCK, None, 1, None, "causal"),
    15: ("gpt2", "pretrained", "last", LAST_BLOCK, None, 8, 1, "causal"),
    16: ("gpt2", "pretrained", "last", LAST_BLOCK, None, 8, None, "causal"),
    17: ("gpt2", "pretrained", "last", LAST_BLOCK, 120, 8, None, "full"),
    18: ("gpt2", "pretrained", "last", LAST_BLOCK, 120, 8, None, "causal"),
    19: ("gpt2", "pretrained", "mean", LAST_BLOCK, 120, 8, None, "causal"),
}


def _numbered(**options: object) -> dict[int, SuiteRow]:
    dotted = {key.replace("__", "."): value for key, value in options.items()}
    return {row.published.number: row for row in load_suite(TEXTBOOK, dotted, []).rows}


def test_every_row_is_the_run_that_was_published() -> None:
    rows = _numbered()
    assert list(rows) == list(SPECIFIED)
    for number, row in rows.items():
        (config,) = row.runs
        model = GPT2Model(config.model.name)
        strategy, training = resolve_strategy(config, model.attention).strategy(), config.training
        trained = trainable_parameters(strategy, model, classes=2)
        found = (config.model.name, config.model.weights, strategy.readout, trained, strategy.input.pad_to)
        assert (*found, training.batch_size, training.micro_batch_size, strategy.attention) == SPECIFIED[number], number
        assert (config.seed, training.epochs, training.drop_last, config.data.name) == (123, 5, True, "sms_spam")
        assert (config.optimizer.learning_rate, config.optimizer.weight_decay) == (5e-5, 0.1)
        assert not row.changed
        assert not row.skipped
    adapters = {number: resolve_strategy(rows[number].runs[0], "causal").adapt for number in (11, 12)}
    assert [(one.rank, one.alpha) for (one,) in adapters.values()] == [(16, 16), (16, 8)]
    assert [number for number, row in rows.items() if row.runs[0].model.init == "pytorch"] == [10]
    assert rows[18].runs == rows[1].runs


def test_only_the_figure_marked_as_a_misprint_is_impossible() -> None:
    impossible = set()
    for number, row in _numbered().items():
        training = 1045 - 1045 % row.runs[0].training.batch_size
        for part, total in {"train": training, "validation": 149, "test": 300}.items():
            figure = getattr(row.published, part)
            nearest = 100 * round(figure / 100 * total) / total
            if abs(nearest - figure) > 0.00501:
                impossible.add((number, part))
        assert all((number, part) in impossible for part in row.published.misprint)
    assert impossible == {(8, "validation")}


def test_options_apply_to_all_rows_and_pick_among_them() -> None:
    rows = _numbered(training__epochs=1, seed=[0, 1])
    assert {(run.seed, run.training.epochs) for row in rows.values() for run in row.runs} == {(0, 1), (1, 1)}
    assert all(row.changed == ["training.epochs=1 instead of 5"] for row in rows.values())
    assert not any(row.skipped for row in rows.values())
    medium = _numbered(model__name="gpt2-medium")
    assert [number for number, row in medium.items() if not row.skipped] == [6]
    assert medium[1].skipped == "not asked for: model.name=gpt2-medium"
    assert not medium[6].changed
    some = _numbered(strategy=["head_only", "lora"])
    assert [number for number, row in some.items() if not row.skipped] == [3, 11, 12]
    assert not any(row.changed or row.skipped for row in _numbered(model__name="auto", model__weights="auto").values())


def test_random_weights_run_the_small_size_and_what_model_asks_for() -> None:
    rows = _numbered(model__weights="random")
    assert [number for number, row in rows.items() if row.skipped] == [6, 7, 8, 9, 12]
    assert "MODEL=gpt2-xl does" in rows[8].skipped
    assert [number for number, row in rows.items() if not row.changed] == [10]
    assert rows[1].changed == ["model.weights=random instead of pretrained"]
    large = _numbered(model__weights="random", model__name="gpt2-xl")
    assert [number for number, row in large.items() if not row.skipped] == [8, 9, 12]


def test_what_changes_no_result_leaves_a_row_comparable() -> None:
    rows = load_suite(TEXTBOOK, {"precision": "fp32", "engine.processes": 2}, ["features.limit_gigabytes=1"]).rows
    assert not any(row.changed for row in rows)


@torch.no_grad()
def test_padding_after_the_token_that_is_read_changes_nothing_under_the_causal_mask() -> None:
    """Why row 16 may run without padding."""
    torch.manual_seed(0)
    backbone = GPT2(SHAPES["mini"]).double()
    ids, stages = torch.randint(0, 256, (24,)), list(backbone.stages().values())
    real, padded = PackedBatch.packed(np.array([9])), PackedBatch.packed(np.array([24]))
    without, with_padding = (run_stages(stages, rows.pack(ids[: int(rows.lengths)]), rows) for rows in (real, padded))
    torch.testing.assert_close(with_padding[8], without[8], rtol=0, atol=1e-12)


ROWS = """
strategy: last_block
model: {name: mini}
data: {name: synthetic, size: 60}
training: {epochs: 1}
source: a made-up table
rows:
  - name: short | long
    published: {number: 1, train: 50, validation: 50, test: 50, minutes: 0.1, misprint: [validation], note: old.}
  - name: head
    strategy: head_only
    published: {number: 2, train: 50, validation: 50, test: 50}
  - name: again
    published: {number: 3, train: 50, validation: 50, test: 50, copy_of: 1}
  - name: large [one]
    model: {name: gpt2-xl, weights: pretrained}
    published: {number: 4, train: 50, validation: 50, test: 50}
  - name: nothing known
    training: {epochs: 0}
"""


def _pretend_vocabularies(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if those of all sizes were at hand."""
    real = Workspace.tokenizer
    monkeypatch.setattr(Workspace, "tokenizer", lambda self, name: real(self, name) if name == "mini" else None)


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.yaml"
    path.write_text(ROWS)
    return path


def test_a_suite_with_rows_from_start_to_finish(
    rows_file: Path, tmp_path: Path, run_cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "find_pretrained", lambda *_: "no network")
    _pretend_vocabularies(monkeypatch)
    given = ("--config", str(rows_file), "--cache", str(tmp_path / "cache"))
    code, out, _ = run_cli("run", *given, "--seeds", "0,1")
    assert code == 0
    store = Store(tmp_path / "results")
    records = store.all()
    assert len(records) == 6, "two seeds of three rows; the copy is run once"
    assert {record.metrics.train.total for record in records} == {42}
    assert {record.metrics.train_batches.total for record in records} == {40}
    assert "nothing known, seed 0: started" in out
    assert "skipped: large [one] (no pretrained weights of gpt2-xl: no network)" in out
    table = json.loads((store.results / "comparison.json").read_text())[-1]
    verdicts = {row["name"]: row["verdict"] for row in table["rows"]}
    assert verdicts["short | long"].startswith(("agrees", "differs"))
    assert verdicts["again"] == "not judged: computes the same as row 1"
    assert verdicts["large [one]"] == "not judged: skipped, no pretrained weights of gpt2-xl"
    assert verdicts["nothing known"] == "not judged: nothing published"
    first = table["rows"][0]
    assert first["seeds"] == [0, 1]
    assert first["figures"]["validation"]["verdict"] == "not judged: misprint"
    ours = [
        record.metrics for record in records if record.strategy == "last_block" and record.config["training"]["epochs"]
    ]
    mean = 100 * np.mean([metrics.train_batches.accuracy for metrics in ours])
    assert first["figures"]["train"]["ours"] == pytest.approx(mean)
    written = (store.results / "table.md").read_text()
    for text in ("Published figures: a made-up table", "short \\| long", "50.00 misprint", "Row 1: old."):
        assert text in written
    assert "Skipped, row 4: no pretrained weights of gpt2-xl: no network." in written

    code, again, _ = run_cli("table")
    assert code == 0
    assert "Published figures: a made-up table" in again
    assert "done before" in run_cli("run", *given, "--seeds", "0,1")[1]


def test_a_suite_of_which_no_row_can_run_says_why(
    rows_file: Path, tmp_path: Path, run_cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(resolve, "find_pretrained", lambda *_: asked.append(1) or "no network")
    _pretend_vocabularies(monkeypatch)
    rows_file.write_text(ROWS + "  - {name: another, strategy: full, model: {name: gpt2-xl, weights: pretrained}}\n")
    code, _, told = run_cli("run", "--config", str(rows_file), "--model", "gpt2-xl", "--cache", str(tmp_path / "cache"))
    assert code == 2
    assert "no row of suite 'rows' can run" in told
    assert "no pretrained weights of gpt2-xl: no network" in told
    assert len(asked) == 1, "what is missing is looked for once"


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        ("[]", ["'rows' is []", "expected a list"]),
        ("full", ["'rows' is 'full'", "expected a list"]),
        ("[full]", ["entry 1", "'full'", "`name`"]),
        ("[{strategy: full}]", ["row 1", "'name' is missing"]),
        ("[{name: a, strateggy: full}]", ["row 'a'", "unknown configuration key 'strateggy'", "'strategy'"]),
        ("[{name: a, training: {epoch: 1}}]", ["row 'a'", "did you mean 'training.epochs'?"]),
        ("[{name: a, training: 3}]", ["row 'a'", "'training' is 3"]),
        ("[{name: a, strategy: [full, lora]}]", ["row 'a'", "several strategies"]),
        ("[{name: a, engine: {processes: 2}}]", ["row 'a'", "'engine'", "beside `rows`"]),
        ("[{name: a, published: 3}]", ["row 'a'", "'published' is 3", "published.number"]),
        ("[{name: a, published: {number: 1, train: 1, validation: 1}}]", ["row 'a'", "'published.test' is missing"]),
        ("[{name: a, published: {numbr: 1}}]", ["row 'a'", "did you mean 'published.number'?"]),
        ("[{name: a, published: {number: 1, train: 101, validation: 1, test: 1}}]", ["'published.train' is 101"]),
        ("[{name: a}, {name: a, strategy: full}]", ["a suite with a duplicate row", "'a'"]),
        ("[{name: a}, {name: b, strategy: last_block}]", ["a suite with a duplicate row", "'b' and 'a'", "copy_of"]),
        (
            "[{name: a, published: {number: 1, train: 1, validation: 1, test: 1}},"
            " {name: b, strategy: full, published: {number: 1, train: 1, validation: 1, test: 1}}]",
            ["a suite with a duplicate row", "number 1"],
        ),
        (
            "[{name: a, published: {number: 1, train: 1, validation: 1, test: 1}},"
            " {name: b, strategy: full, published: {number: 2, train: 1, validation: 1, test: 1, copy_of: 1}}]",
            ["row 'b' is no copy of row 1"],
        ),
    ],
)
def test_wrong_rows_are_named(tmp_path: Path, rows: str, parts: list[str]) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(f"rows: {rows}\n")
    with pytest.raises(UserError) as caught:
        load_suite(file, {}, [])
    for part in parts:
        assert part in str(caught.value)


def test_a_suite_without_rows_is_strict_about_missing_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "find_pretrained", lambda *_: "no network")
    _pretend_vocabularies(monkeypatch)
    suite = load_suite(None, {"model.name": "gpt2", "model.weights": "pretrained"}, [])
    with pytest.raises(UserError, match="Connect to the network once"):
        plan.resolve(suite, tmp_path, Workspace(tmp_path))


def test_a_plain_suite_is_one_row_of_every_strategy_with_every_seed() -> None:
    suite = load_suite(None, {"strategy": ["full", "lora"], "seed": [1, 0]}, [])
    assert isinstance(suite, SuiteConfig)
    (row,) = suite.rows
    assert row.name is None
    assert row.runs == [RunConfig(strategy=name, seed=seed) for name in ("full", "lora") for seed in (1, 0)]
