"""Only the new head: the frozen backbone is a fixed feature extractor.

Trained of GPT-2: head
"""

from harness import Strategy

strategy = Strategy()
