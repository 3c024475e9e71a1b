"""The textbook's input: rows padded to the longest training text, padding attended, position -1 read.

Trained of GPT-2: 12 * hidden**2 + 15 * hidden + head
"""

from harness import Input, Strategy

strategy = Strategy(trainable=("block.-1", "final_norm"), readout="last", input=Input(pad_to="longest"))
