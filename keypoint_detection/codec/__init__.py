"""Between points and heatmaps: the pixel convention."""
