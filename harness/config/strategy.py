"""The declaration of a strategy: frozen data, in names that every backbone understands.

A strategy module, in `strategies/` or anywhere else, needs one line beside its imports:

    from harness import Strategy

    strategy = Strategy(trainable=("block.-1", "final_norm"), readout="last")

From it the harness derives what stays frozen, what can be computed once and stored, what is optimised, and what ranks
exchange.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from torch import nn

Readout = Literal["first", "last", "mean", "max", "attention"]
AttentionKind = Literal["causal", "full"]
PadTo = int | Literal["longest"]
Scale = Literal["alpha", "alpha / rank", "alpha / sqrt(rank)"]
Phase = Literal["fit_head", "steps"]
ORDERS: tuple[tuple[Phase, ...], ...] = (("steps",), ("fit_head",), ("fit_head", "steps"))


@dataclass(frozen=True)
class Input:
    """How a text becomes a row of tokens.

    pad_to: None (the default) keeps the text's own tokens, however rows are batched. A length, or "longest" for that
        of the longest training text, pads every row to it and cuts longer ones. The model attends to this padding, as
        in the textbook, and the last position of a padded row is a padding token.

    Raises ValueError for any other value.
    """

    pad_to: PadTo | None = None

    def __post_init__(self) -> None:
        if self.pad_to is None or self.pad_to == "longest":
            return
        if not isinstance(self.pad_to, int) or isinstance(self.pad_to, bool) or self.pad_to < 1:
            raise ValueError(f"pad_to={self.pad_to!r}: expected None, 'longest' or a length of at least 1")


@dataclass(frozen=True)
class Adapter:
    """A low-rank adapter (LoRA, arXiv:2106.09685).

    A layer's output becomes `linear(x) + scale * x A B`, with A of shape [inputs, rank] and B of shape
    [rank, outputs]; A and B are trained.

    targets: selectors of the layers, as in `Strategy.trainable`. None named: every Linear layer, the head included.
    scale: "alpha", as in the textbook; "alpha / rank", as in the paper; "alpha / sqrt(rank)" (rsLoRA,
        arXiv:2312.03732).
    trains_size: the matrix of each output is brought to a trained size (DoRA, arXiv:2402.09353).

    Raises ValueError for a rank below 1, and for values of another type or name.
    """

    rank: int = 16
    alpha: float = 16.0
    targets: tuple[str, ...] = ()
    scale: Scale = "alpha"
    trains_size: bool = False
    kind: Literal["low rank"] = "low rank"

    def __post_init__(self) -> None:
        if not isinstance(self.rank, int) or self.rank < 1:
            raise ValueError(f"rank={self.rank!r}: expected a whole number of at least 1")
        _check_selectors("targets", self.targets)
        if self.scale not in get_args(Scale):
            raise ValueError(f"scale={self.scale!r}: expected one of {', '.join(get_args(Scale))}")

    @property
    def factor(self) -> float:
        """What the low-rank product is multiplied by."""
        divisors = {"alpha": 1, "alpha / rank": self.rank, "alpha / sqrt(rank)": math.sqrt(self.rank)}
        return self.alpha / divisors[self.scale]


@dataclass(frozen=True)
class IA3:
    """Trained factors, which start at one ((IA)³, arXiv:2205.05638).

    outputs, inputs: selectors of the layers whose outputs, and of those whose inputs, are multiplied by them.

    Raises ValueError where no layer is named, and for values of another type.
    """

    outputs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    kind: Literal["ia3"] = "ia3"

    def __post_init__(self) -> None:
        _check_selectors("outputs", self.outputs)
        _check_selectors("inputs", self.inputs)
        if not self.outputs and not self.inputs:
            raise ValueError("outputs=(), inputs=(): expected the layers that IA3 rescales, such as ('attention.key',)")


@dataclass(frozen=True)
class PrefixTuning:
    """Trained keys and values that every token attends to, before its own (Li and Liang, arXiv:2101.00190).

    They are parameters themselves, without the paper's MLP (`prefix_projection=False` in PEFT), drawn from N(0, 1).

    length: how many of each in a block.
    targets: the blocks that have them, such as "block.-1". None named: every block, and tokens have the positions from
        `length` on, as in PEFT. Else tokens keep their positions, so that what lies below stays as it was.

    Raises ValueError for a length below 1, and for values of another type.
    """

    length: int = 20
    targets: tuple[str, ...] = ()
    kind: Literal["prefix"] = "prefix"

    def __post_init__(self) -> None:
        _check_length(self.length)
        _check_selectors("targets", self.targets)

    @property
    def positions(self) -> int:
        """How many positions lie before those of a row's tokens."""
        return 0 if self.targets else self.length


