"""The families of `transformers` that are mapped: where their models keep what a backbone is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from harness.config.strategy import AttentionKind
from harness.data.tokenizer import SECOND_TEXT
from harness.model.backbone import PARTS

Embed = Callable[[Sequence[Any], Tensor, Tensor], Tensor]


def _tokens(parts: Sequence[Any], ids: Tensor, positions: Tensor) -> Tensor:
    return parts[0](ids)


def _tokens_and_positions(parts: Sequence[Any], ids: Tensor, positions: Tensor) -> Tensor:
    return parts[0](ids) + parts[1](positions)


def _opt(parts: Sequence[Any], ids: Tensor, positions: Tensor) -> Tensor:
    return parts[0](ids) + parts[1](None, position_ids=positions)


def _whole(parts: Sequence[Any], ids: Tensor, positions: Tensor) -> Tensor:
    return parts[0](input_ids=ids, position_ids=positions)


def _bert(parts: Sequence[Any], ids: Tensor, positions: Tensor) -> Tensor:
    ids, of_second = ids % SECOND_TEXT, ids // SECOND_TEXT
    return parts[0](input_ids=ids, token_type_ids=of_second, position_ids=positions)


def _roberta(parts: Sequence[Any], ids: Tensor, positions: Tensor) -> Tensor:
    return parts[0](input_ids=ids, position_ids=positions + parts[0].padding_idx + 1)


def _without_positions(parts: Sequence[Any], ids: Tensor, positions: Tensor) -> Tensor:
    return parts[0](input_ids=ids)


@dataclass(frozen=True)
class Family:
    """Where models of one architecture keep their parts, by dotted names below the model.

    embeddings: what `embed(parts, ids, positions)` makes hidden states of; ids and positions are [1, tokens].
    rotary: what makes the rotary position embeddings that every block is given; rotary_by_kind: whether they depend on
    the block's kind of attention. attention: the model's own. parts: as `Backbone.parts`, below a layer of the library.
    """

    embeddings: tuple[str, ...]
    embed: Embed
    blocks: str
    parts: Mapping[str, str]
    final_norm: str | None = None
    rotary: str | None = None
    rotary_by_kind: bool = False
    attention: AttentionKind = "causal"


def _separate(query: str, key: str, value: str, output: str, expand: str, contract: str) -> dict[str, str]:
    return dict(zip(PARTS, (query, key, value, output, expand, contract), strict=True))


def _fused(query_key_value: str, output: str, expand: str, contract: str) -> dict[str, str]:
    """One matrix makes queries, keys and values: they can't be named alone."""
    return dict(
        zip(("attention.query_key_value", *PARTS[3:]), (query_key_value, output, expand, contract), strict=True)
    )


_LLAMA_PARTS = _separate(
    *(f"self_attn.{one}_proj" for one in "qkvo"), expand="mlp.up_proj", contract="mlp.down_proj"
) | {"mlp.gate": "mlp.gate_proj"}
_LLAMA = Family(("embed_tokens",), _tokens, "layers", _LLAMA_PARTS, "norm", "rotary_emb")
_BERT_PARTS = _separate(
    *(f"attention.self.{one}" for one in ("query", "key", "value")),
    output="attention.output.dense",
    expand="intermediate.dense",
    contract="output.dense",
)
_BERT = Family(("embeddings",), _bert, "encoder.layer", _BERT_PARTS, attention="full")
_DISTILBERT_PARTS = _separate(
    *(f"attention.{one}_lin" for one in ("q", "k", "v", "out")), expand="ffn.lin1", contract="ffn.lin2"
)
FAMILIES = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gpt_neox": Family(
        ("embed_in",),
        _tokens,
        "layers",
        _fused("attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
        "final_layer_norm",
        "rotary_emb",
    ),
    "opt": Family(
        ("decoder.embed_tokens", "decoder.embed_positions"),
        _opt,
        "decoder.layers",
        _separate(*(f"self_attn.{one}_proj" for one in ("q", "k", "v", "out")), expand="fc1", contract="fc2"),
        "decoder.final_layer_norm",
    ),
    "gpt2": Family(
        ("wte", "wpe"),
        _tokens_and_positions,
        "h",
        _fused("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
        "ln_f",
    ),
    "bert": _BERT,
    "roberta": replace(_BERT, embed=_roberta),
    "distilbert": replace(_BERT, embed=_whole, blocks="transformer.layer", parts=_DISTILBERT_PARTS),
    "modernbert": Family(
        ("embeddings",),
        _without_positions,
        "layers",
        _fused("attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo"),
        "final_norm",
        "rotary_emb",
        True,
        "full",
    ),
}
