"""Convert between points and heatmaps; home of the pixel convention."""
