"""Write what `ftbench list` looks up: how many parameters each built-in strategy trains of each GPT-2.

python -m tools.trained_parameters
"""

from __future__ import annotations

import json

import strategies
from harness import Strategy
from harness.model.named.models import GPT2Model
from harness.model.named.shapes import SHAPES
from harness.planning.strategy import trainable_parameters
from harness.report.catalogue import COUNTS

# Two counts are enough: what is trained grows by the same number with each class.
FEW, MORE = 2, 3


def counts() -> dict[str, dict[str, list[int]]]:
    """By the hash of a strategy's source and the size: `count` of each."""
    entries = map(strategies.load, strategies.built_in_names())
    return {entry.sha256: {size: count(entry.strategy, size) for size in SHAPES} for entry in entries}


def count(strategy: Strategy, size: str) -> list[int]:
    """Trained parameters without those of classes, and those of each class."""
    model = GPT2Model(size)
    declared = strategy.resolved_for(model.attention)
    few, more = (trainable_parameters(declared, model, classes) for classes in (FEW, MORE))
    each = (more - few) // (MORE - FEW)
    return [few - FEW * each, each]


def main() -> None:
    lines = ",\n".join(f"{json.dumps(source)}: {json.dumps(by_size)}" for source, by_size in counts().items())
    COUNTS.write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
