"""`make perf-gpu`: speed on a GPU, beside the plain path and the Hugging Face Trainer, in one table."""
