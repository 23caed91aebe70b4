"""The command `kpd export`: one ONNX file that takes images and gives points, held to PyTorch."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keypoint_detection import __version__
from keypoint_detection.boxes.data_set import draw_examples
from keypoint_detection.confidence import NO_CALIBRATION
from keypoint_detection.data.unlabelled import find_images
from keypoint_detection.images import read_pixels
from keypoint_detection.inference.export import MAX_DIFFERENCE_PX, Parity, compare, export_onnx
from keypoint_detection.inference.loading import load_detector
from keypoint_detection.parsing.errors import Parser
from keypoint_detection.types import DataError

__all__ = ["export", "run"]

N_IMAGES = 16


def run(words: Sequence[str]) -> None:
    """Export the detector that the words describe, of which the first is `export`.

    Raises:
        SystemExit: the words are wrong (2), or the exported file does not do what PyTorch does (1).
    """
    parser = Parser(prog="kpd export", description=export.__doc__)
    parser.add_argument("-c", "--config", action="config", help="YAML file with the options below.")
    parser.add_function_arguments(export)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    options = parser.parse_args(list(words[1:]))
    try:
        is_equal = export(options.ckpt_path, options.output, options.images, options.flip_test)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    if not is_equal:
        raise SystemExit(1)


def export(
    ckpt_path: str, output: str = "detector.onnx", images: str | None = None, flip_test: bool | None = None
) -> bool:
    """Write a detector as one ONNX file that takes images of any size and gives points in their pixels.

    Resizing, normalisation, the network and decoding are inside. A report compares the file with PyTorch.

    Args:
        ckpt_path: checkpoint of the detector, a path or wandb://entity/project/name:alias.
        output: the file to write.
        images: what to compare on: an image, a folder, a pattern or a COCO file. Left out, drawn images.
        flip_test: average the heatmaps with those of the mirrored image, inside the file, which takes twice the time;
            needs a training with data.flip_pairs. Left out, it is as in the training.

    Returns:
        Whether both find the same points to 0.05 px; if not, the file is removed.

    Raises:
        ValueError: the checkpoint or the images cannot be used, or onnx is not installed.
    """
    path = Path(output).expanduser()
    if path.suffix != ".onnx":
        raise DataError(f"output is {output!r}; a name that ends in .onnx is expected.")
    if path.exists():
        raise DataError(f"{path} exists already; give another --output.")
    detector = load_detector(ckpt_path, may_import=True, flip_test=flip_test)
    examples = _read_examples(images) if images else draw_examples(N_IMAGES)
    path.parent.mkdir(parents=True, exist_ok=True)
    export_onnx(detector, path, __version__)
    parity = compare(detector, path, examples)
    sys.stdout.write(
        f"{path}: {path.stat().st_size / 1e6:.1f} MB\n"
        f"Compared with PyTorch on {parity.n_images} images, {parity.n_points} points with a score from "
        f"{parity.min_score:.2f}:\n"
        f"  largest difference   {parity.max_difference_px:.4f} px ({parity.max_weak_difference_px:.4f} px below that "
        "score)\n"
        f"  in score             {parity.max_score_difference:.5f}\n"
        f"{_describe_confidence(detector.calibration is not None, parity)}"
        f"  found by one only    {parity.n_unmatched}\n"
        f"  time of one image    {parity.onnx_ms:.0f} ms, in PyTorch {parity.torch_ms:.0f} ms\n"
    )
    if not parity.holds:
        path.unlink()
        sys.stderr.write(f"kpd export: the difference is over {MAX_DIFFERENCE_PX} px: {path} was removed.\n")
    elif not parity.n_points:
        sys.stderr.write("kpd export: no point was found, so nothing is known of the difference: give --images.\n")
    return parity.holds


def _describe_confidence(is_calibrated: bool, parity: Parity) -> str:
    if not is_calibrated:
        return f"  {NO_CALIBRATION}\n"
    return (
        f"  in spread            {parity.max_spread_difference_px:.4f} px\n"
        f"  in probability       {parity.max_probability_difference:.5f}\n"
    )


def _read_examples(source: str) -> list[NDArray[np.uint8]]:
    return [read_pixels(image.path) for image in find_images(source, None)[:N_IMAGES]]
