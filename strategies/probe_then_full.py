"""The head fitted first, then every parameter trained (LP-FT, arXiv:2202.10054).

Trained of GPT-2: (vocabulary + context) * hidden + blocks * (12 * hidden**2 + 13 * hidden) + 2 * hidden + head
"""

from harness import Strategy

strategy = Strategy(trainable=("all",), phases=("fit_head", "steps"))
