"""The command `kpd synthesize`: draw a data set of boxes."""

import functools
import logging
from collections.abc import Sequence
from typing import Any

from keypoint_detection.boxes.data_set import SyntheticBoxes, draw_data_set
from keypoint_detection.parsing.functions import call_with_words


def run(words: Sequence[str]) -> None:
    """Draw the data set described by the words, the first of which is `synthesize`.

    Raises:
        SystemExit: the words are wrong, or the folder holds something else (2).
    """
    logging.getLogger(draw_data_set.__module__).setLevel(logging.INFO)
    call_with_words(synthesize, "kpd synthesize", words[1:])


@functools.wraps(SyntheticBoxes, updated=())
def synthesize(**options: Any) -> None:
    """Draw a data set; its options are those of `SyntheticBoxes`."""
    draw_data_set(SyntheticBoxes(**options))
