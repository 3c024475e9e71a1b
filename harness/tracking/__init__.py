"""Runs and tables handed to the trackers that people look at results with: TensorBoard, MLflow, Trackio, W&B."""
