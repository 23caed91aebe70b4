"""Keypoint metrics: pure functions on tensors, and the torchmetrics class that feeds them."""
