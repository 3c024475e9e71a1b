"""Every parameter of the backbone and the head."""

from harness import Strategy

strategy = Strategy(trainable=("all",))