@dataclass(frozen=True)
class PromptTuning:
    """Trained vectors before the embedded tokens of each row, at its first positions (Lester et al., arXiv:2104.08691).

    To the blocks and the readout they are tokens: the "first" is one of them. They start as the embeddings of tokens
    drawn from the vocabulary, all equally likely.

    length: how many of them.

    Raises ValueError for a length below 1.
    """

    length: int = 20
    kind: Literal["prompt"] = "prompt"

    def __post_init__(self) -> None:
        _check_length(self.length)

    @property
    def positions(self) -> int:
        """How many positions lie before those of a row's tokens."""
        return self.length


AnyAdapter = Adapter | IA3 | PrefixTuning | PromptTuning


@dataclass(frozen=True)
class Strategy:
    """One way to turn a pretrained decoder into a classifier: what to train, and which token to read.

    A head, `Linear(hidden, classes)`, replaces the output layer. It is always trained and needs no mention, so
    `Strategy()` trains the head alone.

    trainable: selectors of what to train of the backbone: a stage ("embeddings", "block.N" from 0 or, negative, from
        the top, "final_norm", "all"), a part ("attention.query", "mlp", "norm"), "bias", or several of these, such as
        "block.-1.norm.bias" (see harness/model/selectors.py).
    adapt: at most one adapter. It is trained, the layers of the backbone that it adapts only where `trainable` names
        them.
    readout: what of the hidden states feeds the head: that of the "first" or "last" token, their "mean", their "max" in
        each dimension, or "attention": a mean with the weights softmax(hidden states . query), where the query is
        trained and starts at zero. None: "last" for a backbone that was pretrained with causal attention, where only
        the last token has seen the full text, else "first" ([CLS]).
    readout_layer: the block that is read, from 0 or, negative, from the top. Those above it don't exist for the
        strategy: "block.-1" is the one that is read. The final norm stays, and is read through.
    input: how a text becomes a row of tokens.
    attention: "causal" (a token sees itself and those before it) or "full" (every token sees every token). None: as
        the backbone was pretrained.
    build: for a strategy that takes code. It gets the backbone, frozen but for `trainable`, and changes it in place;
        whatever it leaves with `requires_grad` is trained.
    phases: of training, in order. "steps": gradient steps of all that is trained. "fit_head": before them, or without
        any, the head is fitted exactly to the frozen backbone's hidden states where they are read: multinomial logistic
        regression with an L2 strength that the validation texts choose. ("fit_head", "steps") is LP-FT (Kumar et al.,
        arXiv:2202.10054).
    rate_decay: what the learning rate is multiplied by for every stage further from the head, which has the full rate
        (Howard and Ruder, arXiv:1801.06146): the final norm has it once, the top block twice.
    cacheable: False where `build` adds state or randomness below the first trained parameter. The hidden states there
        are then computed in every step, instead of once for each text.

    Raises ValueError for values of another type or name, and where something is to be trained and no phase trains it.
    Selectors are checked when the strategy meets a backbone.
    """

    trainable: tuple[str, ...] = ()
    adapt: tuple[AnyAdapter, ...] = ()
    readout: Readout | None = None
    readout_layer: int = -1
    input: Input = Input()
    attention: AttentionKind | None = None
    build: Callable[[nn.Module], None] | None = None
    phases: tuple[Phase, ...] = ("steps",)
    rate_decay: float = 1.0
    cacheable: bool = True

    def __post_init__(self) -> None:
        _check_selectors("trainable", self.trainable)
        if not isinstance(self.adapt, tuple) or not all(isinstance(adapter, AnyAdapter) for adapter in self.adapt):
            raise ValueError(f"adapt={self.adapt!r}: expected a tuple of adapters, such as (Adapter(rank=16),)")
        if len(self.adapt) > 1:
            raise ValueError(f"adapt={self.adapt!r}: expected one adapter at most")
        if not isinstance(self.input, Input):
            raise ValueError(f"input={self.input!r}: expected an Input, such as Input(pad_to=120)")
        if self.readout not in (None, *get_args(Readout)):
            raise ValueError(f"readout={self.readout!r}: expected one of {', '.join(get_args(Readout))}")
        if not isinstance(self.readout_layer, int) or isinstance(self.readout_layer, bool):
            raise ValueError(f"readout_layer={self.readout_layer!r}: expected the number of a block, such as -1")
        if self.attention not in (None, *get_args(AttentionKind)):
            raise ValueError(f"attention={self.attention!r}: expected one of {', '.join(get_args(AttentionKind))}")
        if type(self.rate_decay) not in (int, float) or not 0 < self.rate_decay <= 1:
            raise ValueError(f"rate_decay={self.rate_decay!r}: expected a number above 0, at most 1")
        self._check_phases()

    def _check_phases(self) -> None:
        if self.phases not in ORDERS:
            raise ValueError(f"phases={self.phases!r}: expected one of {', '.join(map(str, ORDERS))}")
        if "fit_head" in self.phases and self.build:
            raise ValueError(
                f"phases={self.phases!r} with a build function: the head is fitted to the hidden states of the "
                "backbone as it was pretrained, which the function may change; leave 'fit_head' out"
            )
        if "fit_head" in self.phases and any(isinstance(one, PrefixTuning | PromptTuning) for one in self.adapt):
            raise ValueError(
                f"phases={self.phases!r} with a prefix or a prompt: the head is fitted to the hidden states of the "
                "backbone as it was pretrained, which trained vectors change from the start; leave 'fit_head' out"
            )
        if "steps" not in self.phases and (self.trainable or self.adapt or self.readout == "attention"):
            raise ValueError(
                f"phases={self.phases!r}: without 'steps' nothing but the head is trained; leave `trainable`, `adapt` "
                "and the readout 'attention' out, or add 'steps'"
            )

    @property
    def positions_before(self) -> int:
        """How many positions of a row lie before those of its tokens, so that it has room for fewer of them."""
        return sum(one.positions for one in self.adapt if isinstance(one, PrefixTuning | PromptTuning))

    @property
    def head_only(self) -> Strategy:
        """The strategy that trains nothing but the head and reads the hidden states that this one first reads.

        The adapters that a head is fitted with change nothing before they are trained, and a learned query of zero
        reads the mean.
        """
        readout = "mean" if self.readout == "attention" else self.readout
        return replace(self, trainable=(), adapt=(), readout=readout)

    def resolved_for(self, attention: AttentionKind) -> Strategy:
        """This strategy with readout and attention set, for a backbone that was pretrained with `attention`."""
        readout: Readout = self.readout or ("last" if attention == "causal" else "first")
        return replace(self, readout=readout, attention=self.attention or attention)


def _check_length(length: object) -> None:
    if not isinstance(length, int) or isinstance(length, bool) or length < 1:
        raise ValueError(f"length={length!r}: expected how many trained vectors, at least 1")


def _check_selectors(field: str, given: object) -> None:
    if not isinstance(given, tuple) or not all(isinstance(name, str) for name in given):
        raise ValueError(f"{field}={given!r}: expected a tuple of names, such as ('block.-1',)")
