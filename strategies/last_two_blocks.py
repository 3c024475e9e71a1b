"""The last two blocks, the final LayerNorm and the head.

Trained of GPT-2: 2 * (12 * hidden**2 + 13 * hidden) + 2 * hidden + head
"""

from harness import Strategy

strategy = Strategy(trainable=("block.-2", "block.-1", "final_norm"))
