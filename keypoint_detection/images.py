"""Read images of every kind as upright arrays; needs only NumPy and Pillow."""

import hashlib
import io
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from keypoint_detection.documents import refuse_special_file
from keypoint_detection.types import DataError

ResizeMode = Literal["letterbox", "stretch"]
T = TypeVar("T")

# The suffixes of images, in lower case. Pillow's own list also has formats that it only recognises, such as .h5, .mpg
# and .pdf; HEIC needs a plug-in, but is an image format nonetheless.
IMAGE_KINDS = (
    "apng avif avifs bmp bw dds dib dng gif heic heif icb ico j2c j2k jfif jp2 jpc jpe jpeg jpf jpg jpx mpo pbm pcx "
    "pfm pgm png pnm ppm psd qoi ras rgb rgba sgi tga tif tiff vda vst webp"
)
IMAGE_SUFFIXES = frozenset(f".{kind}" for kind in IMAGE_KINDS.split())

# A mid grey, so that the bars of a letterbox are not a strong edge after normalisation.
LETTERBOX_GREY = 114

# Pillow reads 16-bit greyscale as one of these; dividing by 65535 / 255 scales the values to 8 bits.
MODES_16_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")
GREY_LEVELS_16_PER_8_BIT = 257


EXIF_ORIENTATION = 0x0112
# The orientations that turn an image on its side, so that height and width swap when it is shown.
EXIF_SIDEWAYS = (5, 6, 7, 8)
# What Pillow raises for files it cannot read: SyntaxError for broken PNG chunks, ValueError for bad headers, and other
# errors in rarer formats.
UNREADABLE = (
    *(OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError, struct.error),
    *(LookupError, TypeError, AttributeError, ArithmeticError, NotImplementedError),
)
# The formats of images. Pillow knows more, some of which are programs: it passes EPS files to Ghostscript.
COMMON_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM")
OTHER_FORMATS = (
    *("TIFF", "WEBP", "JPEG2000", "AVIF", "HEIF", "MPO", "TGA", "PCX", "SGI", "QOI", "DIB", "ICO", "DDS", "PSD", "SUN"),
)


# How long to wait before retrying to read an image, in seconds: a network disk may return, and a file being replaced
# may become complete.
DELAYS_S = (0.5, 1.0, 2.0, 4.0)
DELAYS_OF_DAMAGED_S = DELAYS_S[:1]


class ImageError(OSError):
    """A file cannot be read as an image; the message names it."""


class _UnsupportedError(ValueError):
    """An image is complete, but of a kind that would be misread; the message gives the reason and the fix."""


class ImageSizes(NamedTuple):
    """The size of an image, (height, width) in pixels.

    Attributes:
        shown: upright, according to its EXIF orientation, as `read_pixels` returns it.
        stored: as its pixels are stored in the file.
    """

    shown: tuple[int, int]
    stored: tuple[int, int]


def read_sizes(path: str) -> ImageSizes:
    """Read the size of an image from its header.

    Raises:
        ImageError: the file is missing or not an image; damage after the header is only found by `read_pixels`.
    """
    try:
        with _open(path) as file:
            return _sizes_of(file)
    except UNREADABLE as error:
        raise _unreadable(path, error) from error


def _open(source: str | IO[bytes]) -> Image.Image:
    """Open a file in one of the formats of images."""
    if isinstance(source, str):
        refuse_special_file(Path(source), "an image")
    try:
        return Image.open(source, formats=COMMON_FORMATS)
    except UnidentifiedImageError:
        Image.init()
        return Image.open(source, formats=[one for one in OTHER_FORMATS if one in Image.OPEN])


def _sizes_of(file: Image.Image) -> ImageSizes:
    """Return the sizes of a file that has just been opened; drafting would change them."""
    width, height = file.size
    is_sideways = _orientation_of(file) in EXIF_SIDEWAYS
    return ImageSizes((width, height) if is_sideways else (height, width), (height, width))


