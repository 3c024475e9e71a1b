"""What a strategy module declares: plain frozen data, in names that no backbone owns.

A strategy says what is trained, what is adapted, where the answer is read, and where it differs
from the defaults of input and attention. The head is implicit and always trained. From this the
harness derives the prefix, what can be cached, what is synchronised and what is optimised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from torch import nn

Readout = Literal["first", "last", "mean"]
AttentionKind = Literal["causal", "full"]
PadTo = int | Literal["longest"]


@dataclass(frozen=True)
class Input:
    """How a text becomes a row.

    pad_to: None keeps the real tokens only. A length, or "longest" (the longest training text),
        pads every row to it, cuts what is longer, and *attends to the padding*, as the textbook
        does; the last position is then a padding token.
    """

    pad_to: PadTo | None = None

    def __post_init__(self) -> None:
        if self.pad_to is None or self.pad_to == "longest":
            return
        if not isinstance(self.pad_to, int) or isinstance(self.pad_to, bool) or self.pad_to < 1:
            raise ValueError(f"pad_to={self.pad_to!r}: expected None, 'longest' or a length of at least 1")


@dataclass(frozen=True)
class Adapter:
    """A low-rank adapter (LoRA, arXiv:2106.09685) on every Linear, the head included.

    Adds `alpha * x A B` with A of shape [inputs, rank] and B of shape [rank, outputs]. The scale is
    alpha itself, as in the textbook, not alpha / rank.
    """

    rank: int = 16
    alpha: float = 16.0

    def __post_init__(self) -> None:
        if not isinstance(self.rank, int) or self.rank < 1:
            raise ValueError(f"rank={self.rank!r}: expected a whole number of at least 1")


@dataclass(frozen=True)
class Strategy:
    """One way to turn a pretrained decoder into a classifier.

    trainable: stages of the backbone to train: "embeddings", "block.N" (negative N counts from the
        top), "final_norm", or "all".
    adapt: adapters added to the backbone's and the head's Linear layers.
    readout: the position whose hidden state feeds the head. None: the last one of a backbone that was pretrained with
        causal attention, where it alone has seen the whole text; the first ([CLS]) of any other.
    input: how a text becomes a row.
    attention: "causal" or "full" (every token sees every token). None: the backbone's own.
    build: for strategies that need code: receives the backbone, frozen but for `trainable`, and
        changes it in place. What it leaves with `requires_grad` is trained.
    cacheable: False where hidden states below the first trained parameter may change between two
        calls (state, randomness); its hidden states are then computed anew each time.
    """

    trainable: tuple[str, ...] = ()
    adapt: tuple[Adapter, ...] = ()
    readout: Readout | None = None
    input: Input = Input()
    attention: AttentionKind | None = None
    build: Callable[[nn.Module], None] | None = None
    cacheable: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.trainable, tuple) or not all(isinstance(name, str) for name in self.trainable):
            raise ValueError(f"trainable={self.trainable!r}: expected a tuple of stage names, such as ('block.-1',)")
        if not isinstance(self.adapt, tuple) or not all(isinstance(adapter, Adapter) for adapter in self.adapt):
            raise ValueError(f"adapt={self.adapt!r}: expected a tuple of adapters, such as (Adapter(rank=16),)")
        if len(self.adapt) > 1:
            raise ValueError(f"adapt={self.adapt!r}: expected one adapter at most, since it is of every Linear")
        if not isinstance(self.input, Input):
            raise ValueError(f"input={self.input!r}: expected an Input, such as Input(pad_to=120)")
        if self.readout not in (None, *get_args(Readout)):
            raise ValueError(f"readout={self.readout!r}: expected one of {', '.join(get_args(Readout))}")
        if self.attention not in (None, *get_args(AttentionKind)):
            raise ValueError(f"attention={self.attention!r}: expected one of {', '.join(get_args(AttentionKind))}")

    def on(self, attention: AttentionKind) -> Strategy:
        """With what it leaves open decided, for a backbone that was pretrained with `attention`."""
        readout: Readout = self.readout or ("last" if attention == "causal" else "first")
        return replace(self, readout=readout, attention=self.attention or attention)
