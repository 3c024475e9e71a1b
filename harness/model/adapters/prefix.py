"""Prefix tuning: trained keys and values before those of the tokens (Li and Liang, arXiv:2101.00190)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.config.strategy import PrefixTuning
from harness.model.adapters.adapted import Adapted
from harness.model.attention import DotProductAttention, by_head, visible
from harness.model.packing import PackedBatch
from harness.model.selectors import Stages, selected_blocks


class PrefixedAttention(Adapted, DotProductAttention):
    """Attention of every token to trained keys and values, [length, heads * head] each, and to those of its row.

    They stand before the first token, at a distance that a window counts as it does those between tokens.
    """

    def __init__(self, causal: bool, length: int, keys: int, values: int) -> None:
        """keys, values: their widths."""
        super().__init__(causal)
        self.keys, self.values = nn.Parameter(torch.randn(length, keys)), nn.Parameter(torch.randn(length, values))

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        heads: int,
        batch: PackedBatch,
        window: int | None = None,
        scale: float | None = None,
    ) -> Tensor:
        """As `DotProductAttention`."""
        length = len(self.keys)
        # All that `visible` asks for.
        longer = replace(batch, lengths=batch.lengths + length, width=batch.width + length)
        positions = torch.arange(length, longer.width, device=query.device)[:, None]
        mask = visible(longer, positions, self.causal, window)[:, None]
        keys, values = _before(self.keys, batch.rectangle(key)), _before(self.values, batch.rectangle(value))
        parts = by_head(batch.rectangle(query), keys, values, heads)
        mixed = F.scaled_dot_product_attention(*parts, attn_mask=mask, scale=scale)
        return batch.flatten(mixed.transpose(1, 2).flatten(2))


def _before(prefix: Tensor, rectangle: Tensor) -> Tensor:
    """[length, width of a token], [rows, tokens, width of a token] -> [rows, length + tokens, width of a token]."""
    return torch.cat([prefix.to(rectangle.dtype).expand(rectangle.shape[0], -1, -1), rectangle], dim=1)


def add_prefixes(stages: Stages, parts: Mapping[str, str], adapter: PrefixTuning) -> None:
    """Give blocks their trained keys and values. Raises UserError where a target is no block."""
    for block in selected_blocks(stages, adapter.targets or ("all",)):
        keys, values = _widths(block, parts)
        for module in list(block.modules()):
            for name, child in module.named_children():
                if isinstance(child, DotProductAttention):
                    setattr(module, name, PrefixedAttention(child.causal, adapter.length, keys, values))


def _widths(block: nn.Module, parts: Mapping[str, str]) -> tuple[int, int]:
    """Of a token's keys and values: what the matrices give that make them."""
    if "attention.query_key_value" in parts:
        fused = _outputs(block, parts["attention.query_key_value"])
        return fused // 3, fused // 3
    return _outputs(block, parts["attention.key"]), _outputs(block, parts["attention.value"])


def _outputs(block: nn.Module, where: str) -> int:
    layer = block.get_submodule(where)
    assert isinstance(layer, nn.Linear), "`Backbone.parts` says so"
    return layer.out_features


def remove_prefixes(backbone: nn.Module) -> None:
    """Let blocks attend as they were pretrained to, but for the mask."""
    for module in list(backbone.modules()):
        for name, child in module.named_children():
            if isinstance(child, PrefixedAttention):
                setattr(module, name, DotProductAttention(child.causal))
