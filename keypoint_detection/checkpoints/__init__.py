"""Checkpoints: files on disk and at Weights & Biases, and the settings and weights in them."""
