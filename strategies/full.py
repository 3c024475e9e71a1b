"""Every parameter of the backbone and the head."""

from harness.declare import Strategy

strategy = Strategy(trainable=("all",))
