"""The command `kpd export`: write one file that takes images and returns points, and compare it with PyTorch."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from keypoint_detection import __version__
from keypoint_detection.boxes.data_set import draw_box_images
from keypoint_detection.confidence import UNCALIBRATED_WARNING
from keypoint_detection.counting import count_in_words
from keypoint_detection.data.unlabelled import find_unlabelled
from keypoint_detection.destinations import refuse_unwritable
from keypoint_detection.images import ImageError, read_pixels
from keypoint_detection.inference.engines import Engine
from keypoint_detection.inference.export import SUFFIXES, ExportFormat, ExportPrecision, write_onnx, write_program
from keypoint_detection.inference.loading import LoadedDetector, load_detector
from keypoint_detection.inference.onnx_engine import OnnxEngine
from keypoint_detection.inference.parity import MAX_DIFFERENCE_PX, Parity, compare
from keypoint_detection.inference.program_engine import ProgramEngine
from keypoint_detection.inference.torch_engine import TorchEngine
from keypoint_detection.parsing.functions import call_with_words
from keypoint_detection.printing import complain, say
from keypoint_detection.types import DataError

N_IMAGES = 16
# Height and width of the drawn images that are used if none are given.
DRAWN_SIZE = (240, 320)


def run(words: Sequence[str]) -> None:
    """Export the detector described by the words, the first of which is `export`.

    Raises:
        SystemExit: the words are wrong (2), or the exported file does not match PyTorch (1).
    """
    is_kept = call_with_words(export, "kpd export", words[1:])
    if not is_kept:
        raise SystemExit(1)


def export(
    ckpt_path: str,
    output: str | None = None,
    format: ExportFormat = "onnx",
    precision: ExportPrecision = "float32",
    heatmaps: bool = False,
    images: str | None = None,
    flip_test: bool | None = None,
) -> bool:
    """Write a detector as one file that takes images of any size and returns points in their pixels.

    Resizing, normalisation, the network and decoding are included. A report compares the file with PyTorch.

    Args:
        ckpt_path: checkpoint of the detector, a path or wandb://entity/project/name:alias.
        output: the file to write; by default, detector.onnx or detector.pt2 in the working folder.
        format: `onnx`, for onnxruntime and others; `torch_export`, for `torch.export.load` without this package.
        precision: precision of the network's weights and arithmetic. `float16` halves the file, is faster on processors
            that support it, and moves points: the report says how far, and the file is kept in any case.
        heatmaps: add the heatmaps as a last output.
        images: images to compare on: an image, a folder, a pattern or a COCO file. By default, images are drawn.
        flip_test: average the heatmaps with those of the mirrored image, inside the file: more precise, at twice the
            runtime; needs a detector trained with data.flip_pairs. By default, as in training.

    Returns:
        Whether the file is kept: both find the same points to within 0.05 px, or it is in half precision.

    Raises:
        ValueError: the checkpoint or the images cannot be used, or onnx is not installed.
    """
    suffix = SUFFIXES[format]
    path = Path(output or f"detector{suffix}").expanduser()
    if path.suffix != suffix:
        raise DataError(f"output is {output!r}; with format {format}, a name ending in {suffix} is expected.")
    if path.exists():
        raise DataError(f"{path} already exists; give another --output.")
    refuse_unwritable(path, "--output")
    detector = load_detector(ckpt_path, flip_test=flip_test)
    examples = _read_examples(images) if images else draw_box_images(N_IMAGES, *DRAWN_SIZE)
    path.parent.mkdir(parents=True, exist_ok=True)
    write = write_onnx if format == "onnx" else write_program
    # The file appears only once it is complete and known to match PyTorch.
    with tempfile.TemporaryDirectory(prefix=".kpd-export-", dir=path.parent) as folder:
        partial = Path(folder) / path.name
        write(detector, partial, precision=precision, heatmaps=heatmaps, version=__version__)
        reference = TorchEngine(detector, "cpu", "float32", compile=False)
        parity = compare(reference, _load_exported(partial, format), examples)
        _report(path, partial.stat().st_size, parity, detector)
        is_kept = parity.holds or precision != "float32"
        if is_kept:
            partial.replace(path)
    if not is_kept:
        complain(
            f"kpd export: the points differ by more than {MAX_DIFFERENCE_PX} px, or are in other objects: {path} was "
            "not kept.\n"
        )
    elif not parity.n_points:
        way_out = (
            "to find out, give --images with objects that the detector knows"
            if images
            else "to find out, give --images"
        )
        complain(f"kpd export: note: no point was found, so the difference is unknown; {way_out}.\n")
    return is_kept


def _load_exported(path: Path, format: ExportFormat) -> Engine:
    return OnnxEngine(str(path), torch.get_num_threads()) if format == "onnx" else ProgramEngine(str(path))


def _report(path: Path, n_bytes: int, parity: Parity, detector: LoadedDetector) -> None:
    say(
        f"{path}: {n_bytes / 1e6:.1f} MB\n"
        f"Compared with PyTorch in float32 on {count_in_words(parity.n_images, 'image')}, "
        f"{count_in_words(parity.n_points, 'point')} with a score from "
        f"{parity.min_score:.2f}:\n"
        f"  maximum difference   {parity.max_difference_px:.4f} px ({parity.max_weak_difference_px:.4f} px below that "
        "score)\n"
        f"  median difference    {parity.median_difference_px:.4f} px\n"
        f"  in score             {parity.max_score_difference:.5f}\n"
        f"{_describe_confidence(detector.calibration is not None, parity)}"
        f"  found by one only    {parity.n_unmatched}\n"
        f"{_describe_objects(detector.vote_codec is not None, parity)}"
        f"  time of one image    {parity.exported_ms:.0f} ms, in PyTorch {parity.reference_ms:.0f} ms\n"
    )
    if detector.network.mirrored_channels is not None:
        say("  averaged with the mirrored image; --flip_test=false takes half the time\n")


def _describe_objects(is_grouping: bool, parity: Parity) -> str:
    return f"  in another object    {parity.n_regrouped}\n" if is_grouping else ""


def _describe_confidence(is_calibrated: bool, parity: Parity) -> str:
    if not is_calibrated:
        return f"  {UNCALIBRATED_WARNING}\n"
    return (
        f"  in spread            {parity.max_spread_difference_px:.4f} px\n"
        f"  in probability       {parity.max_probability_difference:.5f}\n"
    )


def _read_examples(source: str) -> list[NDArray[np.uint8]]:
    """Read the first readable images, and name the unreadable ones before them."""
    images = find_unlabelled(source, None, "--images", "allow", takes_videos=False)
    examples: list[NDArray[np.uint8]] = []
    failures: list[str] = []
    for image in images:
        try:
            examples.append(read_pixels(image.path))
        except ImageError as error:
            failures.append(str(error))
        if len(examples) == N_IMAGES:
            break
    if not examples:
        raise DataError(f"--images: nothing of {source} can be read; the first is {failures[0]}")
    for failure in failures:
        complain(f"kpd export: skipped {failure}\n")
    return examples
