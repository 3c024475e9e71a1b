"""Backbones of `transformers`: its own layers, called so that they work on rows without padding between them.

A model of the library sees one long row that holds all rows of a batch; what keeps them apart is attention, which the
library lets us replace. The same place serves the top block: asked for one token of each row, the layer runs twice,
first over all tokens until its keys and values are known, then over the tokens that are read, with those. So no layer
is copied, and a new family is one entry of `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from importlib.metadata import version
from operator import attrgetter
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.config.strategy import AttentionKind
from harness.errors import UserError
from harness.model.attention import Attended, attend
from harness.model.backbone import Backbone, Block, Stage
from harness.model.packing import Rows

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

ATTENTION = "ftbench"

Embed = Callable[[Sequence[nn.Module], Tensor, Tensor], Tensor]


def _tokens(parts: Sequence[nn.Module], ids: Tensor, positions: Tensor) -> Tensor:
    return parts[0](ids)


def _tokens_and_positions(parts: Sequence[nn.Module], ids: Tensor, positions: Tensor) -> Tensor:
    return parts[0](ids) + parts[1](positions)


def _opt(parts: Sequence[nn.Module], ids: Tensor, positions: Tensor) -> Tensor:
    return parts[0](ids) + parts[1](None, position_ids=positions)


def _whole(parts: Sequence[nn.Module], ids: Tensor, positions: Tensor) -> Tensor:
    return parts[0](input_ids=ids, position_ids=positions)


def _roberta(parts: Sequence[nn.Module], ids: Tensor, positions: Tensor) -> Tensor:
    return parts[0](input_ids=ids, position_ids=positions + parts[0].padding_idx + 1)


def _without_positions(parts: Sequence[nn.Module], ids: Tensor, positions: Tensor) -> Tensor:
    return parts[0](input_ids=ids)


@dataclass(frozen=True)
class Family:
    """Where models of one architecture keep their parts, by dotted names below the model.

    embeddings: what `embed(parts, ids, positions)` makes hidden states of; ids and positions are [1, tokens].
    rotary: what makes the rotary position embeddings that every block is given; rotary_by_kind: whether they depend on
    the block's kind of attention. attention: the model's own.
    """

    embeddings: tuple[str, ...]
    embed: Embed
    blocks: str
    final_norm: str | None = None
    rotary: str | None = None
    rotary_by_kind: bool = False
    attention: AttentionKind = "causal"


_LLAMA = Family(("embed_tokens",), _tokens, "layers", "norm", "rotary_emb")
_BERT = Family(("embeddings",), _whole, "encoder.layer", attention="full")
FAMILIES = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gpt_neox": Family(("embed_in",), _tokens, "layers", "final_layer_norm", "rotary_emb"),
    "opt": Family(
        ("decoder.embed_tokens", "decoder.embed_positions"), _opt, "decoder.layers", "decoder.final_layer_norm"
    ),
    "gpt2": Family(("wte", "wpe"), _tokens_and_positions, "h", "ln_f"),
    "bert": _BERT,
    "roberta": replace(_BERT, embed=_roberta),
    "distilbert": replace(_BERT, blocks="transformer.layer"),
    "modernbert": Family(("embeddings",), _without_positions, "layers", "final_norm", "rotary_emb", True, "full"),
}


@dataclass
class _Call:
    """What the attention of a layer that runs now is to do. keys_and_values: what it works with instead of its own."""

    attended: Attended
    keys_and_values: tuple[Tensor, Tensor] | None = None
    stop: bool = False


class _Stopped(Exception):
    """Keys and values of a layer are known, and nothing else of it is wanted."""


_CALL: ContextVar[_Call] = ContextVar("call")


@contextmanager
def _calling(call: _Call) -> Iterator[None]:
    token = _CALL.set(call)
    try:
        yield
    finally:
        _CALL.reset(token)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The library's signature: query, key and value [1, heads, tokens, head] -> [1, tokens, heads, head]."""
    call = _CALL.get()
    heads = query.shape[1]
    query, key, value = (part[0].transpose(0, 1).flatten(1) for part in (query, key, value))
    if call.stop:
        call.keys_and_values = key, value
        raise _Stopped
    key, value = call.keys_and_values or (key, value)
    attended = replace(call.attended, window=sliding_window)
    return attend(query, key, value, heads, attended, scaling).unflatten(-1, (heads, -1))[None], None


