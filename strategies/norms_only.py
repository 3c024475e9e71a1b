"""Only the norms, final one included (arXiv:2103.05247 trains these and the positions of a frozen GPT-2).

Trained of GPT-2: 4 * hidden * blocks + 2 * hidden + head
"""

from harness import Strategy

strategy = Strategy(trainable=("norm",))
