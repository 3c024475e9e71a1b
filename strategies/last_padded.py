"""The textbook's input: rows padded to the longest training text, padding attended, position -1 read."""

from harness import Input, Strategy

strategy = Strategy(trainable=("block.-1", "final_norm"), readout="last", input=Input(pad_to="longest"))
