"""Tests share the cores with each other and with the processes they start: one thread each."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by PyTorch when it is imported