class Rotary:
    """The cosines and sines of a batch's positions, worked out once for all blocks. No module: it has no parameters,
    and stages come and go without it."""

    def __init__(self, make: nn.Module, by_kind: bool) -> None:
        self._make, self._by_kind = make, by_kind
        self._rows: Rows | None = None
        self._known: dict[Any, tuple[Tensor, Tensor]] = {}

    def __call__(self, hidden: Tensor, rows: Rows, kind: str | None) -> tuple[Tensor, Tensor]:
        """[1, tokens, head] each. kind: of the block's attention, where the positions depend on it."""
        key = kind, hidden.dtype
        if rows is not self._rows:
            self._rows, self._known = rows, {}
        if key not in self._known:
            with torch.no_grad():
                arguments = (kind,) if self._by_kind else ()
                self._known[key] = self._make(hidden, rows.positions()[None], *arguments)
        return self._known[key]


class HubEmbeddings(Stage):
    """settings: what hidden states depend on beside parameters, of this stage and all above it; the key of stored
    features has it."""

    def __init__(self, parts: Sequence[nn.Module], embed: Embed, settings: str) -> None:
        super().__init__()
        self.parts, self.settings = nn.ModuleList(parts), settings
        self._embed = embed

    def forward(self, token_ids: Tensor, rows: Rows) -> Tensor:
        """token_ids: [tokens] int64 -> hidden states [tokens, hidden]."""
        return self._embed(self.parts, token_ids[None], rows.positions()[None])[0]


class HubBlock(Block):
    """A layer of the library."""

    def __init__(self, layer: nn.Module, rotary: Rotary | None, causal: bool) -> None:
        super().__init__()
        self.layer, self.causal = layer, causal
        self._rotary = rotary

    def forward(self, hidden: Tensor, rows: Rows, read_at: Tensor | None = None) -> Tensor:
        positions = self._rotary(hidden, rows, getattr(self.layer, "attention_type", None)) if self._rotary else None
        call = _Call(Attended(rows, self.causal, read_at), stop=read_at is not None)
        with _calling(call):
            if read_at is None:
                return self._run(hidden, positions)
            with suppress(_Stopped):
                self._run(hidden, positions)
            call.stop = False
            return self._run(hidden[read_at], positions and tuple(part[:, read_at] for part in positions))

    def _run(self, hidden: Tensor, positions: tuple[Tensor, Tensor] | None) -> Tensor:
        return self.layer(hidden[None], **({"position_embeddings": positions} if positions else {}))[0]


class HubBackbone(Backbone):
    """A model of the library, taken apart into stages."""

    def __init__(self, model: PreTrainedModel) -> None:
        config = model.config
        family = family_of(config)
        super().__init__(config.hidden_size, context_of(config), family.attention)
        part = {name: attrgetter(name)(model) for name in (*family.embeddings, family.blocks)}
        rotary = None
        if family.rotary:
            # Anew: the model may be on the meta device, and its tables are no parameters, which come later.
            with torch.device("cpu"):
                rotary = Rotary(type(attrgetter(family.rotary)(model))(config), family.rotary_by_kind)
        settings = f"transformers {version('transformers')} {config.to_json_string(use_diff=False)}"
        self.embeddings = HubEmbeddings([part[name] for name in family.embeddings], family.embed, settings)
        causal = family.attention == "causal"
        self.blocks = nn.ModuleList(HubBlock(layer, rotary, causal) for layer in part[family.blocks])
        self.final_norm = (family.final_norm and attrgetter(family.final_norm)(model)) or nn.Identity()
        self._is_language_model = is_language_model(config)

    def set_attention(self, kind: AttentionKind) -> None:
        for block in self.blocks:
            block.causal = kind == "causal"

    def next_token_logits(self, hidden: Tensor) -> Tensor:
        if not self._is_language_model:
            raise UserError("this model has no output layer that is tied to its token embeddings.")
        return F.linear(hidden, self.embeddings.parts[0].weight)


def family_of(config: PretrainedConfig) -> Family:
    return FAMILIES[config.model_type]


def is_language_model(config: PretrainedConfig) -> bool:
    return family_of(config).attention == "causal" and config.tie_word_embeddings


def context_of(config: PretrainedConfig) -> int:
    """The most tokens of a row. RoBERTa's table of positions begins behind its padding's."""
    first = config.pad_token_id + 1 if config.model_type == "roberta" else 0
    return config.max_position_embeddings - first


def attention_interface(transformers: ModuleType) -> None:
    """Make the library know the attention of this module, under the name ATTENTION."""
    transformers.AttentionInterface.register(ATTENTION, _attention)
