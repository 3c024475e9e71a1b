"""Trained keys and values that every token attends to, in every block (prefix tuning, arXiv:2101.00190).

Trained of GPT-2: blocks * 2 * 20 * hidden + head
"""

from harness import PrefixTuning, Strategy

strategy = Strategy(adapt=(PrefixTuning(length=20),))
