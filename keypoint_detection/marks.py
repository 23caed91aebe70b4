"""Draw marks for points, in the colour and shape of their channel, and the legend that explains them."""

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

# Okabe & Ito's palette, which can be distinguished with any kind of colour vision, without its black and grey.
PALETTE = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167), (0, 114, 178))

# In pixels, at a scale of 1: the radius of a mark, the size of the text, and the height of a row of the legend.
RADIUS, FONT_PX, ROW_PX = 5, 14, 20
# Marks that would touch each other shrink to this share, but not below this radius, at which shapes are still legible.
SMALLEST_SHARE, SMALLEST_PX = 0.5, 4
# Neighbouring channels differ in shape too. As the numbers of colours and shapes share no divisor, every combination
# occurs before the first is repeated, then with white edges. The corners of outlines, in radii; a ring has none.
OUTLINES: tuple[tuple[tuple[float, float], ...] | None, ...] = (
    None,
    ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
    ((0, -1.2), (1.1, 0.8), (-1.1, 0.8)),
    ((0, 1.2), (1.1, -0.8), (-1.1, -0.8)),
)
# The ends of the strokes of crosses, in radii: upright, slanting, three strokes, three half strokes up and down.
CROSSES: tuple[tuple[tuple[float, float, float, float], ...], ...] = (
    ((-1, 0, 1, 0), (0, -1, 0, 1)),
    ((-0.8, -0.8, 0.8, 0.8), (-0.8, 0.8, 0.8, -0.8)),
    ((0, -1, 0, 1), (-0.9, -0.5, 0.9, 0.5), (-0.9, 0.5, 0.9, -0.5)),
    ((0, 0, 0, -1.1), (0, 0, 1, 0.7), (0, 0, -1, 0.7)),
    ((0, 0, 0, 1.1), (0, 0, 1, -0.7), (0, 0, -1, -0.7)),
)
# The line through the mark of an occluded point reaches beyond every outline, in radii.
STRIKE = 1.6


def colour_of(channel: int) -> tuple[int, int, int]:
    """Return the colour of a channel."""
    return PALETTE[channel % len(PALETTE)]


def _edge_of(channel: int) -> tuple[int, int, int]:
    is_white = channel // (len(PALETTE) * len(OUTLINES)) % 2
    return (255, 255, 255) if is_white else (0, 0, 0)


@cache
def load_font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Load DejaVu Sans, which comes with Matplotlib and has far more characters than Pillow's own font."""
    matplotlib = find_spec("matplotlib")
    folder = Path(matplotlib.origin or "").parent if matplotlib else Path()
    path = folder / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(path, size_px) if path.is_file() else ImageFont.load_default(size_px)


def fit_radius(points: NDArray[np.floating], scale: float) -> float:
    """Return the radius of marks at points (N, 2), reduced if half of the marks would touch another."""
    if len(points) < 2:
        return RADIUS * scale
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1) + np.diag(np.full(len(points), np.inf))
    half = float(np.median(distances.min(axis=1))) / 2
    return float(np.clip(half, max(SMALLEST_SHARE * RADIUS * scale, SMALLEST_PX), RADIUS * scale))


