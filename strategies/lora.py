"""Low-rank adapters on every Linear, the head included; the backbone itself stays frozen."""

from harness import Adapter, Strategy

strategy = Strategy(adapt=(Adapter(rank=16, alpha=16.0),))
