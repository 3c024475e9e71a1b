"""Low-rank adapters with a trained size of each output (DoRA, arXiv:2402.09353), on attention's inputs and the MLP.

Trained of GPT-2: blocks * (16 * (3 * 2 + 2 * 5) * hidden + (3 + 5) * hidden) + head
"""

from harness import Adapter, Strategy

TARGETS = ("attention.query", "attention.key", "attention.value", "mlp")

strategy = Strategy(adapt=(Adapter(rank=16, alpha=32.0, targets=TARGETS, scale="alpha / rank", trains_size=True),))
