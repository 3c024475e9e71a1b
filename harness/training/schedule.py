"""The learning rate of each step: a function of the step and the number of all steps alone.

So it needs no state: a resumed run, every rank and every engine has the same. Steps count from 0. The formulas are
those of `transformers.get_scheduler`, and warm-up steps are rounded up as in its Trainer.
"""

from __future__ import annotations

import math

from harness.config.schema import OptimizerConfig


def warmup_steps(optimizer: OptimizerConfig, steps: int) -> int:
    return math.ceil(optimizer.warmup * steps)


def learning_rate(optimizer: OptimizerConfig, step: int, steps: int) -> float:
    """Of step number `step` of `steps`: from 0 in a straight line to the full rate while it warms up, then constant, or
    falling towards 0, which step number `steps` would have: in a straight line, or as half a period of a cosine
    (Loshchilov and Hutter, arXiv:1608.03983)."""
    peak, warmup = optimizer.learning_rate, warmup_steps(optimizer, steps)
    assert peak is not None, "a plan resolves it"
    if step < warmup:
        return peak * step / warmup
    done = (step - warmup) / (steps - warmup)
    match optimizer.schedule:
        case "constant":
            return peak
        case "linear":
            return peak * (1 - done)
        case "cosine":
            return peak * 0.5 * (1 + math.cos(math.pi * done))


def untrained_factor(optimizer: OptimizerConfig, done: int, steps: int, rate_factor: float = 1.0) -> float:
    """What `done` steps of AdamW multiply a parameter by that never has a gradient: weight decay shrinks it by
    1 - rate * decay in each (Loshchilov and Hutter, arXiv:1711.05101, algorithm 2). rate_factor: of its rate."""
    decay = rate_factor * optimizer.weight_decay
    return math.prod(1 - learning_rate(optimizer, step, steps) * decay for step in range(done))
