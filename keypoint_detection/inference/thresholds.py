"""The minimum score of the detections that users get."""

import logging
import math
from collections.abc import Mapping
from typing import Any, Literal

# `best_f1` is the score of a point in the validation, whose last digits depend on the batch: the threshold lies just
# below it, so that this point is always included.
BELOW_BEST_F1 = 0.999

logger = logging.getLogger(__name__)


def read_best_f1(validation: Mapping[str, Any] | None) -> float | None:
    """Return the score with the best F1 of a stored validation, over all channels; None if there is none.

    Args:
        validation: the validation as stored in a checkpoint; None if there is none.
    """
    threshold = math.nan if validation is None else float(validation["report"]["overall"]["score_threshold"])
    # A detector that found nothing has no best threshold.
    return None if math.isnan(threshold) else threshold


def choose_threshold(wanted: float | Literal["best_f1"], best_f1: float | None, lowest: float) -> float:
    """Choose the score below which points are left out.

    Args:
        wanted: a score in [0, 1], or `best_f1`.
        best_f1: the score with the best F1 in the validation stored in a checkpoint; None if there is none.
        lowest: minimum score of the points that the detector returns; used if there is no `best_f1`.

    Raises:
        ValueError: the score is out of range.
    """
    if wanted == "best_f1":
        if best_f1 is None:
            logger.warning(
                "There is no validation to determine `best_f1`: points scoring at least %g are kept.", lowest
            )
            return lowest
        return BELOW_BEST_F1 * best_f1
    try:
        is_in_range = 0 <= float(wanted) <= 1
    except ValueError:
        is_in_range = False
    if not is_in_range:
        raise ValueError(f"score_threshold is {wanted!r}; a number from 0 to 1 or 'best_f1' is expected.")
    return float(wanted)