class Pen(NamedTuple):
    """Draws marks on an image.

    Attributes:
        draw: Pillow's drawing interface of the image.
        radius: radius of the marks in pixels.
        width: width of their lines in pixels; black edges are as wide on each side.
    """

    draw: ImageDraw.ImageDraw
    radius: float
    width: int

    def outline(self, x: float, y: float, channel: int) -> None:
        """Draw a ring, a square, a diamond or a triangle."""
        corners = OUTLINES[channel % len(OUTLINES)]
        for colour, radius, width in (
            (_edge_of(channel), self.radius + self.width, 4 * self.width),
            (colour_of(channel), self.radius, 2 * self.width),
        ):
            if corners is None:
                self.draw.ellipse([x - radius, y - radius, x + radius, y + radius], outline=colour, width=width)
            else:
                path = [(x + self.radius * dx, y + self.radius * dy) for dx, dy in (*corners, *corners[:2])]
                self.draw.line(path, fill=colour, width=width, joint="curve")

    def cross(self, x: float, y: float, channel: int) -> None:
        """Draw a cross."""
        self._draw_strokes(x, y, channel, CROSSES[channel % len(CROSSES)])

    def strike(self, x: float, y: float, channel: int) -> None:
        """Strike a mark through."""
        self._draw_strokes(x, y, channel, [(-STRIKE, STRIKE, STRIKE, -STRIKE)])

    def surround(self, points: NDArray[np.floating], number: int) -> None:
        """Draw the convex hull of an object's points (N, 2), in the colour of its number; nothing for a single one."""
        corners = list(map(tuple, convex_hull(points.astype(float)).tolist()))
        if len(corners) < 2:
            return
        for colour, width in (((0, 0, 0), 4 * self.width), (colour_of(number), 2 * self.width)):
            self.draw.line([*corners, *corners[:2]], fill=colour, width=width, joint="curve")

    def _draw_strokes(
        self, x: float, y: float, channel: int, strokes: Sequence[tuple[float, float, float, float]]
    ) -> None:
        for colour, width in ((_edge_of(channel), 4 * self.width), (colour_of(channel), 2 * self.width)):
            for start_x, start_y, end_x, end_y in strokes:
                ends = [x + self.radius * start_x, y + self.radius * start_y]
                ends += [x + self.radius * end_x, y + self.radius * end_y]
                self.draw.line(ends, fill=colour, width=width)


def convex_hull(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the corners (M, 2) of the convex hull of points (N, 2), in order, after Andrew 1979.

    >>> convex_hull(np.array([[0.0, 0], [2, 0], [1, 1], [0, 2], [2, 2]])).tolist()
    [[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0]]
    """
    ordered = np.unique(points, axis=0)
    if len(ordered) < 3:
        return ordered
    chains: list[NDArray[np.float64]] = []
    for one_way in (ordered, ordered[::-1]):
        chain: list[NDArray[np.float64]] = []
        for point in one_way:
            while len(chain) > 1:
                (ax, ay), (bx, by) = chain[-1] - chain[-2], point - chain[-1]
                if ax * by - ay * bx > 0:
                    break
                chain.pop()
            chain.append(point)
        chains += chain[:-1]
    return np.array(chains)


def draw_legend(
    headings: Sequence[str], names: Sequence[str], width: int, scale: float, *, outlines: bool, crosses: bool
) -> Image.Image:
    """Draw the meaning of the marks, and the marks of all channels with their names.

    Args:
        headings: headings that say what is shown; each stays in one row.
        names: names of the channels.
        width: width of the legend in pixels.
        scale: scale of marks and text.
        outlines: whether channels are marked by outlines.
        crosses: whether channels are marked by crosses.
    """
    font = load_font(round(FONT_PX * scale))
    row_px, gap = round(ROW_PX * scale), round(6 * scale)
    mark_px = round((2 * RADIUS + 6) * scale)
    marks = [mark_px * (outlines + crosses)] * len(names)
    places: list[tuple[int, int]] = []
    x, row = gap, 0
    for text, mark_width in zip((*headings, *names), ([0] * len(headings) + marks), strict=True):
        length = int(font.getlength(text)) + mark_width + 2 * gap
        if x + length > width and x > gap:
            x, row = gap, row + 1
        places.append((x, row))
        x += length
    legend = Image.new("RGB", (width, row_px * (row + 1) + gap))
    pen = Pen(ImageDraw.Draw(legend), RADIUS * scale, max(1, round(scale)))
    for number, ((x, row), text) in enumerate(zip(places, (*headings, *names), strict=True)):
        top, channel = gap // 2 + row * row_px, number - len(headings)
        centre = top + row_px / 2
        if channel >= 0:
            for draws, mark in ((outlines, pen.outline), (crosses, pen.cross)):
                if draws:
                    mark(x + mark_px / 2, centre, channel)
                    x += mark_px
        pen.draw.text((x, centre), text, fill="white", font=font, anchor="lm")
    return legend
