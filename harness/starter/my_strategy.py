"""The MLP of the last block and the final norm, read as the mean of all tokens."""

from harness import Strategy

# What is trained, in names that every model has: "block.-1" is the last block, "all" everything. The rest stays as it
# was pretrained. docs/strategies.md of ftbench has the names, and what else a strategy can say.
strategy = Strategy(trainable=("block.-1.mlp", "final_norm"), readout="mean")
