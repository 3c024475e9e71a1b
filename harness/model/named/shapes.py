"""Sizes of the GPT-2s that MODEL can name; without PyTorch, for commands that only read texts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """Sizes of a GPT-2."""

    vocabulary: int
    context: int
    hidden: int
    blocks: int
    heads: int


SHAPES = {
    "mini": Shape(vocabulary=640, context=256, hidden=128, blocks=4, heads=4),
    "gpt2": Shape(vocabulary=50257, context=1024, hidden=768, blocks=12, heads=12),
    "gpt2-medium": Shape(vocabulary=50257, context=1024, hidden=1024, blocks=24, heads=16),
    "gpt2-large": Shape(vocabulary=50257, context=1024, hidden=1280, blocks=36, heads=20),
    "gpt2-xl": Shape(vocabulary=50257, context=1024, hidden=1600, blocks=48, heads=25),
}
