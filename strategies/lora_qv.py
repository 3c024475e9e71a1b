"""Low-rank adapters on queries and values, as the LoRA paper has them (arXiv:2106.09685, table 9: RoBERTa base).

Trained of GPT-2: 2 * 8 * 2 * hidden * blocks + head
"""

from harness import Adapter, Strategy

strategy = Strategy(
    adapt=(Adapter(rank=8, alpha=8.0, targets=("attention.query", "attention.value"), scale="alpha / rank"),)
)
