"""Backbones, losses and the detector that composes them."""
