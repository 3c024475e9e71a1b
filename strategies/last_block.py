"""The last block, the final LayerNorm and the head: the textbook's choice.

Trained of GPT-2: 12 * hidden**2 + 15 * hidden + head
"""

from harness import Strategy

strategy = Strategy(trainable=("block.-1", "final_norm"))
