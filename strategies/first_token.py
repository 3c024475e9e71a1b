"""The last block trained, the first token read, as BERT reads [CLS]: under a causal mask it sees only itself."""

from harness import Strategy

strategy = Strategy(trainable=("block.-1", "final_norm"), readout="first")
