"""The models that MODEL can name: what is known of each without loading it, and how it is built."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from harness.model.named.shapes import SHAPES

if TYPE_CHECKING:  # facts need no PyTorch
    from harness.config.schema import ModelConfig
    from harness.config.strategy import AttentionKind
    from harness.model.backbone import Backbone
    from harness.model.named.weights import Weights


class Model(Protocol):
    """context: the most tokens of a row. vocabulary: how many tokens it has embeddings of. attention: what it was
    pretrained with. is_language_model: whether its backbones have `next_token_logits`."""

    @property
    def context(self) -> int: ...

    @property
    def vocabulary(self) -> int: ...

    @property
    def attention(self) -> AttentionKind: ...

    @property
    def is_language_model(self) -> bool: ...

    @property
    def computes_in_float64(self) -> bool: ...

    def empty(self) -> Backbone:
        """A backbone on the meta device, for `Weights.fill`."""
        ...

    def weights(self, config: ModelConfig, path: Path | None) -> Weights:
        """Pretrained ones are at `path`; None: such as `config` has drawn."""
        ...


@dataclass(frozen=True)
class GPT2Model:
    """A GPT-2 of one of the known sizes."""

    size: str

    @property
    def attention(self) -> AttentionKind:
        return "causal"

    @property
    def is_language_model(self) -> bool:
        return True

    @property
    def computes_in_float64(self) -> bool:
        return True

    @property
    def context(self) -> int:
        return SHAPES[self.size].context

    @property
    def vocabulary(self) -> int:
        return SHAPES[self.size].vocabulary

    def empty(self) -> Backbone:
        from harness.model.named.weights import empty_backbone

        return empty_backbone(self.size)

    def weights(self, config: ModelConfig, path: Path | None) -> Weights:
        from harness.model.named.weights import weights_of

        return weights_of(config, path)


def model_of(name: str, folder: Path | None) -> Model:
    """The model `name`, which is resolved. folder: of a model of `transformers`; None: a GPT-2 of a known size.

    Raises UserError where the folder's model is not usable.
    """
    from harness.model.hub.loading import HubModel

    return HubModel(folder) if folder else GPT2Model(name)