def _orientation_of(image: Image.Image) -> int:
    orientation: int = image.getexif().get(EXIF_ORIENTATION, 1)
    return orientation


def _unreadable(path: str, error: BaseException) -> ImageError:
    if isinstance(error, FileNotFoundError):
        return ImageError(f"{path}: no such file.")
    if isinstance(error, Image.DecompressionBombError):
        return ImageError(
            f"{path}: larger than Pillow can read ({str(error).split(',')[0]}). Save it at a smaller size."
        )
    if isinstance(error, DataError):
        return ImageError(str(error))
    if isinstance(error, _UnsupportedError):
        return ImageError(f"{path}: {error}")
    if path.lower().endswith((".heic", ".heif")):
        return ImageError(f"{path}: HEIC images cannot be read; convert them to JPEG or PNG.")
    reason = "it is not an image" if isinstance(error, UnidentifiedImageError) else str(error).rstrip(".")
    return ImageError(f"{path}: cannot be read as an image ({reason}). Is the file complete?")


def read_patiently(read: Callable[[], T]) -> T:
    """Read an image; if that fails, retry for some seconds, longer for errors of the disk than for those of the file.

    Args:
        read: function that reads it without drawing random numbers.

    Raises:
        ImageError: the file still cannot be read.
    """
    n_tried = 0
    while True:
        try:
            return read()
        except ImageError as error:
            is_fault_of_disk = isinstance(error.__cause__, OSError) and error.__cause__.errno is not None
            delays = DELAYS_S if is_fault_of_disk else DELAYS_OF_DAMAGED_S
            if n_tried >= len(delays):
                raise
            time.sleep(delays[n_tried])
            n_tried += 1


class StoredImage(NamedTuple):
    """An image as its pixels are stored in the file, possibly scaled down.

    Attributes:
        pixels: (h, w, 3) uint8 RGB.
        shown_to_pixels: (3, 3) the affine map from the image as shown, upright and at full size, to `pixels`.
        size: (height, width) of the image as shown.
    """

    pixels: NDArray[np.uint8]
    shown_to_pixels: NDArray[np.float64]
    size: tuple[int, int]


def read_stored(path: str, scale: Callable[[tuple[int, int]], float]) -> StoredImage:
    """Read an image of any mode as it is stored, and a JPEG only as large as needed, which is much faster.

    Args:
        path: the file.
        scale: given (height, width) of the image as shown, returns the scale needed; 1 or more means full size.

    Raises:
        ImageError: the file is missing or not a readable image.
    """
    try:
        with _open(path) as file:
            _refuse_ambiguous(file)
            sizes, orientation = _sizes_of(file), _orientation_of(file)
            height, width = sizes.stored
            factor = min(1.0, scale(sizes.shown))
            drafted = file.draft("RGB", (max(1, int(width * factor)), max(1, int(height * factor))))
            # A drafted JPEG is smaller by exactly this factor; any remainder is in its last row and column.
            shrinking = width / drafted[1][2] if drafted else 1.0
            pixels = np.array(_convert(file))
    except UNREADABLE as error:
        raise _unreadable(path, error) from error
    to_pixels = np.diag([1 / shrinking, 1 / shrinking, 1.0])
    return StoredImage(pixels, to_pixels @ shown_to_stored(orientation, sizes.stored), sizes.shown)


def shown_to_stored(orientation: int, stored_size: tuple[int, int]) -> NDArray[np.float64]:
    """Return the affine map from an image as shown to the pixels in its file, (3, 3).

    Args:
        orientation: the EXIF value; anything outside 1 to 8 counts as 1.
        stored_size: (height, width) of the image as stored in the file.

    >>> shown_to_stored(6, (10, 20)) @ [0, 0, 1]  # on its side: the first pixel shown is the last of the first column
    array([ 0., 10.,  1.])
    """
    h, w = stored_size
    u, v = {
        2: ([-1, 0, w], [0, 1, 0]),
        3: ([-1, 0, w], [0, -1, h]),
        4: ([1, 0, 0], [0, -1, h]),
        5: ([0, 1, 0], [1, 0, 0]),
        6: ([0, 1, 0], [-1, 0, h]),
        7: ([0, -1, w], [-1, 0, h]),
        8: ([0, -1, w], [1, 0, 0]),
    }.get(orientation, ([1, 0, 0], [0, 1, 0]))
    return np.array([u, v, [0, 0, 1]], dtype=np.float64)


