"""Small random models of the library, one of every mapped family, saved as folders with a tokenizer."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from harness.model.hub.families import FAMILIES

WORDS = [f"w{number}" for number in range(89)] + ["yes"]
SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
_SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
_LLAMA = {**_SIZES, "num_key_value_heads": 2}
# Windows shorter than the texts of the tests; dropout as the published models have it.
OF_FAMILY = {
    "llama": _LLAMA,
    "mistral": {**_LLAMA, "sliding_window": 5},
    "qwen2": _LLAMA,
    "qwen3": {**_LLAMA, "head_dim": 8},
    "gpt_neox": _SIZES,
    "opt": {**_SIZES, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4},
    "bert": _SIZES,
    "roberta": {**_SIZES, "pad_token_id": 1, "max_position_embeddings": 66},
    "distilbert": {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48},
    "modernbert": {**_SIZES, "local_attention": 8, "global_attn_every_n_layers": 2},
}
assert set(OF_FAMILY) == set(FAMILIES)


def small_model(family: str) -> transformers.PreTrainedModel:
    """Random, in float32, with weights far enough from zero for positions to matter."""
    vocabulary = {"vocab_size": len(SPECIAL) + len(WORDS), "max_position_embeddings": 64, "pad_token_id": 0}
    special = {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    config = transformers.AutoConfig.for_model(family, **(vocabulary | special | OF_FAMILY[family]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = transformers.AutoModel.from_config(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def save_tokenizer(folder: Path, encoder: bool) -> None:
    tokenizer = Tokenizer(models.WordLevel({word: rank for rank, word in enumerate([*SPECIAL, *WORDS])}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if encoder:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
        )
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)


def write_texts(path: Path, shortest: int, longest: int) -> Path:
    """80 texts of so many words: the class is told by whether the last word is "yes"."""
    random = np.random.default_rng(7)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number in range(80):
            words = list(random.choice(WORDS[:-1], random.integers(shortest, longest + 1)))
            writer.writerow([" ".join(words + ["yes"] * (number % 2)), "ab"[number % 2]])
    return path


def save_small(folder: Path, family: str) -> Path:
    small_model(family).save_pretrained(folder)
    if family == "qwen2":  # whatever is saved, the library reads it as Qwen's own: byte pairs
        letters = {letter: rank for rank, letter in enumerate([*SPECIAL, *"w0123456789yesĠ"])}
        transformers.Qwen2Tokenizer(letters, [], pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    else:
        save_tokenizer(folder, encoder=FAMILIES[family].attention == "full")
    return folder
