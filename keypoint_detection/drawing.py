"""Images of predictions: heatmaps, predicted and true points, a legend of the channels."""

import io
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from keypoint_detection.images import ImageError, read_pixels
from keypoint_detection.marks import FONT_PX, RADIUS, ROW_PX, Pen, colour_of, draw_legend, fit_radius, load_font
from keypoint_detection.types import NOT_LABELLED, OCCLUDED, Batch

# Callbacks draw predictions with at least this score, unless the user sets another: those below are mostly noise.
DRAWN_SCORE = 0.1
# Small images are enlarged by a whole number, so that marks are finer than a pixel and edges stay sharp. Marks and text
# grow with larger ones: at a scale of 1, they suit an image whose shorter side is the last number.
MIN_HEIGHT_PX, MAX_WIDTH_PX, FULL_SCALE_PX = 480, 4000, 360
# Opacity of a heatmap at its maximum; a heatmap whose maximum is below the limit is fainter.
HEATMAP_OPACITY, FAINT = 0.75, 0.02
# The legend of many channels shrinks in steps until it takes at most this share of the height; text stays legible.
LEGEND_SHARE, LEGEND_STEP = 0.15, 0.9
# A contact sheet: the side of a cell, and the margin around its image.
CELL_PX, CELL_MARGIN_PX = 400, 4
JPEG_QUALITY = 80


class PointSet(NamedTuple):
    """The points of one image, in the frame of the image that they are drawn on.

    Attributes:
        predicted: (C, D, 2) pixels.
        scores: (C, D); 0 marks an unused slot.
        true: (C, K, 2) pixels.
        is_labelled: (C, K) bool.
        objects: (C, D) the object of each prediction; -1 for none. None if they are not grouped.
    """

    predicted: NDArray[np.float32]
    scores: NDArray[np.float32]
    true: NDArray[np.float32]
    is_labelled: NDArray[np.bool_]
    objects: NDArray[np.int64] | None = None

    @classmethod
    def of_predictions(
        cls,
        points: Sequence[NDArray[np.floating]],
        scores: Sequence[NDArray[np.floating]],
        objects: Sequence[NDArray[np.int64]] | None = None,
    ) -> "PointSet":
        """Take predictions without ground truth: the (D, 2) points, (D,) scores and objects of each channel."""
        C, D = len(points), max(map(len, points), default=0)
        predicted, padded = np.zeros((C, D, 2), np.float32), np.zeros((C, D), np.float32)
        numbers = np.full((C, D), -1, np.int64)
        for channel, (xy, score) in enumerate(zip(points, scores, strict=True)):
            predicted[channel, : len(xy)], padded[channel, : len(xy)] = xy, score
            numbers[channel, : len(xy)] = -1 if objects is None else objects[channel]
        grouped = None if objects is None else numbers
        return cls(predicted, padded, np.zeros((C, 0, 2), np.float32), np.zeros((C, 0), bool), grouped)


class Heatmaps(NamedTuple):
    """Heatmaps to draw over an image.

    Attributes:
        values: (C, h, w) in [0, 1].
        image_to_cells: (2, 3) the affine map from pixels of the image to cells; without rotation or shear.
    """

    values: NDArray[np.floating]
    image_to_cells: NDArray[np.float64]


