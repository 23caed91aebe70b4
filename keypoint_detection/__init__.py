"""Train, evaluate and trust heatmap keypoint detectors.

Importing the package by itself loads nothing heavy: torch is loaded by the modules that use it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keypoint_detection.inference.predictor import Predictor

__all__ = ["Predictor", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load `Predictor`, and torch with it, on first use."""
    if name == "Predictor":
        from keypoint_detection.inference.predictor import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
