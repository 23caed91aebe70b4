"""The command `kpd synthesize`: draw a data set of boxes."""

import logging
from collections.abc import Sequence
from dataclasses import fields

from keypoint_detection.boxes.data_set import SyntheticBoxes, draw_data_set
from keypoint_detection.parsing.errors import Parser
from keypoint_detection.parsing.functions import describe
from keypoint_detection.printing import make_handler


def run(words: Sequence[str]) -> None:
    """Draw the data set described by the words, the first of which is `synthesize`.

    Raises:
        SystemExit: the words are wrong, or the folder holds something else (2).
    """
    parser = Parser(prog="kpd synthesize", description=describe(SyntheticBoxes))
    parser.add_argument("-c", "--config", action="config", help="YAML file with the options below.")
    parser.add_class_arguments(SyntheticBoxes, as_group=False)
    logging.basicConfig(level=logging.INFO, handlers=[make_handler()])
    try:
        options = vars(parser.parse_args(list(words[1:])))
        draw_data_set(SyntheticBoxes(**{field.name: options[field.name] for field in fields(SyntheticBoxes)}))
    except (ValueError, OSError) as error:
        parser.error(str(error))
