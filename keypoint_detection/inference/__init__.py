"""Use a trained detector: from a checkpoint and images to points in pixels of the images."""
