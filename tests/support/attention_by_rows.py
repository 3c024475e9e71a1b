"""PyTorch's attention by cumulative lengths in plain operations, for devices that lack its kernel."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor


def attention_by_rows(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
) -> Tensor:
    """PyTorch's signature from 2.12 on; what no row holds is not written."""
    mixed = torch.full_like(query, torch.nan)
    bounds = cu_seq_q.tolist()
    assert bounds == cu_seq_k.tolist()
    for start, end in itertools.pairwise(bounds):
        assert end - start <= max_q == max_k
        at = torch.arange(end - start)
        behind = at[:, None] - at
        left, right = (reach if reach >= 0 else end - start for reach in window_size)
        parts = (part[start:end].transpose(0, 1)[None] for part in (query, key, value))
        seen = (behind <= left) & (behind >= -right)
        of_row = F.scaled_dot_product_attention(*parts, attn_mask=seen, scale=scale, enable_gqa=enable_gqa)
        mixed[start:end] = of_row[0].transpose(0, 1)
    return mixed
