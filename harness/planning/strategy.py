"""The strategy of a run: what is declared, with what the configuration changes and the backbone decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, Field

import strategies
from harness.config.schema import RunConfig
from harness.config.strategy import Adapter, AnyAdapter, AttentionKind, Input, PadTo, Phase, Readout, Strategy
from harness.errors import UserError
from harness.model.meta import on_meta_device
from harness.model.named.models import Model
from harness.model.split import Prefix, Suffix, split
from harness.results.record import StrategySource


class ResolvedStrategy(BaseModel):
    """A strategy with nothing left open, as a plan and a saved classifier hold it.

    given: the name or path that `strategies.load` takes. builds: whether it has code that builds, which is loaded from
    where the strategy came from.
    """

    given: str
    name: str
    source: StrategySource
    trainable: tuple[str, ...]
    adapt: tuple[Annotated[AnyAdapter, Field(discriminator="kind")], ...]
    readout: Readout
    readout_layer: int
    pad_to: PadTo | None
    attention: AttentionKind
    phases: tuple[Phase, ...] = ("steps",)
    rate_decay: float = 1.0
    cacheable: bool
    builds: bool

    @property
    def fits_head(self) -> bool:
        return "fit_head" in self.phases

    @property
    def takes_steps(self) -> bool:
        return "steps" in self.phases

    @property
    def head_only(self) -> ResolvedStrategy:
        """As `Strategy.head_only`."""
        declared = self.strategy().head_only
        return self.model_copy(update={"trainable": (), "adapt": (), "readout": declared.readout})

    def strategy(self) -> Strategy:
        """Raises UserError where its code is not what it was when it was resolved."""
        return Strategy(
            trainable=self.trainable,
            adapt=self.adapt,
            readout=self.readout,
            readout_layer=self.readout_layer,
            input=Input(self.pad_to),
            attention=self.attention,
            build=self._loaded().build if self.builds else None,
            phases=self.phases,
            rate_decay=self.rate_decay,
            cacheable=self.cacheable,
        )

    def check_code(self) -> None:
        """Raises UserError where the strategy's code has changed since it was resolved."""
        self._loaded()

    def _loaded(self) -> Strategy:
        entry = strategies.load(self.given)
        if entry.sha256 != self.source.sha256:
            raise UserError(
                f"strategy {self.given!r} has changed since this suite began: give the command again, which takes it "
                "for another strategy."
            )
        return entry.strategy


def resolve_strategy(config: RunConfig, attention: AttentionKind, also_known: Sequence[str] = ()) -> ResolvedStrategy:
    """The declared strategy with what the configuration changes: readout, attention, padding, adapter; what both leave
    open is as a backbone is read that was pretrained with `attention`.

    also_known: other names that the user may have meant.
    """
    entry = strategies.load(config.strategy, also_known=also_known)
    strategy = entry.strategy
    changes: dict[str, Any] = {
        "readout": config.readout,
        "readout_layer": config.readout_layer,
        "attention": config.attention,
        "input": Input(config.pad_to) if config.pad_to is not None else None,
    }
    adapter = config.adapter.model_dump(exclude_none=True)
    if adapter:
        low_rank = [declared for declared in strategy.adapt if isinstance(declared, Adapter)]
        if not low_rank:
            raise UserError(
                f"strategy {config.strategy!r} has no low-rank adapter: `adapter.rank` and `adapter.alpha` are lora's."
            )
        changes["adapt"] = tuple(replace(declared, **adapter) for declared in low_rank)
    try:
        changed = replace(strategy, **{name: value for name, value in changes.items() if value is not None})
    except ValueError as problem:  # what it declares does not go with what is changed
        raise UserError(f"strategy {config.strategy!r}: {problem}.") from problem
    resolved = changed.resolved_for(attention)
    assert resolved.readout, "`resolved_for` sets it"
    assert resolved.attention, "`resolved_for` sets it"
    return ResolvedStrategy(
        given=config.strategy,
        name=entry.name,
        source=StrategySource(origin=entry.origin, sha256=entry.sha256),
        trainable=resolved.trainable,
        adapt=resolved.adapt,
        readout=resolved.readout,
        readout_layer=resolved.readout_layer,
        pad_to=resolved.input.pad_to,
        attention=resolved.attention,
        phases=resolved.phases,
        rate_decay=resolved.rate_decay,
        cacheable=resolved.cacheable,
        builds=resolved.build is not None,
    )


def trainable_parameters(strategy: Strategy, model: Model, classes: int) -> int:
    """How many parameters a strategy trains, without allocating any."""
    prefix, suffix = split_without_tensors(strategy, model, classes)
    return sum(p.numel() for p in [*prefix.parameters(), *suffix.parameters()] if p.requires_grad)


def split_without_tensors(strategy: Strategy, model: Model, classes: int) -> tuple[Prefix, Suffix]:
    """The cut, with parameters that have shapes only."""
    with on_meta_device():
        return split(model.empty(), strategy, classes)
