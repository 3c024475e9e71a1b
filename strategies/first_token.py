"""The last block trained, the first token read, as BERT reads [CLS]: under a causal mask it sees only itself.

Trained of GPT-2: 12 * hidden**2 + 15 * hidden + head
"""

from harness import Strategy

strategy = Strategy(trainable=("block.-1", "final_norm"), readout="first")
