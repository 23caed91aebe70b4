"""Images of predictions: heatmaps, predicted and true points, a legend of the channels."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from keypoint_detection.types import NOT_LABELLED, Batch

__all__ = ["DRAWN_SCORE", "LabelledPanel", "PointSet", "draw_contact_sheet", "draw_overlay", "draw_prediction"]

# Okabe & Ito's palette, which people with every kind of colour vision can tell apart, without its black and grey.
PALETTE = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167), (0, 114, 178))

# Callbacks draw predictions from this score on, unless the user says otherwise: those below are mostly noise.
DRAWN_SCORE = 0.1
# Small images are enlarged by a whole number, so that marks are finer than a pixel and edges stay where they are.
MIN_HEIGHT_PX, MAX_WIDTH_PX = 360, 4000
MARK_RADIUS = 5
MIN_MARK_RADIUS = 1
LEGEND_ROW_PX = 18
# Opacity of a heatmap cell of 1.
HEATMAP_OPACITY = 0.75
# A contact sheet: the side of a cell, the margin around its image, and the space for a mark in the legend.
CELL_PX, CELL_MARGIN_PX, LEGEND_MARK_PX = 400, 4, 18
# The corners of the marks, in radii; a ring has none. They distinguish channels of the same colour.
SHAPES: tuple[tuple[tuple[float, float], ...] | None, ...] = (
    None,
    ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
    ((0, -1.2), (1.1, 0.8), (-1.1, 0.8)),
)


class PointSet(NamedTuple):
    """The points of one image, in the frame of the image that they are drawn on.

    Attributes:
        predicted: (C, D, 2) pixels.
        scores: (C, D); 0 marks an unused slot.
        true: (C, K, 2) pixels.
        is_labelled: (C, K) bool.
    """

    predicted: NDArray[np.float32]
    scores: NDArray[np.float32]
    true: NDArray[np.float32]
    is_labelled: NDArray[np.bool_]

    @classmethod
    def of_predictions(cls, points: Sequence[NDArray[np.float32]], scores: Sequence[NDArray[np.float32]]) -> "PointSet":
        """Take predictions without ground truth: the (D, 2) points and (D,) scores of each channel."""
        C, D = len(points), max(map(len, points), default=0)
        predicted, padded = np.zeros((C, D, 2), np.float32), np.zeros((C, D), np.float32)
        for channel, (xy, score) in enumerate(zip(points, scores, strict=True)):
            predicted[channel, : len(xy)], padded[channel, : len(xy)] = xy, score
        return cls(predicted, padded, np.zeros((C, 0, 2), np.float32), np.zeros((C, 0), bool))


def draw_overlay(
    image: NDArray[np.uint8],
    points: PointSet,
    channels: Sequence[str],
    heatmaps: NDArray[np.float32] | None = None,
    *,
    min_score: float,
) -> Image.Image:
    """Draw true points as circles and predicted ones as crosses, beside the heatmaps if they are given.

    Args:
        image: (H, W, 3) uint8 RGB.
        points: in pixels of `image`.
        channels: their names, for the legend.
        heatmaps: (C, h, w) in [0, 1], drawn over a second copy of the image.
        min_score: predictions that score less are not drawn; the legend says so.

    Returns:
        An RGB image with the legend at the bottom; a small `image` is enlarged by a whole number.
    """
    factor = max(1, min(-(-MIN_HEIGHT_PX // image.shape[0]), MAX_WIDTH_PX // image.shape[1]))
    panel = _draw_points(_enlarge(image, factor), points, factor, min_score)
    panels = [panel]
    if heatmaps is not None:
        panels.append(Image.fromarray(_blend_heatmaps(_enlarge(image, factor), heatmaps)))
    marks = "o true   + predicted" if points.is_labelled.size else "+ predicted"
    legend = _draw_legend([f"{marks} (score >= {min_score:.2g})", *channels], panel.width * len(panels))
    sheet = Image.new("RGB", (panel.width * len(panels), panel.height + legend.height))
    for position, one in enumerate(panels):
        sheet.paste(one, (position * panel.width, 0))
    sheet.paste(legend, (0, panel.height))
    return sheet


def draw_prediction(
    predictions: Any, batch: Batch, index: int, channels: Sequence[str], min_score: float
) -> Image.Image:
    """Draw one image of a batch with what the detector predicts for it.

    Args:
        predictions: the detector's `Predictions` for the batch.
        batch: the images and their ground truth.
        index: which image of the batch.
        channels: their names, for the legend.
        min_score: predictions that score less are not drawn.
    """
    points = PointSet(
        predictions.detections_input.points[index].cpu().numpy(),
        predictions.detections_input.scores[index].cpu().numpy(),
        batch.points[index].cpu().numpy(),
        (batch.visibility[index] != NOT_LABELLED).cpu().numpy(),
    )
    heatmaps = predictions.logits[index].float().sigmoid().cpu().numpy()
    image = batch.images[index].permute(1, 2, 0).cpu().numpy()
    return draw_overlay(image, points, channels, heatmaps, min_score=min_score)


def _colour(channel: int) -> tuple[int, int, int]:
    return PALETTE[channel % len(PALETTE)]


def _enlarge(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def _draw_points(pixels: NDArray[np.uint8], points: PointSet, factor: int, min_score: float) -> Image.Image:
    panel = Image.fromarray(pixels)
    draw = ImageDraw.Draw(panel)
    r = MARK_RADIUS
    for channel in range(len(points.scores)):
        # Pillow's integer coordinates are pixel centres: half a pixel less than continuous coordinates.
        true = points.true[channel][points.is_labelled[channel]] * factor - 0.5
        is_drawn = points.scores[channel] >= min_score
        predicted = points.predicted[channel][is_drawn] * factor - 0.5
        for x, y in true:
            draw.ellipse([x - r - 1, y - r - 1, x + r + 1, y + r + 1], outline="black", width=1)
            draw.ellipse([x - r, y - r, x + r, y + r], outline=_colour(channel), width=2)
        for x, y in predicted:
            for colour, width in (("black", 3), (_colour(channel), 1)):
                draw.line([x - r, y, x + r, y], fill=colour, width=width)
                draw.line([x, y - r, x, y + r], fill=colour, width=width)
    return panel


def _blend_heatmaps(pixels: NDArray[np.uint8], heatmaps: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Tint a grey copy of the image with each channel's colour where its heatmap is high."""
    height, width = pixels.shape[:2]
    # The nearest cell for every pixel, without interpolation: what is shown is what the network returned.
    rows = np.arange(height) * heatmaps.shape[1] // height
    columns = np.arange(width) * heatmaps.shape[2] // width
    grey = pixels.mean(axis=2, keepdims=True).repeat(3, axis=2) * 0.6
    for channel, heatmap in enumerate(heatmaps):
        opacity = HEATMAP_OPACITY * heatmap[rows][:, columns, None].clip(0, 1)
        grey = (1 - opacity) * grey + opacity * np.array(_colour(channel))
    blended: NDArray[np.uint8] = grey.astype(np.uint8)
    return blended


