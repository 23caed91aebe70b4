"""The surfaces of box scenes close up: noise, grounds, cardboard, and what is printed on it."""

from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from keypoint_detection.boxes.scene import Face

Floats = npt.NDArray[np.floating[Any]]  # single precision for large arrays

TILE_M = 1.1  # side of a noise tile, which repeats beyond it: seldom twice in an image
PLANK_M = (0.09, 0.19)
FLOOR_TILE_M = (0.22, 0.4)
SEAM_M = 0.003  # half the width
RIM_M = 0.004  # the thickness of the cardboard
RIM_SHADE = {"wall": -0.22, "flap": 0.3, "carton": 0.25}  # worn edges and cut cardboard are paler, folded edges darker
DECAL_SIZE = (48, 64)  # texels: about one per pixel when a wall fills an image of 160 x 224
DECAL_BOX = (0.52, 0.32, 0.92, 0.84)  # left, bottom, right and top edge on a wall, as shares of its size
WOODS = [[0.34, 0.2, 0.1], [0.2, 0.1, 0.05], [0.5, 0.36, 0.22], [0.27, 0.22, 0.18]]
PLAINS = [[0.33, 0.32, 0.3], [0.1, 0.13, 0.24], [0.26, 0.07, 0.06], [0.12, 0.2, 0.13], [0.4, 0.36, 0.3]]
INKS = [(70, 38, 22), (40, 40, 45), (150, 30, 28), (30, 60, 120)]


class Noises(NamedTuple):
    """Two (n, n) noise tiles of mean 0 and standard deviation 1 that wrap around without a seam."""

    cloudy: Floats
    streaks: Floats


class Ground(NamedTuple):
    """A kind of ground: its mean colour (3,), the pattern's unit (metres), direction (radians) and contrast."""

    kind: Literal["wood", "tiles", "plain"]
    colour: Floats
    unit: float
    angle: float
    contrast: float

    def shade(self, x: Floats, y: Floats, pixel: Floats, noises: Noises) -> Floats:
        """Return (N,) factors on the mean colour at the positions x, y of pixels of this size, all in metres."""
        cos, sin = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        a, b = cos * x + sin * y, cos * y - sin * x
        if self.kind == "plain":
            return np.asarray(1 + self.contrast * 0.17 * look_up(noises.cloudy, a, b))
        seam = cover(b - np.rint(b / self.unit) * self.unit, SEAM_M, pixel)
        if self.kind == "wood":
            # Each plank starts elsewhere in the grain.
            pattern = 0.13 * look_up(noises.streaks, a + 0.37 * np.floor(b / self.unit), b)
        else:
            pattern = 0.1 * look_up(noises.cloudy, a, b)
            seam = np.maximum(seam, cover(a - np.rint(a / self.unit) * self.unit, SEAM_M, pixel))
        return np.asarray((1 + self.contrast * pattern) * (1 - 0.5 * seam))


def sample_ground(rng: np.random.Generator) -> Ground:
    """Draw a ground: planks of wood, tiles, or something plain such as concrete or carpet."""
    kinds: tuple[Literal["wood", "tiles", "plain"], ...] = ("wood", "tiles", "plain")
    kind = kinds[rng.choice(3, p=[0.35, 0.15, 0.5])]
    colour = rng.choice(np.array({"wood": WOODS, "tiles": PLAINS[:1], "plain": PLAINS}[kind]))
    colour = (colour * rng.uniform(0.5, 1.35) * rng.uniform(0.93, 1.07, 3)).astype(np.float32)
    unit = rng.uniform(*(PLANK_M if kind == "wood" else FLOOR_TILE_M))
    return Ground(kind, colour, unit, rng.uniform(0, np.pi), rng.uniform(0.5, 1.2))


def sample_noises(rng: np.random.Generator, size: int) -> Noises:
    """Draw noise tiles of size x size texels, a power of two, by filtering white noise in the Fourier domain."""
    spectrum = np.fft.rfft2(rng.standard_normal((size, size), dtype=np.float32))
    # Clouds fall off nearly like natural images, about 1/f; the grain of wood is stretched 12 times along x.
    tiles = [np.fft.irfft2(spectrum * spectral_gain(size, *shape), s=(size, size)) for shape in ((1, 0.9), (12, 0.8))]
    return Noises(*(np.asarray(tile / tile.std(), np.float32) for tile in tiles))


