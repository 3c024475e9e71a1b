"""Backbones of `transformers`: what the library computes is the oracle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.config.schema import ModelConfig
from harness.data.tokenizer import BARE, Template, load_tokenizer
from harness.kernels import one_query_hub
from harness.model.hub.backbone import HubBackbone
from harness.model.hub.families import FAMILIES
from harness.model.hub.loading import HubModel
from harness.model.packing import PackedBatch
from harness.results.store import Store
from tests.support.hub_models import save_small, small_model, write_texts
from tests.support.runs import losses_of, predicted_by

LENGTHS = np.array([3, 17, 1, 9, 17])


def _backbone(folder: Path) -> HubBackbone:
    model = HubModel(folder)
    backbone = model.empty()
    model.weights(ModelConfig(name=f"hf:{folder}"), folder).fill(backbone, backbone.stages())
    return backbone


def _ids() -> np.ndarray:
    return np.random.default_rng(3).integers(4, 90, LENGTHS.sum())


def _library_states(family: str, ids: np.ndarray, pad_left: bool) -> torch.Tensor:
    """[tokens, hidden], of a batch that is padded at one side."""
    model, width = small_model(family), LENGTHS.max()
    seen = np.arange(width) < LENGTHS[:, None]
    seen = seen[:, ::-1].copy() if pad_left else seen
    padded = np.full(seen.shape, model.config.pad_token_id)
    padded[seen] = ids
    arguments = {"input_ids": torch.from_numpy(padded), "attention_mask": torch.from_numpy(seen).long()}
    if pad_left and family not in ("roberta", "opt", "modernbert"):
        arguments["position_ids"] = torch.from_numpy(np.maximum(np.cumsum(seen, 1) - 1, 0))
    with torch.no_grad():
        return model(**arguments).last_hidden_state[torch.from_numpy(seen)]


@pytest.mark.parametrize("pad_left", [False, True], ids=["padded right", "padded left"])
@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_are_the_librarys(tmp_path: Path, family: str, pad_left: bool) -> None:
    backbone, ids = _backbone(save_small(tmp_path, family)), _ids()
    rows = PackedBatch.packed(LENGTHS)
    with torch.no_grad():
        found = backbone(rows.pack(torch.from_numpy(ids)), rows)[: len(ids)]
    torch.testing.assert_close(found, _library_states(family, ids, pad_left), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["causal", "full"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_block_read_at_one_token_gives_what_it_gives_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, kind: str
) -> None:
    """Anywhere in a row, not only at its ends."""
    backbone, rows = _backbone(save_small(tmp_path, family)), PackedBatch.packed(LENGTHS)
    backbone.set_attention(kind)
    hidden = torch.randn(len(rows.positions()), 32, generator=torch.Generator().manual_seed(1))
    read_at = rows.starts + torch.tensor([2, 9, 0, 0, 16])
    monkeypatch.setattr(one_query_hub, "read_indices", lambda batch, position: read_at)
    for name, block in backbone.stages().items():
        if name.startswith("block."):
            found = one_query_hub.OneQueryHubBlock.reading(block, "last")(hidden, rows)
            torch.testing.assert_close(found, block(hidden, rows)[read_at], atol=1e-5, rtol=1e-5, msg=name)


def test_no_token_sees_those_of_other_rows_or_those_it_may_not_see(tmp_path: Path) -> None:
    backbone, ids = _backbone(save_small(tmp_path, "llama")), torch.from_numpy(_ids())
    with torch.no_grad():
        for kind, last_sees_on in (("causal", False), ("full", True)):
            backbone.set_attention(kind)
            rows = PackedBatch.packed(LENGTHS)
            before = backbone(rows.pack(ids), rows)
            changed = ids.clone()
            changed[3 + 17 - 1] += 1  # the last of the second row
            moved = (backbone(rows.pack(changed), rows) - before).abs().amax(1)[: len(ids)] > 1e-6
            assert moved[3:20].tolist() == [last_sees_on] * 16 + [True]
            assert not moved[:3].any()
            assert not moved[20:].any()


@pytest.fixture
def messages(tmp_path: Path) -> Path:
    return write_texts(tmp_path / "messages.csv", shortest=2, longest=19)


IN_SHORT = ("llama",)
STRATEGIES = ["head_only", "last_block", "full", "lora", "first_token", "mean_pool", "last_padded"]


@pytest.mark.parametrize(
    "family", [name if name in IN_SHORT else pytest.param(name, marks=pytest.mark.long) for name in FAMILIES]
)
def test_the_fast_path_gives_what_the_plain_one_gives(
    run_here: Callable, tmp_path: Path, messages: Path, family: str
) -> None:
    """Stored features, the top block read at one token and rows without padding change nothing, for any strategy."""
    model = f"hf:{save_small(tmp_path / family, family)}"
    options = {"model__name": model, "data__name": str(messages), "strategy": STRATEGIES, "precision": "fp32"}
    options |= {"training__epochs": 1, "optimizer__learning_rate": 1e-3}
    fast = run_here("fast", **options)
    plain = run_here("plain", plain=True, **options)
    assert [record.status for record in [*fast, *plain]] == ["ok"] * 2 * len(STRATEGIES)
    for one, other in zip(fast, plain, strict=True):
        losses = losses_of(tmp_path / "fast", one)
        assert losses == pytest.approx(losses_of(tmp_path / "plain", other), abs=1e-5), one.strategy
        assert predicted_by(tmp_path / "fast", one) == predicted_by(tmp_path / "plain", other)
    assert sum(record.prefix.reused_tokens > 0 for record in fast) >= 3


@pytest.mark.parametrize(
    ("family", "change"),
    [("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 20.0}}), ("bert", {"layer_norm_eps": 0.1})],
)
def test_features_of_another_configuration_are_not_taken(
    run_here: Callable, tmp_path: Path, messages: Path, family: str, change: dict
) -> None:
    """The same tensors, class names and rows."""
    folder = save_small(tmp_path / family, family)
    options = {"model__name": f"hf:{folder}", "data__name": str(messages), "training__epochs": 0}
    (before,) = run_here("before", **options)
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    file = other / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    (after,) = run_here("after", **options | {"model__name": f"hf:{other}"})
    assert (before.prefix.reused_tokens, after.prefix.reused_tokens) == (0, 0)
    assert before.metrics.test.loss != after.metrics.test.loss


def test_a_baseline_is_done_again_for_another_tokenizer(run_here: Callable, tmp_path: Path, messages: Path) -> None:
    options = {"data__name": str(messages), "strategy": ["length_rule"]}
    done = [
        run_here(model__name=f"hf:{save_small(tmp_path / family, family)}", **options) for family in ("llama", "qwen2")
    ]
    assert [len(records) for records in done] == [1, 1]


def test_an_encoder_reads_its_first_token_with_full_attention_unless_told_otherwise(
    run_here: Callable, tmp_path: Path, messages: Path
) -> None:
    options = {"data__name": str(messages), "training__epochs": 0}
    for family, readout in (("bert", "first"), ("llama", "last")):
        model = f"hf:{save_small(tmp_path / family, family)}"
        (record,) = run_here(family, model__name=model, **options)
        assert (record.readout, record.attention) == (readout, FAMILIES[family].attention)
        (record,) = run_here(f"{family} other", model__name=model, readout="mean", **options)
        assert record.readout == "mean"


def test_rows_begin_and_end_as_the_model_expects(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(f"hf:{save_small(tmp_path / 'bert', 'bert')}", tmp_path, None)
    assert tokenizer.template(pair=False) == Template([1], [], [2])
    assert tokenizer.encode_ordinary("w0") == [4]
    assert 2 not in tokenizer.encode_ordinary("w0 [SEP] w1")  # a text can't end its row
    decoder = load_tokenizer(f"hf:{save_small(tmp_path / 'llama', 'llama')}", tmp_path, None)
    assert decoder.encode(["w0 w1"]) == [[4, 5]]
    assert decoder.template(pair=False) == BARE
    assert decoder.pad_token == 0


@pytest.mark.long
@pytest.mark.parametrize("stage", [0, 3])
def test_deepspeed_trains_what_ddp_trains(ftbench: Callable, tmp_path: Path, messages: Path, stage: int) -> None:
    model = f"hf:{save_small(tmp_path / 'llama', 'llama')}"
    options = ["--model", model, "--data", str(messages), "--precision", "fp32", "--epochs", "1"]
    options += ["--strategy", "last_block,full", "--set", "optimizer.learning_rate=1e-3"]
    for engine in ([], ["--engine", "deepspeed", "--zero", str(stage), "--nproc", "2"]):
        done = ftbench("run", *options, *engine)
        assert done.returncode == 0, done.stdout + done.stderr
    results = tmp_path / "results"
    found = {(record.strategy, record.engine.name): losses_of(results, record) for record in Store(results).all()}
    for name in ("last_block", "full"):
        assert found[name, "deepspeed"] == pytest.approx(found[name, "ddp"], abs=1e-5)
