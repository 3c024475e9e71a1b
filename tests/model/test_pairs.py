"""Pairs of texts: rows as `transformers` makes them, and a model that embeds which text a token is of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from tokenizers import processors

from harness.config.schema import ModelConfig
from harness.data.encoding import RowRule, encode_split
from harness.data.tokenizer import SECOND_TEXT, load_tokenizer
from harness.model.hub.loading import HubModel
from harness.model.named.shapes import SHAPES
from harness.model.packing import PackedBatch
from tests.support.hub_models import save_small, small_model

PAIRS = [("w1 w2 w3", "w4"), ("w5", "w6 w7 w8 w9 w1 w2"), ("w3 w4", "w3 w4")]
TEMPLATES = {
    "bert": ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"),
    "roberta": ("[CLS] $A [SEP]", "[CLS] $A [SEP] [SEP] $B [SEP]"),
    "llama": ("[CLS] $A", "[CLS] $A [CLS] $B"),
    "gpt2": ("$A", "$A $B"),
}


def save_with_template(folder: Path, family: str) -> tuple[Path, transformers.PreTrainedTokenizerBase]:
    save_small(folder, family)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    single, pair = TEMPLATES[family]
    special = [("[CLS]", 1), ("[SEP]", 2)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single, pair, special)
    tokenizer.save_pretrained(folder)
    return folder, tokenizer


def rows_of(name: str, pairs: list[tuple[str, str]], rule: RowRule, cache: Path) -> list[list[int]]:
    frame = pd.DataFrame({"text": ["\n".join(pair) for pair in pairs], "label": ["a", *"b" * (len(pairs) - 1)]})
    frame["second_at"] = [len(first) + 1 for first, _ in pairs]
    examples = encode_split({"train": frame}, load_tokenizer(name, cache, None), ["a", "b"], rule)["train"]
    return [row.tolist() for row in np.split(examples.token_ids, examples.offsets[1:-1])]


@pytest.mark.parametrize("family", TEMPLATES)
@pytest.mark.parametrize("most_tokens", [64, 8, 7])
def test_a_pair_is_encoded_as_the_library_does(tmp_path: Path, family: str, most_tokens: int) -> None:
    folder, tokenizer = save_with_template(tmp_path / family, family)
    found = rows_of(f"hf:{folder}", PAIRS, RowRule(most_tokens), tmp_path)
    expected = [tokenizer(*pair, truncation="longest_first", max_length=most_tokens)["input_ids"] for pair in PAIRS]
    assert [[token % SECOND_TEXT for token in row] for row in found] == expected


def test_a_pair_for_gpt2_is_one_text_after_the_other(tmp_path: Path) -> None:
    tokenizer = load_tokenizer("mini", tmp_path, None)
    (row,) = rows_of("mini", [("send the money", "get the keys")], RowRule(SHAPES["mini"].context), tmp_path)
    assert row == tokenizer.encode_ordinary("send the money") + tokenizer.encode_ordinary("get the keys")


def test_the_hidden_states_of_a_pair_are_the_librarys(tmp_path: Path) -> None:
    """BERT embeds which text a token is of."""
    folder, tokenizer = save_with_template(tmp_path / "bert", "bert")
    rows = rows_of(f"hf:{folder}", PAIRS, RowRule(64), tmp_path)
    ours = HubModel(folder)
    backbone, library = ours.empty(), small_model("bert")
    ours.weights(ModelConfig(name=f"hf:{folder}"), folder).fill(backbone, backbone.stages())
    packed = PackedBatch.packed(np.array([len(row) for row in rows]))
    with torch.no_grad():
        found = backbone(packed.pack(torch.tensor([token for row in rows for token in row])), packed)
        for pair, start in zip(PAIRS, packed.starts, strict=True):
            encoded = tokenizer(*pair, return_tensors="pt", return_token_type_ids=True)
            assert encoded["token_type_ids"].any()
            expected = library(**encoded).last_hidden_state[0]
            torch.testing.assert_close(found[start : start + len(expected)], expected, atol=1e-5, rtol=1e-5)
