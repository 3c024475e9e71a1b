"""The last block, the final LayerNorm and the head: the textbook's choice."""

from harness import Strategy

strategy = Strategy(trainable=("block.-1", "final_norm"))
