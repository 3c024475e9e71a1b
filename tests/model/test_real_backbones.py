"""Real pretrained weights: a decoder of 135M parameters and an encoder of 22M (see `tools/wheel_models.py`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from harness.config.schema import ModelConfig
from harness.data.model_files.hub import locate
from harness.data.tokenizer import load_tokenizer
from harness.model.hub.loading import HubModel
from harness.model.packing import PackedBatch
from harness.report.analysis.comparison import compare
from harness.report.analysis.entry import Entry
from harness.report.analysis.grouping import Group
from harness.results.store import Store
from tools.wheel_models import DECODER, ENCODER, NotAvailable, WheelModel, fetch_models

pytestmark = pytest.mark.long

TEXTS = ["Every effort moves you", "ok", "URGENT! You have won a 1 week FREE membership, call 09061701461 now."]


@pytest.fixture
def mirror(assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The assets with both models in them, as FTBENCH_ASSETS."""
    try:
        fetched = fetch_models()
    except NotAvailable as reason:
        pytest.skip(str(reason))
    folder = tmp_path / "assets"
    folder.mkdir()
    for path in assets.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "models").unlink(missing_ok=True)
    (folder / "models").symlink_to(fetched / "models")
    monkeypatch.setenv("FTBENCH_ASSETS", str(folder))
    return folder


@pytest.mark.parametrize("model", [DECODER, ENCODER], ids=["decoder", "encoder"])
def test_real_hidden_states_are_the_librarys(mirror: Path, tmp_path: Path, model: WheelModel) -> None:
    published = mirror / "models" / model.hub_id
    file = next(published.glob("*.gguf"), None)
    options = {"gguf_file": file and file.name}
    library = transformers.AutoModel.from_pretrained(published, dtype=torch.float32, **options).eval()
    rows = [transformers.AutoTokenizer.from_pretrained(published, **options)(text)["input_ids"] for text in TEXTS]
    name = f"hf:{model.hub_id}"
    tokenizer = load_tokenizer(name, tmp_path, None)
    around = tokenizer.template(pair=False)
    assert [[*around.beginning, *ids, *around.ending] for ids in tokenizer.encode(TEXTS)] == rows
    ours = HubModel(locate(name, tmp_path))
    backbone = ours.empty()
    ours.weights(ModelConfig(name=name), ours.path).fill(backbone, backbone.stages())
    packed = PackedBatch.packed(np.array([len(row) for row in rows]))
    with torch.no_grad():
        found = backbone(packed.pack(torch.tensor([token for row in rows for token in row])), packed)
        for start, row in zip(packed.starts, rows, strict=True):
            expected = library(torch.tensor([row])).last_hidden_state[0]
            torch.testing.assert_close(found[start : start + len(row)], expected, atol=2e-3, rtol=1e-4)


def test_a_pretrained_decoder_is_read_at_its_last_token(mirror: Path, run_here: Callable, tmp_path: Path) -> None:
    options = {"model__name": f"hf:{DECODER.hub_id}", "data__name": "sms_spam", "seed": list(range(5))}
    pretrained = run_here(strategy=["last_block", "head_only", "first_token"], **options)
    random = run_here(strategy=["last_block", "head_only"], model__weights="random", **options)
    together = Group([*pretrained, *random], lambda record: f"{record.strategy}, {record.model.weights}")
    for name in ("last_block", "head_only"):
        entries = _entries(together, tmp_path, f"{name}, random")
        assert entries[f"{name}, pretrained"].evidence.verdict == "better"
    last, first = (entries[f"{name}, pretrained"].accuracy for name in ("last_block", "first_token"))
    assert last >= 0.9567
    assert first <= last - 0.10


def _entries(group: Group, tmp_path: Path, reference: str) -> dict[str, Entry]:
    return {entry.name: entry for entry in compare(group, Store(tmp_path / "results"), reference)}
