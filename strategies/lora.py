"""Low-rank adapters on every Linear, the head included; the backbone itself stays frozen.

Trained of GPT-2: 16 * (18 * hidden * blocks + hidden + classes) + head
"""

from harness import Adapter, Strategy

strategy = Strategy(adapt=(Adapter(rank=16, alpha=16.0),))