def _draw_legend(entries: Sequence[str], width: int) -> Image.Image:
    """Draw the first entry, which explains the marks, and the channels in their colours."""
    font = ImageFont.load_default()
    colours: list[str | tuple[int, int, int]] = ["white", *(_colour(channel) for channel in range(len(entries) - 1))]
    rows: list[list[tuple[str, str | tuple[int, int, int], int]]] = [[]]
    x = 8
    for text, colour in zip(entries, colours, strict=True):
        length = int(font.getlength(text)) + 16
        if rows[-1] and x + length > width:
            rows.append([])
            x = 8
        rows[-1].append((text, colour, x))
        x += length
    legend = Image.new("RGB", (width, LEGEND_ROW_PX * len(rows) + 4), "black")
    draw = ImageDraw.Draw(legend)
    for number, row in enumerate(rows):
        for text, colour, x in row:
            draw.text((x, 4 + number * LEGEND_ROW_PX), text, fill=colour, font=font)
    return legend


class LabelledPanel(NamedTuple):
    """An image with its labels, for a contact sheet.

    Attributes:
        title: the text below it.
        image: (H, W, 3) uint8 RGB.
        points: (C, K, 2) pixels of `image`.
        is_labelled: (C, K) bool.
    """

    title: str
    image: NDArray[np.uint8]
    points: NDArray[np.float32]
    is_labelled: NDArray[np.bool_]

    @classmethod
    def of_batch(cls, title: str, batch: Batch) -> "LabelledPanel":
        """Take the first image of a batch."""
        return cls(
            title,
            batch.images[0].permute(1, 2, 0).numpy(),
            batch.points[0].numpy(),
            (batch.visibility[0] != NOT_LABELLED).numpy(),
        )


