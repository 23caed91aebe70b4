"""What a peak's score and shape say about its point: how likely it is to be right, and how far off it could be."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from keypoint_detection.types import Detections

# Shown to users of a checkpoint without a calibration.
UNCALIBRATED_WARNING = (
    "The checkpoint has no calibration, so points have neither probability nor spread. "
    "`kpd validate --ckpt_path=… --data.val=…` writes a copy that has one, if enough points are right."
)
# Closer to 0 or 1 than this, scores carry no more information: float32 hardly distinguishes them from 0 and 1.
_CLOSEST_SCORE = 1e-6


class Calibration(NamedTuple):
    """What a validation determined about the scores and shapes of peaks, as plain numbers; see `metrics.calibration`.

    Attributes:
        thresholds_px: distances in pixels of the original image within which a point counts as right; ascending.
        of_log_score: for each threshold, the factor of the logarithm of the score; 0 or more.
        of_log_rest: for each threshold, the factor of minus the logarithm of 1 minus the score; 0 or more.
        intercepts: for each threshold, the constant added to those two terms to give the log-odds.
        peak_factor: the factor that turns the covariance of a peak into that of its point's errors.
    """

    thresholds_px: tuple[float, ...]
    of_log_score: tuple[float, ...]
    of_log_rest: tuple[float, ...]
    intercepts: tuple[float, ...]
    peak_factor: float

    def apply(self, detections: Detections) -> Detections:
        """Fill in probabilities, and turn the covariances of peaks into those of errors.

        Only operations that can be traced and exported are used.

        Args:
            detections: as decoded, in input pixels.
        """
        assert detections.covariances is not None, "decoding measures the peaks"
        return detections._replace(
            covariances=detections.covariances * self.peak_factor, probabilities=self.probabilities(detections.scores)
        )

    def probabilities(self, scores: Tensor) -> Tensor:
        """Return the probabilities (..., T) that points with these scores (...) are right; 0 for a score of 0.

        They rise with the score, and from one threshold to the next.
        """
        score, rest = log_odds_terms(scores)
        found: list[Tensor] = []
        for slope, rest_slope, intercept in zip(self.of_log_score, self.of_log_rest, self.intercepts, strict=True):
            one = torch.sigmoid(slope * score + rest_slope * rest + intercept)
            # Each threshold is fitted separately, and two curves that nearly agree may cross.
            found.append(torch.maximum(one, found[-1]) if found else one)
        return torch.stack(found, dim=-1) * (scores > 0)[..., None]

    def as_state(self) -> dict[str, Any]:
        """Return plain values, which a checkpoint or a JSON file can hold; `from_state` reads them back."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self._asdict().items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Calibration":
        """Restore a calibration from what `as_state` returned."""
        plain: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in state.items()}
        return cls(**plain)


def calibrate(detections: Detections, calibration: Calibration | None) -> Detections:
    """Apply a calibration; without one, leave out what would be meaningless."""
    return detections._replace(covariances=None) if calibration is None else calibration.apply(detections)


def log_odds_terms(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two terms, each (...), whose sum is the log-odds of scores (...): log s and -log(1 - s)."""
    kept = scores.clamp(_CLOSEST_SCORE, 1 - _CLOSEST_SCORE)
    return kept.log(), -torch.log1p(-kept)
