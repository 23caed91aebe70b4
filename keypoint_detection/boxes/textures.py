"""What the surfaces of box scenes look like close up: noise, grounds, cardboard, and what is printed on it."""

from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from keypoint_detection.boxes.scene import Face

__all__ = [
    "Floats",
    "Ground",
    "Noises",
    "Style",
    "cover",
    "look_up",
    "paint_cardboard",
    "paint_carton",
    "paint_sheet",
    "paste_decal",
    "sample_decal",
    "sample_ground",
    "sample_noises",
]

Floats = npt.NDArray[np.floating[Any]]  # single precision wherever there are many
GroundKind = Literal["wood", "concrete", "carpet", "tiles"]

TILE_M = 1.1  # side of a noise tile: it repeats beyond that, seldom twice in a picture
DECAL_SIZE = (96, 128)  # texels; about two a pixel when a wall fills the picture
PLANK_M = (0.09, 0.19)
FLOOR_TILE_M = (0.22, 0.4)
SEAM_M, GROUT_M = 0.002, 0.004  # half widths
RIM_M = 0.004  # the thickness of the cardboard
FLUTE_M = 0.012
TAPE_M, TAPE_TAIL_M = 0.05, 0.07
TAPED_SHARE = 0.4  # of the walls have a strip of tape reaching up from below
DECAL_BOX = (0.52, 0.32, 0.92, 0.84)  # left, low, right and high edge on a wall, as shares of it


class Noises(NamedTuple):
    """Three (n, n) noise tiles of mean 0 and standard deviation 1 that wrap around without a seam."""

    fine: Floats
    cloudy: Floats
    streaks: Floats


class Style(NamedTuple):
    """What tells one face from another of its kind: the side that is seen, and a random number in [0, 1)."""

    is_outside: bool
    offset: float


class Ground(NamedTuple):
    """A kind of ground: its mean colour (3,), the pattern's unit (metres), direction (radians) and contrast."""

    kind: GroundKind
    colour: Floats
    unit: float
    angle: float
    contrast: float
    tints: Floats

    def shade(self, x: Floats, y: Floats, pixel: Floats, noises: Noises) -> Floats:
        """Return (N,) factors on the mean colour at the positions x, y of pixels of this size, all in metres."""
        cos, sin = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        a, b = cos * x + sin * y, cos * y - sin * x
        blotches = look_up(noises.cloudy, a * 0.5, b * 0.5)
        if self.kind == "wood":
            plank = np.floor(b / self.unit)
            tint = self.tints[plank.astype(np.int64) % len(self.tints)]
            grain = look_up(noises.streaks, a + 0.37 * plank, b)  # each plank starts elsewhere in the grain
            seam = cover(b - np.rint(b / self.unit) * self.unit, SEAM_M, pixel)
            shade = 1 + 0.11 * tint + self.contrast * (0.13 * grain + 0.04 * blotches)
            return np.asarray(shade * (1 - 0.6 * seam))
        if self.kind == "tiles":
            row, column = np.floor(a / self.unit), np.floor(b / self.unit)
            tint = self.tints[(row * 7 + column * 3).astype(np.int64) % len(self.tints)]
            grout = np.maximum(*(cover(c - np.rint(c / self.unit) * self.unit, GROUT_M, pixel) for c in (a, b)))
            shade = 1 + 0.06 * tint + self.contrast * 0.1 * look_up(noises.cloudy, a, b)
            return np.asarray(shade * (1 - 0.35 * grout))
        speckle = look_up(noises.fine, a, b)
        if self.kind == "carpet":
            weave = np.sin(a * (2 * np.pi / 0.02)) * np.sin(b * (2 * np.pi / 0.02))  # tufts of 1 cm
            return np.asarray(1 + self.contrast * (0.2 * speckle + 0.05 * weave + 0.05 * blotches))
        return np.asarray(1 + self.contrast * (0.15 * blotches + 0.07 * speckle))


def sample_ground(rng: np.random.Generator) -> Ground:
    """Draw a ground: wood, concrete, carpet or tiles."""
    kinds: tuple[GroundKind, ...] = ("wood", "concrete", "carpet", "tiles")
    kind = kinds[rng.choice(4, p=[0.35, 0.3, 0.2, 0.15])]
    brightness = rng.uniform(0.5, 1.35)
    if kind == "wood":
        woods = [[0.34, 0.2, 0.1], [0.2, 0.1, 0.05], [0.5, 0.36, 0.22], [0.27, 0.22, 0.18]]
        colour, unit = np.array(woods[rng.integers(len(woods))]), rng.uniform(*PLANK_M)
    elif kind == "carpet":
        wools = [[0.1, 0.13, 0.24], [0.26, 0.07, 0.06], [0.12, 0.2, 0.13], [0.17, 0.17, 0.18], [0.4, 0.36, 0.3]]
        colour, unit = np.array(wools[rng.integers(len(wools))]), 1.0
    else:
        colour = np.array([0.33, 0.32, 0.3]) * rng.uniform(0.9, 1.1, 3)
        unit = rng.uniform(*FLOOR_TILE_M)
    tints = rng.uniform(-1, 1, 31).astype(np.float32)  # a prime, so that rows of tiles do not line up
    angle, contrast = rng.uniform(0, np.pi), rng.uniform(0.5, 1.2)
    return Ground(kind, (colour * brightness).astype(np.float32), unit, angle, contrast, tints)


