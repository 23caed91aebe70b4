"""Train, evaluate and trust heatmap keypoint detectors.

Importing the package alone loads nothing heavy: torch comes with the modules that use it.
"""

__version__ = "0.1.0"
