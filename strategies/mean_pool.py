"""The last block trained, the mean over all real tokens read."""

from harness import Strategy

strategy = Strategy(trainable=("block.-1", "final_norm"), readout="mean")
