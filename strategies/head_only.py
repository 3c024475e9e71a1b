"""Only the new head: the frozen backbone is a fixed feature extractor."""

from harness import Strategy

strategy = Strategy()
