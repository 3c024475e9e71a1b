"""Engines: what moves gradients and holds state."""
