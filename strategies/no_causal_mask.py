"""The last block trained without the causal mask: every token sees the full text, in all blocks.

Trained of GPT-2: 12 * hidden**2 + 15 * hidden + head
"""

from harness import Strategy

strategy = Strategy(trainable=("block.-1", "final_norm"), attention="full")
