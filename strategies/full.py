"""Every parameter of the backbone and the head.

Trained of GPT-2: (vocabulary + context) * hidden + blocks * (12 * hidden**2 + 13 * hidden) + 2 * hidden + head
"""

from harness import Strategy

strategy = Strategy(trainable=("all",))
