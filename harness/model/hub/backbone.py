"""Backbones of `transformers`: its own layers, called so that they work on rows without padding between them.

A model of the library sees one long row that holds all rows of a batch; attention, which the library lets us replace,
keeps them separate. So no layer is copied, and a new family is one entry of `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import version
from operator import attrgetter
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import UserError
from harness.model.attention import DotProductAttention
from harness.model.backbone import Backbone, Block, Stage
from harness.model.hub.families import FAMILIES, Embed, Family
from harness.model.packing import PackedBatch

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

ATTENTION = "ftbench"

Positions = tuple[Tensor, Tensor]

# What the attention of the layer that runs does: called with query, key and value [tokens, heads * head], the number of
# query heads, the window and the scale. The library calls attention by a registered name, which leaves no other way.
Attend = Callable[[Tensor, Tensor, Tensor, int, int | None, float | None], Tensor]
_ATTEND: ContextVar[Attend] = ContextVar("attend")


@contextmanager
def attending(attend: Attend) -> Iterator[None]:
    """Inside, layers of the library attend by `attend`."""
    token = _ATTEND.set(attend)
    try:
        yield
    finally:
        _ATTEND.reset(token)


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
    heads = query.shape[1]
    query, key, value = (part[0].transpose(0, 1).flatten(1) for part in (query, key, value))
    mixed = _ATTEND.get()(query, key, value, heads, sliding_window, scaling)
    # Not by the number of tokens, which a recorded graph would keep (serving/export/onnx_graph.py).
    return mixed.view(1, -1, heads, mixed.shape[-1] // heads), None


class Rotary:
    """The cosines and sines of a batch's positions, worked out once for all blocks. No module: it has no parameters,
    and stages come and go without it."""

    def __init__(self, make: nn.Module, by_kind: bool) -> None:
        self._make, self._by_kind = make, by_kind
        self._batch: PackedBatch | None = None
        self._known: dict[Any, tuple[Tensor, Tensor]] = {}

    def __call__(self, hidden: Tensor, batch: PackedBatch, kind: str | None) -> tuple[Tensor, Tensor]:
        """[1, tokens, head] each. kind: of the block's attention, where the positions depend on it."""
        key = kind, hidden.dtype
        if batch is not self._batch:
            self._batch, self._known = batch, {}
        if key not in self._known:
            with torch.no_grad():
                arguments = (kind,) if self._by_kind else ()
                # Its tables move to the device once: a step must not wait for a copy.
                self._known[key] = self._make.to(hidden.device)(hidden, batch.positions()[None], *arguments)
        return self._known[key]


class HubEmbeddings(Stage):
    """settings: what hidden states depend on beside parameters, of this stage and all above it; the key of stored
    features has it."""

    def __init__(self, parts: Sequence[nn.Module], embed: Embed, settings: str) -> None:
        super().__init__()
        self.parts, self.settings = nn.ModuleList(parts), settings
        self._embed = embed

    def forward(self, token_ids: Tensor, batch: PackedBatch) -> Tensor:
        """token_ids: [tokens] int64 -> hidden states [tokens, hidden]."""
        return self._embed(list(self.parts), token_ids[None], batch.positions()[None])[0]


class HubBlock(Block):
    """A layer of the library."""

    def __init__(self, layer: nn.Module, rotary: Rotary | None, causal: bool) -> None:
        super().__init__()
        self.layer, self.rotary = layer, rotary
        self.attend = DotProductAttention(causal)

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        """[tokens, hidden] -> the same."""

        def attend(
            query: Tensor, key: Tensor, value: Tensor, heads: int, window: int | None, scale: float | None
        ) -> Tensor:
            return self.attend(query, key, value, heads, batch, window, scale)

        with attending(attend):
            return self.run_layer(hidden, self.positions(hidden, batch))

    def positions(self, hidden: Tensor, batch: PackedBatch) -> Positions | None:
        """The rotary embeddings of the positions; None where the layer needs none."""
        kind = getattr(self.layer, "attention_type", None)
        return self.rotary(hidden, batch, kind) if self.rotary else None

    def run_layer(self, hidden: Tensor, positions: Positions | None) -> Tensor:
        """The library's layer on one long row, [tokens, hidden] -> the same; `attending` says how it attends."""
        return self.layer(hidden[None], **({"position_embeddings": positions} if positions else {}))[0]


class HubBackbone(Backbone):
    """A model of the library as stages."""

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
        self.parts = {name: f"layer.{where}" for name, where in family.parts.items()}
        causal = family.attention == "causal"
        self.blocks = nn.ModuleList(HubBlock(layer, rotary, causal) for layer in part[family.blocks])
        self.final_norm = (family.final_norm and attrgetter(family.final_norm)(model)) or nn.Identity()
        self._is_language_model = is_language_model(config)

    def next_token_logits(self, hidden: Tensor) -> Tensor:
        if not self._is_language_model:
            raise UserError("this model has no output layer that is tied to its token embeddings.")
        return F.linear(hidden, self.get_parameter("embeddings.parts.0.weight"))


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