def draw_contact_sheet(rows: Sequence[Sequence[LabelledPanel]], channels: Sequence[str], heading: str) -> Image.Image:
    """Draw rows of labelled images, each fitted into a cell of the same size, and a legend of the channels.

    Channels differ in colour and, after the seventh, in shape too.

    Args:
        rows: the images of each row.
        channels: their names.
        heading: what the sheet shows.
    """
    n_columns = max(map(len, rows))
    width = n_columns * CELL_PX
    cells = [[_draw_cell(panel) for panel in row] for row in rows]
    legend = _draw_mark_legend(heading, channels, width)
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
    cell = Image.new("RGB", (CELL_PX, size[1] + LEGEND_ROW_PX + 2 * CELL_MARGIN_PX))
    left = (CELL_PX - size[0]) // 2
    cell.paste(Image.fromarray(panel.image).resize(size, resampling), (left, CELL_MARGIN_PX))
    draw = ImageDraw.Draw(cell)
    # Pillow's integer coordinates are pixel centres: half a pixel less than continuous coordinates.
    points = panel.points * np.array([size[0] / width, size[1] / height]) + (left - 0.5, CELL_MARGIN_PX - 0.5)
    radius = _fit_radius(points[panel.is_labelled])
    for channel, slot in np.argwhere(panel.is_labelled):
        x, y = points[channel, slot]
        _draw_mark(draw, float(x), float(y), int(channel), radius)
    font = ImageFont.load_default()
    title = panel.title
    while len(title) > 1 and font.getlength(title) > inner:
        title = f"…{title.removeprefix('…')[1:]}"
    draw.text((CELL_MARGIN_PX, cell.height - LEGEND_ROW_PX), title, fill="white", font=font)
    return cell


def _fit_radius(points: NDArray[np.float64]) -> float:
    """Return the radius of marks at points (N, 2): smaller if half of them would touch each other."""
    if len(points) < 2:
        return MARK_RADIUS
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1) + np.diag(np.full(len(points), np.inf))
    return float(np.clip(np.median(distances.min(axis=1)) / 2, MIN_MARK_RADIUS, MARK_RADIUS))


def _draw_mark(draw: ImageDraw.ImageDraw, x: float, y: float, channel: int, radius: float) -> None:
    """Draw the mark of a channel: a ring, a square, a diamond or a triangle in its colour, edged with black."""
    shape = channel // len(PALETTE) % len(SHAPES)
    is_small = radius < MARK_RADIUS / 2
    if not is_small:
        _draw_outline(draw, x, y, SHAPES[shape], radius + 1, (0, 0, 0), 4)
    _draw_outline(draw, x, y, SHAPES[shape], radius, _colour(channel), 1 if is_small else 2)


def _draw_outline(
    draw: ImageDraw.ImageDraw,
    x: float,
    y: float,
    shape: Sequence[tuple[float, float]] | None,
    radius: float,
    colour: tuple[int, int, int],
    width: int,
) -> None:
    if shape is None:
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], outline=colour, width=width)
    else:
        corners = [(x + radius * dx, y + radius * dy) for dx, dy in shape]
        draw.line([*corners, corners[0], corners[1]], fill=colour, width=width, joint="curve")


def _draw_mark_legend(heading: str, channels: Sequence[str], width: int) -> Image.Image:
    """Draw the heading and the marks of all channels with their names."""
    font = ImageFont.load_default()
    places: list[tuple[int, int]] = []
    x, row = CELL_MARGIN_PX, 1
    for name in channels:
        length = int(font.getlength(name)) + LEGEND_MARK_PX + 12
        if x + length > width and x > CELL_MARGIN_PX:
            x, row = CELL_MARGIN_PX, row + 1
        places.append((x, row))
        x += length
    legend = Image.new("RGB", (width, LEGEND_ROW_PX * (row + 1) + 8))
    draw = ImageDraw.Draw(legend)
    draw.text((CELL_MARGIN_PX, 4), heading, fill="white", font=font)
    for channel, ((x, row), name) in enumerate(zip(places, channels, strict=True)):
        top = 4 + row * LEGEND_ROW_PX
        _draw_mark(draw, x + MARK_RADIUS + 2, top + LEGEND_ROW_PX / 2 - 2, channel, MARK_RADIUS)
        draw.text((x + LEGEND_MARK_PX, top), name, fill=_colour(channel), font=font)
    return legend
