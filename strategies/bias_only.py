"""Only the biases (BitFit, arXiv:2106.10199), those of the norms included.

Trained of GPT-2: 11 * hidden * blocks + hidden + head
"""

from harness import Strategy

strategy = Strategy(trainable=("bias",))