def read_pixels(path: str) -> NDArray[np.uint8]:
    """Read an image of any mode as (H, W, 3) uint8 RGB, upright according to its EXIF orientation.

    Sixteen-bit greyscale is scaled to 8 bits; an alpha channel is dropped.

    Raises:
        ImageError: the file is missing or not a readable image, or it has floating-point values or several pages.
    """
    try:
        with _open(path) as file:
            return to_rgb(file)
    except UNREADABLE as error:
        raise _unreadable(path, error) from error


def to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Convert an image of any mode to (H, W, 3) uint8 RGB, upright; see `read_pixels`."""
    _refuse_ambiguous(image)
    return np.array(_convert(image if _orientation_of(image) == 1 else ImageOps.exif_transpose(image)))


def _refuse_ambiguous(image: Image.Image) -> None:
    """Refuse an image that could be interpreted in several ways, most of them wrong."""
    if image.mode == "F":
        raise _UnsupportedError(
            "the values are floating-point numbers, whose range is not known; save them as 8-bit or 16-bit integers."
        )
    n_pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
    if n_pages > 1:
        raise _UnsupportedError(f"the file has {n_pages} pages; save each as an image.")


def _convert(image: Image.Image) -> Image.Image:
    if image.mode in MODES_16_BIT:
        image = Image.fromarray((np.asarray(image) // GREY_LEVELS_16_PER_8_BIT).clip(0, 255).astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")


class ImageScan(NamedTuple):
    """The result of reading a whole image file.

    Attributes:
        sizes: the sizes of the image.
        digest: a hash of the file's bytes; equal for copies.
        thumbnail: (side, side) uint8, the image in grey levels, upright and squeezed into a square.
    """

    sizes: ImageSizes
    digest: bytes
    thumbnail: NDArray[np.uint8]


def scan_image(path: str, side: int) -> ImageScan:
    """Read all of an image to check that it is readable, at the cost of a small one.

    JPEG files are decoded at an eighth of their size if that is enough for the thumbnail. All of their data are still
    read, so truncated files are found just as `read_pixels` finds them.

    Raises:
        ImageError: the file is missing or not a readable image.
    """
    try:
        refuse_special_file(Path(path), "an image")
        with open(path, "rb") as stream:
            content = stream.read()
        with _open(io.BytesIO(content)) as file:
            _refuse_ambiguous(file)
            sizes = _sizes_of(file)
            file.draft("L", (side, side))
            is_plain = file.mode in ("L", "RGB")
            upright = ImageOps.exif_transpose(file) if is_plain else Image.fromarray(to_rgb(file))
            thumbnail = upright.convert("L").resize((side, side), Image.Resampling.BOX)
    except UNREADABLE as error:
        raise _unreadable(path, error) from error
    return ImageScan(sizes, hashlib.blake2b(content, digest_size=16).digest(), np.asarray(thumbnail))


def fit_size(source: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """Return the size of an image in a letterbox: the largest of its aspect ratio, to the nearest pixel.

    This is integer arithmetic, which an exported detector reproduces exactly.

    Args:
        source: (height, width) of the image.
        target: (height, width) of the letterbox.

    >>> fit_size((480, 640), (256, 256)), fit_size((10, 1000), (256, 256))
    ((192, 256), (3, 256))
    """
    (height, width), (rows, columns) = source, target
    inner = (
        min(rows, (2 * height * columns + width) // (2 * width)),
        min(columns, (2 * width * rows + height) // (2 * height)),
    )
    return max(1, inner[0]), max(1, inner[1])
