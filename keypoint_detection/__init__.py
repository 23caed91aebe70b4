"""Train, evaluate and trust heatmap keypoint detectors.

Importing the package alone loads nothing heavy: torch is loaded by the modules that use it, Lightning by those that
train.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keypoint_detection.data.datamodule import KeypointsDataModule
    from keypoint_detection.detector import KeypointDetector
    from keypoint_detection.inference.predictor import Predictor
    from keypoint_detection.inference.results import Point, Result

__all__ = ["KeypointDetector", "KeypointsDataModule", "Point", "Predictor", "Result", "__version__"]

__version__ = "0.1.0"

_MODULES = {
    "KeypointDetector": "detector",
    "KeypointsDataModule": "data.datamodule",
    "Point": "inference.results",
    "Predictor": "inference.predictor",
    "Result": "inference.results",
}


def __getattr__(name: str) -> Any:
    """Load a class, and what it needs, on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
