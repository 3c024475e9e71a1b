"""Every parameter, each stage at 0.8 times the rate of the one above it (as ELECTRA, arXiv:2003.10555).

Trained of GPT-2: (vocabulary + context) * hidden + blocks * (12 * hidden**2 + 13 * hidden) + 2 * hidden + head
"""

from harness import Strategy

strategy = Strategy(trainable=("all",), rate_decay=0.8)