def draw_overlay(
    image: NDArray[np.uint8],
    points: PointSet,
    channels: Sequence[str],
    heatmaps: Heatmaps | None = None,
    *,
    min_score: float,
) -> Image.Image:
    """Draw true points as outlines and predicted ones as crosses, beside the heatmaps if they are given.

    Channels differ in colour and shape. A line surrounds the points of an object.

    Args:
        image: (H, W, 3) uint8 RGB.
        points: in pixels of `image`.
        channels: their names, for the legend.
        heatmaps: drawn over a second copy of the image, each scaled to its maximum.
        min_score: predictions with lower scores are not drawn; the legend says so.

    Returns:
        An RGB image with the legend at the bottom; a small `image` is enlarged by a whole number.
    """
    factor = max(1, min(-(-MIN_HEIGHT_PX // image.shape[0]), MAX_WIDTH_PX // image.shape[1]))
    large = image.repeat(factor, axis=0).repeat(factor, axis=1)
    scale = max(1.0, min(large.shape[:2]) / FULL_SCALE_PX)
    panels = [_draw_points(large, points, factor, min_score, scale)]
    has_truth = bool(points.is_labelled.size)
    line = "" if points.objects is None else ", line: object"
    headings = [f"{'outline: true, ' * has_truth}cross: predicted (score >= {min_score:.2g}){line}"]
    names = list(channels)
    if heatmaps is not None:
        panels.append(Image.fromarray(_blend_heatmaps(large, heatmaps, factor)))
        headings.append("heatmap, scaled to its (maximum)")
        peaks = heatmaps.values.max(axis=(1, 2), initial=0)
        names = [f"{name} ({peak:.2f})" for name, peak in zip(names, peaks, strict=True)]
    width, height = panels[0].size
    marks = {"outlines": has_truth, "crosses": True}
    legend = draw_legend(headings, names, width * len(panels), scale, **marks)
    while legend.height > LEGEND_SHARE * height and scale > 1:
        scale = max(1.0, scale * LEGEND_STEP)
        legend = draw_legend(headings, names, width * len(panels), scale, **marks)
    sheet = Image.new("RGB", (width * len(panels), height + legend.height))
    for position, one in enumerate(panels):
        sheet.paste(one, (position * width, 0))
    sheet.paste(legend, (0, height))
    return sheet


class Drawable(NamedTuple):
    """One image of a batch with its ground truth and predictions, on the CPU.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, as the network sees the image.
        points: in those pixels.
        heatmaps: (C, h, w) in [0, 1].
        input_to_image: (2, 3) the affine map from those pixels to those of the original image.
        size: (height, width) of the original image.
    """

    pixels: NDArray[np.uint8]
    points: PointSet
    heatmaps: NDArray[np.float16]
    input_to_image: NDArray[np.float64]
    size: tuple[int, int]

    @classmethod
    def of_batch(cls, predictions: Any, batch: Batch, index: int) -> "Drawable":
        """Take an image of a batch and the detector's `Predictions`."""
        grouping = predictions.detections_input.grouping
        points = PointSet(
            predictions.detections_input.points[index].cpu().numpy(),
            predictions.detections_input.scores[index].cpu().numpy(),
            batch.points[index].cpu().numpy(),
            (batch.visibility[index] != NOT_LABELLED).cpu().numpy(),
            None if grouping is None else grouping.objects[index].cpu().numpy(),
        )
        return cls(
            batch.images[index].permute(1, 2, 0).cpu().numpy(),
            points,
            predictions.logits[index].float().sigmoid().half().cpu().numpy(),
            batch.input_to_image[index].double().cpu().numpy(),
            (int(batch.image_sizes[index, 0]), int(batch.image_sizes[index, 1])),
        )

    def draw(self, channels: Sequence[str], min_score: float) -> Image.Image:
        """Draw the image as the network sees it."""
        heatmaps = Heatmaps(self.heatmaps, self._input_to_cells()[:2])
        return draw_overlay(self.pixels, self.points, channels, heatmaps, min_score=min_score)

    def draw_file(self, path: str | None, max_side_px: int, channels: Sequence[str], min_score: float) -> Image.Image:
        """Draw the image from its file; if there is none, or no longer, draw it as the network saw it."""
        if path is not None:
            with suppress(ImageError):
                return self.draw_original(read_pixels(path), max_side_px, channels, min_score)
        return self.draw(channels, min_score)

    def draw_original(
        self, original: NDArray[np.uint8], max_side_px: int, channels: Sequence[str], min_score: float
    ) -> Image.Image:
        """Draw the original image, (H, W, 3) uint8 RGB, shrunk if a side is longer than a maximum."""
        scale = min(1.0, max_side_px / max(self.size))
        width, height = (max(1, round(scale * side)) for side in self.size[::-1])
        pixels = np.asarray(Image.fromarray(original).resize((width, height))) if scale < 1 else original
        to_image = np.vstack([self.input_to_image, [0, 0, 1]])
        to_pixels = np.diag([width / self.size[1], height / self.size[0], 1]) @ to_image
        predicted, true = (
            (xy @ to_pixels[:2, :2].T + to_pixels[:2, 2]).astype(np.float32)
            for xy in (self.points.predicted, self.points.true)
        )
        points = self.points._replace(predicted=predicted, true=true)
        heatmaps = Heatmaps(self.heatmaps, (self._input_to_cells() @ np.linalg.inv(to_pixels))[:2])
        return draw_overlay(pixels, points, channels, heatmaps, min_score=min_score)

    def _input_to_cells(self) -> NDArray[np.float64]:
        (height, width), (rows, columns) = self.pixels.shape[:2], self.heatmaps.shape[1:]
        return np.diag([columns / width, rows / height, 1.0])


def _draw_points(
    pixels: NDArray[np.uint8], points: PointSet, factor: int, min_score: float, scale: float
) -> Image.Image:
    panel = Image.fromarray(pixels)
    # Pillow's integer coordinates are pixel centres: half a pixel less than continuous coordinates.
    true, predicted = (xy * factor - 0.5 for xy in (points.true, points.predicted))
    is_drawn = (points.scores >= min_score) & (points.scores > 0)
    radius = min(fit_radius(true[points.is_labelled], scale), fit_radius(predicted[is_drawn], scale))
    pen = Pen(ImageDraw.Draw(panel), radius, max(1, round(radius / RADIUS)))
    if points.objects is not None:
        for number in np.unique(points.objects[is_drawn & (points.objects >= 0)]).tolist():
            pen.surround(predicted[is_drawn & (points.objects == number)], number)
    for xy, is_shown, draw in ((true, points.is_labelled, pen.outline), (predicted, is_drawn, pen.cross)):
        for channel, slot in np.argwhere(is_shown):
            draw(float(xy[channel, slot, 0]), float(xy[channel, slot, 1]), int(channel))
    return panel


def _blend_heatmaps(pixels: NDArray[np.uint8], heatmaps: Heatmaps, factor: int) -> NDArray[np.uint8]:
    """Tint a grey copy of the image with each channel's colour where its heatmap is high, mixed where several are."""
    values = heatmaps.values.astype(np.float32)
    shares = values / np.maximum(values.max(axis=(1, 2), keepdims=True, initial=0), FAINT)
    colours = np.array([colour_of(channel) for channel in range(len(shares))], np.float32).reshape(-1, 3)
    mixed = np.einsum("chw,cd->hwd", shares, colours) / np.maximum(shares.sum(axis=0), 1e-6)[..., None]
    opacity = 1 - np.prod(1 - HEATMAP_OPACITY * shares, axis=0)
    # The nearest cell for every pixel, without interpolation: this shows exactly what the network returned.
    (x_scale, _, x_start), (_, y_scale, y_start) = heatmaps.image_to_cells
    height, width = pixels.shape[:2]
    rows = (((np.arange(height) + 0.5) / factor) * y_scale + y_start).astype(int).clip(0, values.shape[1] - 1)
    columns = (((np.arange(width) + 0.5) / factor) * x_scale + x_start).astype(int).clip(0, values.shape[2] - 1)
    cells = np.ix_(rows, columns)
    grey = pixels.mean(axis=2, dtype=np.float32, keepdims=True) * 0.6
    blended = (1 - opacity[cells][..., None]) * grey + opacity[cells][..., None] * mixed[cells]
    return np.asarray(blended.clip(0, 255), np.uint8)


class LabelledPanel(NamedTuple):
    """An image with its labels, for a contact sheet.

    Attributes:
        title: the text below it.
        image: (H, W, 3) uint8 RGB.
        points: (C, K, 2) pixels of `image`.
        visibility: (C, K); 0 not labelled, 1 occluded, 2 visible.
    """

    title: str
    image: NDArray[np.uint8]
    points: NDArray[np.float32]
    visibility: NDArray[np.int64]

    @classmethod
    def of_batch(cls, title: str, batch: Batch) -> "LabelledPanel":
        """Take the first image of a batch."""
        return cls(
            title,
            batch.images[0].permute(1, 2, 0).numpy(),
            batch.points[0].numpy(),
            batch.visibility[0].numpy(),
        )


def draw_contact_sheet(rows: Sequence[Sequence[LabelledPanel]], channels: Sequence[str], heading: str) -> Image.Image:
    """Draw rows of labelled images, each fitted into a cell of the same size, and a legend of the channels.

    Occluded points are struck through; if there are any, the legend says so.

    Args:
        rows: the images of each row.
        channels: their names.
        heading: what the sheet shows.
    """
    n_columns = max(map(len, rows))
    width = n_columns * CELL_PX
    cells = [[_draw_cell(panel) for panel in row] for row in rows]
    has_occluded = any((panel.visibility == OCCLUDED).any() for row in rows for panel in row)
    headings = [heading, *["struck through: occluded"] * has_occluded]
    legend = draw_legend(headings, channels, width, 1, outlines=True, crosses=False)
    heights = [max(cell.height for cell in row) for row in cells]
    sheet = Image.new("RGB", (width, legend.height + sum(heights)))
    sheet.paste(legend, (0, 0))
    top = legend.height
    for row, height in zip(cells, heights, strict=True):
        for column, cell in enumerate(row):
            sheet.paste(cell, (column * CELL_PX, top))
        top += height
    return sheet


def _draw_cell(panel: LabelledPanel) -> Image.Image:
    """Draw an image, its labels and its title into a cell as wide as all others."""
    inner = CELL_PX - 2 * CELL_MARGIN_PX
    height, width = panel.image.shape[:2]
    scale = inner / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    resampling = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.BICUBIC
    cell = Image.new("RGB", (CELL_PX, size[1] + ROW_PX + 2 * CELL_MARGIN_PX))
    left = (CELL_PX - size[0]) // 2
    cell.paste(Image.fromarray(panel.image).resize(size, resampling), (left, CELL_MARGIN_PX))
    # Pillow's integer coordinates are pixel centres: half a pixel less than continuous coordinates.
    points = panel.points * np.array([size[0] / width, size[1] / height]) + (left - 0.5, CELL_MARGIN_PX - 0.5)
    is_labelled = panel.visibility != NOT_LABELLED
    pen = Pen(ImageDraw.Draw(cell), fit_radius(points[is_labelled], 1), 1)
    for channel, slot in np.argwhere(is_labelled):
        x, y = map(float, points[channel, slot])
        if panel.visibility[channel, slot] == OCCLUDED:
            pen.strike(x, y, int(channel))  # below the outline, so that its shape stays clear
        pen.outline(x, y, int(channel))
    font = load_font(FONT_PX)
    title = panel.title
    while len(title) > 1 and font.getlength(title) > inner:
        title = f"…{title.removeprefix('…')[1:]}"
    pen.draw.text((CELL_MARGIN_PX, cell.height - ROW_PX), title, fill="white", font=font)
    return cell


def as_jpeg(image: Image.Image, max_width_px: int) -> bytes:
    """Encode an image as JPEG, reduced to a width if it is wider."""
    if image.width > max_width_px:
        height = max(1, round(image.height * max_width_px / image.width))
        image = image.resize((max_width_px, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