def sample_noises(rng: np.random.Generator, size: int) -> Noises:
    """Draw noise tiles of size x size texels by filtering white noise in the Fourier domain."""
    spectrum = np.fft.rfft2(rng.standard_normal((size, size), dtype=np.float32))
    tiles = []
    for gain in spectral_gains(size):
        tile = np.fft.irfft2(spectrum * gain, s=(size, size)).astype(np.float32)
        tiles.append(tile / tile.std())
    # All three come from one white noise; rolled apart, nobody sees that they are related.
    return Noises(tiles[0], np.roll(tiles[1], size // 3, (0, 1)), np.roll(tiles[2], size // 2, (0, 1)))


@lru_cache(maxsize=4)
def spectral_gains(size: int) -> tuple[Floats, Floats, Floats]:
    """Return the (size, size // 2 + 1) gains of the fine, the cloudy and the streaky noise."""
    y = np.fft.fftfreq(size, 1 / size)[:, None]
    x = np.fft.rfftfreq(size, 1 / size)[None, :]

    def falloff(stretch: float, slope: float) -> Floats:
        gain = np.hypot(y, stretch * x) + 1e-9
        gain **= -slope
        gain[0, 0] = 0  # no mean
        return np.asarray(gain, np.float32)

    # Clouds fall off like natural pictures, about 1/f; the grain of wood is stretched 12 times along x.
    return falloff(1, 0.35), falloff(1, 1.4), falloff(12, 0.8)


def look_up(noise: Floats, x: Floats, y: Floats) -> Floats:
    """Read a noise tile at the positions x, y in metres."""
    scale = np.float32(len(noise) / TILE_M)
    mask = len(noise) - 1  # the size is a power of two
    column, row = (x * scale).astype(np.int32) & mask, (y * scale).astype(np.int32) & mask
    return np.asarray(noise[row, column])


def cover(distance: Floats, half_width: float, pixel: Floats) -> Floats:
    """Return the share of pixels that a straight line covers: a box filter in place of many samples.

    Args:
        distance: (N,) from the line's middle to the pixels' centres.
        half_width: Half the line's width.
        pixel: (N,) sizes of the pixels. All are in the same unit.

    >>> cover(np.array([0.0, 1.0, 2.0]), 1.0, np.array([1.0])).tolist()
    [1.0, 0.5, 0.0]
    """
    half = pixel / 2
    high, low = np.minimum(distance + half, half_width), np.maximum(distance - half, -half_width)
    return np.asarray(np.maximum(high - low, 0) / pixel)


def paint_cardboard(face: Face, x: Floats, y: Floats, pixel: Floats, noises: Noises, style: Style) -> Floats:
    """Return the (N, 3) reflectance of corrugated cardboard.

    Args:
        face: A face of the box.
        x: (N,) positions along the face in metres.
        y: (N,) positions across it.
        pixel: (N,) sizes of the pixels in metres.
        noises: Noise tiles.
        style: Which side is seen, and what varies between faces.
    """
    length, height = np.float32(np.linalg.norm(face.along)), np.float32(np.linalg.norm(face.across))
    shift = np.float32(style.offset if style.is_outside else style.offset + 0.5)
    fibres = look_up(noises.fine, x + shift, y + shift)
    stains = look_up(noises.cloudy, x + shift, y)
    flutes = np.sin(x * np.float32(2 * np.pi / FLUTE_M))  # the waves of the inner sheet show through a little
    shade = 1 + 0.045 * fibres + 0.05 * stains + 0.025 * flutes
    if face.part == "flap":
        cut = np.float32(face.taper) * length * y / height
        to_cut = np.minimum(np.minimum(x - cut, length - cut - x), height - y)
        shade *= 1 + 0.3 * cover(to_cut, RIM_M, pixel)  # the cut edge shows the paler core
        shade *= 1 - 0.3 * cover(y, RIM_M, pixel)  # the crease of the hinge
    elif face.part == "wall":
        shade *= 1 - 0.22 * cover(np.minimum(np.minimum(x, length - x), height - y), RIM_M, pixel)
    from_middle = x - length / 2
    if face.part == "floor":
        shade *= 1 - 0.5 * cover(from_middle, RIM_M / 2, pixel)  # where its two flaps meet
    surface = shade[:, None] * face.colour.astype(np.float32)
    if face.part == "floor" or (face.part == "wall" and style.is_outside and style.offset < TAPED_SHARE):
        end = height if face.part == "floor" else np.float32(TAPE_TAIL_M)
        gloss = (cover(from_middle, TAPE_M / 2, pixel) * cover(y, float(end), pixel))[:, None]
        surface = surface * (1 - 0.25 * gloss) + 0.1 * gloss  # it mirrors some sky
    return np.asarray(surface)


def paint_carton(face: Face, x: Floats, y: Floats, pixel: Floats, noises: Noises, style: Style) -> Floats:
    """Return the (N, 3) reflectance of clutter with flat sides, whose edges are a little worn."""
    to_edges = [x, np.linalg.norm(face.along) - x, y, np.linalg.norm(face.across) - y]
    shade = 1 + 0.05 * look_up(noises.cloudy, x + np.float32(style.offset), y)
    shade *= 1 + 0.25 * cover(np.minimum.reduce(to_edges), RIM_M / 2, pixel)
    return np.asarray(shade[:, None] * face.colour.astype(np.float32))


def paint_sheet(face: Face, x: Floats, y: Floats, pixel: Floats, style: Style) -> Floats:
    """Return the (N, 3) reflectance of a sheet of paper with lines of print."""
    length, height = np.linalg.norm(face.along), np.linalg.norm(face.across)
    spacing = height / (8 + int(style.offset * 9))
    row = np.floor(y / spacing)
    ragged = 0.62 + 0.28 * np.sin(row * np.float32(2.4 + style.offset))  # lines of print differ in length
    ink = cover(y - (row + np.float32(0.5)) * spacing, float(spacing) * 0.22, pixel)
    ink *= (x > 0.1 * length) & (x < ragged * length) & (y > spacing) & (y < height - spacing)
    return np.asarray((1 - 0.6 * ink)[:, None] * face.colour.astype(np.float32))


def paste_decal(surface: Floats, decal: Floats, s: Floats, t: Floats, texels_per_pixel: float) -> Floats:
    """Lay a label or a print over the part of a (N, 3) wall that DECAL_BOX names; s and t go from 0 to 1."""
    left, low, right, high = (np.float32(edge) for edge in DECAL_BOX)
    factor = max(1, round(texels_per_pixel))
    if factor > 1:  # average texels that fall into one pixel, or fine print would flicker
        rows, columns = decal.shape[0] // factor, decal.shape[1] // factor
        decal = decal[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor, 4).mean(axis=(1, 3))
    column, row = (s - left) / (right - left), (high - t) / (high - low)
    on = (column >= 0) & (column < 1) & (row >= 0) & (row < 1)
    height, width = decal.shape[:2]
    texels = decal[(row[on] * height).astype(np.int32), (column[on] * width).astype(np.int32)]
    surface[on] += texels[:, 3:] * (texels[:, :3] - surface[on])
    return surface


def sample_decal(rng: np.random.Generator) -> Floats:
    """Draw what may stand on a wall of a box: (h, w, 4) linear colour and opacity; row 0 is the upper edge."""
    height, width = DECAL_SIZE
    picture = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    pen = ImageDraw.Draw(picture)
    if rng.random() < 0.5:
        draw_label(pen, rng, width, height)
    else:
        draw_print(pen, rng, width, height)
    decal = np.asarray(picture, dtype=np.float32) / 255
    decal[..., :3] **= 2  # display to linear light
    return decal


def draw_label(pen: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, height: int) -> None:
    """Draw a shipping label: white paper with an address, a rule and a bar code."""
    pen.rectangle((0, 0, width, height), fill=(236, 234, 228, 255))
    ink = (25, 25, 30, 255)
    for line in range(4):
        y = 8 + 9 * line
        pen.rectangle((8, y, 8 + int(rng.integers(30, 78)), y + 4), fill=ink)
    pen.rectangle((96, 6, 121, 31), outline=ink, width=3)
    pen.rectangle((0, 46, width, 48), fill=ink)
    x = 10
    while x < width - 12:
        bar = int(rng.integers(1, 5))
        pen.rectangle((x, 56, x + bar - 1, height - 10), fill=ink)
        x += bar + int(rng.integers(2, 5))


def draw_print(pen: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, height: int) -> None:
    """Draw what is printed straight on cardboard: this-way-up arrows, a ring and lines of text."""
    inks = [(70, 38, 22, 215), (40, 40, 45, 200), (150, 30, 28, 205), (30, 60, 120, 200)]
    ink = inks[rng.integers(len(inks))]
    if rng.random() < 0.6:
        for x in (8, 44):
            pen.polygon([(x, 30), (x + 13, 8), (x + 26, 30)], fill=ink)
            pen.rectangle((x + 9, 30, x + 17, 58), fill=ink)
        pen.rectangle((6, 64, 72, 68), fill=ink)
    else:
        pen.ellipse((8, 8, 66, 66), outline=ink, width=8)
        pen.polygon([(24, 52), (37, 20), (50, 52)], fill=ink)
    for line in range(3):
        y = 14 + 18 * line
        pen.rectangle((82, y, 82 + int(rng.integers(18, 42)), y + 8), fill=ink)
    pen.rectangle((6, 76, 6 + int(rng.integers(60, width - 10)), height - 8), fill=ink)
