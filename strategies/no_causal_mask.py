"""The last block trained without the causal mask: every token sees the full text, in all blocks."""

from harness import Strategy

strategy = Strategy(trainable=("block.-1", "final_norm"), attention="full")
