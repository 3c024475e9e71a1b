"""Trained vectors before the embedded tokens of each text (prompt tuning, arXiv:2104.08691).

Trained of GPT-2: 20 * hidden + head
"""

from harness import PromptTuning, Strategy

strategy = Strategy(adapt=(PromptTuning(length=20),))
