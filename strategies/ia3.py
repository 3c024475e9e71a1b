"""Factors of keys, values and the MLP's inner activations ((IA)³, arXiv:2205.05638).

Trained of GPT-2: blocks * (1 + 1 + 4) * hidden + head
"""

from harness import IA3, Strategy

strategy = Strategy(adapt=(IA3(outputs=("attention.key", "attention.value"), inputs=("mlp.contract",)),))
