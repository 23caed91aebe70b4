"""Write a detector as one file that takes images and returns points, as ONNX or as a torch.export program."""

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from keypoint_detection.extras import how_to_install
from keypoint_detection.inference.exportable import ExportableDetector
from keypoint_detection.inference.loading import LoadedDetector
from keypoint_detection.inference.onnx_engine import METADATA_KEY
from keypoint_detection.inference.program_engine import METADATA_FILE
from keypoint_detection.types import DataError

ExportFormat: TypeAlias = Literal["onnx", "torch_export"]
ExportPrecision: TypeAlias = Literal["float32", "float16"]

SUFFIXES: dict[ExportFormat, str] = {"onnx": ".onnx", "torch_export": ".pt2"}
# Resizing by ONNX operators came with opset 18, which onnxruntime has supported since 1.14.
OPSET = 18
SMALLEST_SIDE_PX = 8
# The metadata of a traced operation that describe the code it came from.
TRACES = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node")


class _Example(NamedTuple):
    """Inputs for tracing a module: images, and which of their sizes are dynamic."""

    images: Tensor
    free_sizes: dict[int, Any]


def write_onnx(
    detector: LoadedDetector, path: Path, *, precision: ExportPrecision, heatmaps: bool, version: str
) -> None:
    """Write a detector as an ONNX file with its metadata inside.

    Args:
        detector: the detector to write.
        path: the file to write.
        precision: precision of the network's weights and arithmetic.
        heatmaps: add the heatmaps as a last output.
        version: version of this package.

    Raises:
        DataError: onnx is not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  # without it, the exporter fails with a less helpful error
    except ModuleNotFoundError as error:
        raise DataError(f"exporting to ONNX needs onnx: {how_to_install('onnx')}.") from error
    model = ExportableDetector(detector, getattr(torch, precision), heatmaps, plain_resizing=True).eval()
    example = _make_example(detector)
    with torch.inference_mode(mode=False), torch.no_grad():
        program = torch.onnx.export(
            model,
            (example.images,),
            dynamo=True,
            dynamic_shapes=(example.free_sizes,),
            opset_version=OPSET,
            input_names=["images"],
            output_names=model.output_names,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    content = program.model_proto
    for node in content.graph.node:
        del node.metadata_props[:]  # stack traces with paths on this machine
    onnx.helper.set_model_props(content, {METADATA_KEY: _describe(detector, precision, model.output_names, version)})
    onnx.save(content, path)


def write_program(
    detector: LoadedDetector, path: Path, *, precision: ExportPrecision, heatmaps: bool, version: str
) -> None:
    """Write a detector as a program for `torch.export.load`; for the arguments, see `write_onnx`."""
    model = ExportableDetector(detector, getattr(torch, precision), heatmaps, plain_resizing=False).eval()
    example = _make_example(detector)
    with torch.inference_mode(mode=False), torch.no_grad():
        program = torch.export.export(model, (example.images,), dynamic_shapes=(example.free_sizes,))
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                for key in TRACES:
                    node.meta.pop(key, None)
    # The example is all zeros and no part of the detector.
    program.example_inputs = None
    metadata = {METADATA_FILE: _describe(detector, precision, model.output_names, version)}
    torch.export.save(program, path, extra_files=metadata)


def _make_example(detector: LoadedDetector) -> _Example:
    height, width = detector.inputs.image_size or (256, 256)
    sizes = [torch.export.Dim("batch"), *(torch.export.Dim(name, min=SMALLEST_SIDE_PX) for name in ("height", "width"))]
    # Neither the size of the network's input nor a multiple of it, so that no size is mistaken for a constant.
    return _Example(torch.zeros(2, height + 16, width + 48, 3, dtype=torch.uint8), dict(enumerate(sizes)))


def _describe(detector: LoadedDetector, precision: ExportPrecision, outputs: list[str], version: str) -> str:
    return json.dumps(
        {
            "channels": list(detector.channels),
            "types": detector.channels,
            "coordinates": detector.inputs.coordinates,
            "points": "continuous: (0, 0) is the outer corner of the top-left pixel of the image that was given",
            "score_threshold": detector.codec.score_threshold,
            "best_f1": detector.best_f1_threshold,
            "precision": precision,
            "outputs": outputs,
            "vote_radius_px": None if detector.vote_codec is None else detector.vote_codec.radius_px,
            "calibration": None if detector.calibration is None else detector.calibration.as_state(),
            "version": version,
        }
    )
