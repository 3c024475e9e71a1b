"""Names of rows and engines, for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.results.record import Record


def printable(text: str) -> str:
    """Without characters that would control a terminal or break a file."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)


def row_name(record: Record) -> str:
    """The strategy with what the configuration changed of it, including its own learning rate after a sweep."""
    return variant_name(record, [f"lr {rate_of(record):g}"] if record.sweep_around else [])


def variant_name(record: Record, more: list[str] | tuple[str, ...] = ()) -> str:
    """The strategy with what the configuration changed of it."""
    if record.strategy_source.is_baseline:
        return record.strategy
    return with_changes(record.strategy, [*changes_of(record.config), *more])


def changes_of(config: dict[str, Any]) -> list[str]:
    """Of a strategy, such as "layer 3"."""
    changes = [str(config[key]) for key in ("readout", "attention") if config[key]]
    layer = config.get("readout_layer")  # older records lack it
    changes += [f"layer {layer}"] if layer is not None else []
    changes += [f"pad {config['pad_to']}"] if config["pad_to"] else []
    return changes + [f"{key} {value:g}" for key, value in config["adapter"].items() if value is not None]


def with_changes(name: str, changes: Sequence[str]) -> str:
    return name + (f" ({', '.join(changes)})" if changes else "")


def rate_of(record: Record) -> float:
    return record.config["optimizer"]["learning_rate"]


def engine_name(record: Record) -> str:
    """Of a strategy's record: baselines have no engine."""
    assert record.engine.name is not None, f"{record.run_id} is a baseline"
    stage = record.engine.zero_stage
    if record.config["engine"].get("shard_frozen"):  # older records lack it
        return f"{record.engine.name}, frozen sharded"
    return record.engine.name if stage is None else f"{record.engine.name} ZeRO {stage}"
