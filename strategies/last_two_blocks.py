"""The last two blocks, the final LayerNorm and the head."""

from harness import Strategy

strategy = Strategy(trainable=("block.-2", "block.-1", "final_norm"))