@lru_cache(maxsize=4)
def spectral_gain(size: int, stretch: float, slope: float) -> Floats:
    """Return the (size, size // 2 + 1) gain of noise that falls off with this slope and is stretched along x."""
    gain = np.hypot(np.fft.fftfreq(size, 1 / size)[:, None], stretch * np.fft.rfftfreq(size, 1 / size))
    gain[0, 0] = np.inf  # no mean
    return np.asarray(gain**-slope, np.float32)


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
        half_width: half the line's width.
        pixel: (N,) sizes of the pixels. All are in the same unit.

    >>> cover(np.array([0.0, 1.0, 2.0]), 1.0, np.array([1.0])).tolist()
    [1.0, 0.5, 0.0]
    """
    half = pixel / 2
    high, low = np.minimum(distance + half, half_width), np.maximum(distance - half, -half_width)
    return np.asarray(np.maximum(high - low, 0) / pixel)


def paint(face: Face, x: Floats, y: Floats, pixel: Floats, noises: Noises, offset: float) -> Floats:
    """Return the (N, 3) reflectance of a face.

    Args:
        face: what to paint.
        x: (N,) positions along the face in metres.
        y: (N,) positions across it.
        pixel: (N,) sizes of the pixels in metres.
        noises: noise tiles.
        offset: a number in [0, 1) that distinguishes the face from others of its kind.
    """
    length, height = np.float32(np.linalg.norm(face.along)), np.float32(np.linalg.norm(face.across))
    shade = 1 + 0.06 * look_up(noises.cloudy, x + np.float32(offset), y)
    if face.part in RIM_SHADE:
        cut = np.float32(face.taper) * length * y / height
        to_rim = np.minimum(np.minimum(x - cut, length - cut - x), height - y)
        shade *= 1 + RIM_SHADE[face.part] * cover(to_rim, RIM_M, pixel)
    if face.part == "flap":
        shade *= 1 - 0.3 * cover(y, RIM_M, pixel)  # the crease of the hinge
    elif face.part == "floor":
        shade *= 1 - 0.5 * cover(x - length / 2, RIM_M / 2, pixel)  # where its two flaps meet
    elif face.part == "sheet":
        spacing = height / (8 + int(offset * 9))
        row = np.floor(y / spacing)
        ragged = 0.62 + 0.28 * np.sin(row * np.float32(2.4 + offset))  # lines of print differ in length
        ink = cover(y - (row + np.float32(0.5)) * spacing, float(spacing) * 0.22, pixel)
        shade *= 1 - 0.6 * ink * ((x > 0.1 * length) & (x < ragged * length))
    return np.asarray(shade[:, None] * face.colour.astype(np.float32))


def paste_decal(surface: Floats, decal: Image.Image, s: Floats, t: Floats, width_px: float) -> None:
    """Lay a label or a print, `width_px` pixels wide, over the part of a (N, 3) wall given by DECAL_BOX.

    The positions s and t go from 0 to 1.
    """
    width = int(np.clip(width_px, 1, decal.width))  # shrunk to pixel size, or fine print would flicker
    height = max(1, width * decal.height // decal.width)
    texels = np.asarray(decal.resize((width, height), Image.Resampling.BOX), np.float32) / 255
    left, low, right, high = (np.float32(edge) for edge in DECAL_BOX)
    column, row = (s - left) / (right - left), (high - t) / (high - low)
    on = (column >= 0) & (column < 1) & (row >= 0) & (row < 1)
    colours = texels[(row[on] * height).astype(np.int32), (column[on] * width).astype(np.int32)]
    surface[on] += colours[:, 3:] * (colours[:, :3] ** 2 - surface[on])  # from display to linear light


def sample_decal(rng: np.random.Generator) -> Image.Image:
    """Draw what may be on a wall of a box, RGBA: a white label with a bar code, or a print with an arrow."""
    height, width = DECAL_SIZE
    is_label = rng.random() < 0.5
    ink = (25, 25, 30, 255) if is_label else (*INKS[rng.integers(len(INKS))], 210)
    decal = Image.new("RGBA", (width, height), (236, 234, 228, 255) if is_label else (*ink[:3], 0))
    pen = ImageDraw.Draw(decal)
    for y in (4, 10, 16):
        pen.rectangle((4 if is_label else 34, y, int(rng.integers(42, 60)), y + 2), fill=ink)
    if is_label:
        for x in range(5, width - 6, 4):
            pen.rectangle((x, 24, x + int(rng.integers(3)), height - 5), fill=ink)
    else:
        pen.polygon([(4, 18), (15, 3), (26, 18)], fill=ink)
        pen.rectangle((11, 18, 19, 34), fill=ink)
        pen.rectangle((4, 38, int(rng.integers(30, 58)), height - 5), fill=ink)
    return decal
