"""The top block of a Hugging Face backbone where one token of each row is read.

The library's layer runs twice: over all tokens until its keys and values are known, then over the tokens read with
those. So no layer is copied.
"""

from __future__ import annotations

from contextlib import suppress

from torch import Tensor

from harness.kernels.one_query import ReadingBlock, attend_at
from harness.model.hub.backbone import HubBlock, attending
from harness.model.packing import PackedBatch
from harness.model.readout import read_indices


class OneQueryHubBlock(ReadingBlock, HubBlock):
    replaces = HubBlock

    def forward(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        hidden, batch = batch.unshared(hidden)
        read_at = read_indices(batch, self.position)
        positions = self.positions(hidden, batch)
        key, value = self._keys_and_values(hidden, positions)

        def attend(query: Tensor, _key: Tensor, _value: Tensor, heads: int, window: int | None, scale: float | None):
            return attend_at(read_at, query, key, value, heads, batch, self.attend.causal, window, scale)

        with attending(attend):
            of_read = positions and (positions[0].index_select(1, read_at), positions[1].index_select(1, read_at))
            return self.run_layer(hidden.index_select(0, read_at), of_read)

    def _keys_and_values(self, hidden: Tensor, positions: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """[tokens, heads * head] each, of all tokens."""
        known: list[tuple[Tensor, Tensor]] = []

        def stop(
            query: Tensor, key: Tensor, value: Tensor, heads: int, window: int | None, scale: float | None
        ) -> Tensor:
            known.append((key, value))
            raise _Stopped

        with attending(stop), suppress(_Stopped):
            self.run_layer(hidden, positions)
        return known[0]


class _Stopped(Exception):
    """Keys and values of a layer are known, and nothing else of it is needed."""
