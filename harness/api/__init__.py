"""What Python has of ftbench: `harness.compare`, its result, and a scikit-learn classifier."""

from harness.launch.libraries import set_variables

set_variables()  # where nobody has imported PyTorch before
