"""Draw a box scene: exact perspective and occlusion, simple light and textures, and the flaws of a real camera."""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from keypoint_detection.boxes.scene import Array, Face, Floats, Scene, aim, sample_colour

Bools = npt.NDArray[np.bool_]

SUPERSAMPLING = 2  # samples per pixel in each direction
GROUND_M = 40.0  # side of the ground, which reaches beyond what any camera sees
GROUND = Face("ground", *np.array([[-0.5, -0.5, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]]) * GROUND_M)
TILE_M, TEXELS = 2.2, 512  # side of a texture; it repeats beyond, seldom twice in an image
SIDE_SHARE = 0.25  # of the sky's light, more or less on faces at right angles to the lamp
PENUMBRA_M = 0.03  # shadows in the box fade over this distance
RIM_M = 0.005  # the thickness of the cardboard
RIM_SHADES = {"wall": 0.8, "floor": 1.0, "flap": 1.3, "carton": 1.25}  # folds are dark, cuts are pale
PRINT_SIZE, PRINTED_SHARE = (96, 128), 0.6  # texels along the height and the length of a wall; share of the walls
INKS = [(70, 38, 22), (40, 40, 45), (150, 30, 28), (30, 60, 120)]
FLOORS = [(150, 115, 80), (115, 82, 55), (180, 153, 120), (148, 145, 140), (82, 92, 124), (130, 68, 62), (90, 115, 92)]


class Rendering(NamedTuple):
    """A drawn scene.

    Attributes:
        image: (height, width, 3) uint8 RGB.
        boxes: (2 height, 2 width) the index of the box that each half-pixel sample shows; -1 for none.
    """

    image: npt.NDArray[np.uint8]
    boxes: npt.NDArray[np.int64]


class Samples(NamedTuple):
    """What half-pixel samples show, (2 height, 2 width): a face's index or -1, the ground, and where on it, 0 to 1."""

    owners: npt.NDArray[np.int16]
    s: Floats
    t: Floats


class Light(NamedTuple):
    """A lamp, far away in a (3,) direction, its (3,) linear colour, and that of the light from everywhere else."""

    direction: Array
    lamp: Floats
    sky: Floats


def render(scene: Scene, rng: np.random.Generator) -> Rendering:
    """Draw a scene; `rng` chooses materials, light and sensor."""
    samples = rasterise(scene)
    owners, s, t = samples.owners.ravel(), samples.s.ravel(), samples.t.ravel()
    light = sample_light(rng)
    colours = np.empty((owners.size, 3), np.float32)
    for i in np.flatnonzero(np.bincount(owners + 1)) - 1:  # those that can be seen
        at = np.flatnonzero(owners == i)
        if i < 0:
            light_on_ground = light.sky + light.lamp * draw_lamplight(scene, light, rng).reshape(-1, 1)[at]
            colours[at] = paint_ground(s[at], t[at], rng) * light_on_ground
        else:
            face = scene.faces[i]
            is_front = bool(face.normal @ (scene.camera.position - face.origin) > 0)
            light_on_face = receive_light(scene, face, is_front, s[at], t[at], light)
            colours[at] = paint_face(face, is_front, s[at], t[at], rng) * light_on_face
    height, width = (n * SUPERSAMPLING for n in scene.size)
    boxes = np.array([face.box for face in [*scene.faces, GROUND]])[owners]  # -1 is the last
    return Rendering(expose(colours.reshape(height, width, 3), rng), boxes.reshape(height, width))


def rasterise(scene: Scene) -> Samples:
    """Find what each sample shows."""
    x, y = ((np.arange(n * SUPERSAMPLING, dtype=np.float32) + 0.5) / SUPERSAMPLING for n in reversed(scene.size))
    nearest = scene.camera.intersect(GROUND, x, y[:, None])  # s/z, t/z, 1/z
    owners = np.full(nearest.shape[1:], -1, np.int16)
    for i, face in enumerate(scene.faces):
        corners = scene.camera.project(face.corners)[0] * SUPERSAMPLING
        left, top = np.clip(np.floor(corners.min(axis=0)), 0, owners.shape[::-1]).astype(int)
        right, bottom = np.clip(np.ceil(corners.max(axis=0)), 0, owners.shape[::-1]).astype(int)
        hit = scene.camera.intersect(face, x[left:right], y[top:bottom, None])
        is_nearer = hit[2] > nearest[2, top:bottom, left:right]
        np.copyto(nearest[:, top:bottom, left:right], hit, where=is_nearer)
        owners[top:bottom, left:right][is_nearer] = i
    s, t, inverse_depth = nearest
    depth = 1 / np.maximum(inverse_depth, np.float32(1 / GROUND_M))  # what is above the horizon is not on the ground
    return Samples(owners, s * depth, t * depth)


def sample_light(rng: np.random.Generator) -> Light:
    """Draw light of random direction, strength and warmth."""
    direction = -aim(rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(35, 75)), 0.0)[2]
    warmth = rng.uniform(-0.12, 0.3)
    lamp = np.array([1 + 0.6 * warmth, 1, 1 - warmth]) * rng.uniform(0.3, 1.5)
    sky = np.array([1 - 0.3 * warmth, 1, 1 + 0.3 * warmth]) * rng.uniform(0.45, 0.8)
    return Light(direction, lamp.astype(np.float32), sky.astype(np.float32))


def receive_light(scene: Scene, face: Face, is_front: bool, s: Floats, t: Floats, light: Light) -> Floats:
    """Return the (N, 3) or (3,) light at (N,) positions on the front or back of a face."""
    normal = face.normal if is_front else -face.normal
    # Two faces of a corner that the lamp does not reach differ in shade, as they do in a room.
    sideways = np.cross(light.direction, (0, 0, 1))
    sky = light.sky * np.float32(0.65 + 0.35 * normal[2] + SIDE_SHARE * (normal @ sideways))
    lamp = light.lamp * np.float32(np.maximum(normal @ light.direction, 0))
    if face.part == "floor" or (face.part == "wall" and not is_front):
        # It is darker in the box, and most so at its bottom. The lamp shines in through the opening.
        box = scene.boxes[face.box]
        corner, ray = box.keypoints[0] - box.centre, light.direction / light.direction[2]
        depth = float(corner[2])
        up = depth * (1 - t if face.part == "wall" else np.ones_like(t))  # from here to the opening
        sky = sky * (0.85 - 0.5 / depth * up)[:, None]
        for axis in box.axes:
            vectors = (face.along, face.across, face.origin - box.centre, ray, corner)
            a, b, c, slope, half = (float(vector @ axis) for vector in vectors)
            leaves_at = abs(a * s + b * t + c + slope * up)
            lamp = lamp * np.clip(0.5 + (half - leaves_at) / PENUMBRA_M, 0, 1)[:, None]
    return sky + lamp


def draw_lamplight(scene: Scene, light: Light, rng: np.random.Generator) -> Floats:
    """Draw the lamp's light on the ground, 0 to 1: what all samples would receive if nothing hid the ground."""
    height, width = scene.size
    image = Image.new("L", (width, height), 255)
    for face in scene.faces:
        on_ground = face.corners - face.corners[:, 2:] * light.direction / light.direction[2]
        corners, depths = scene.camera.project(on_ground)
        if depths.min() > 0:
            ImageDraw.Draw(image).polygon([tuple(corner) for corner in corners], fill=0)
    blurred = image.filter(ImageFilter.GaussianBlur(height * rng.uniform(0.003, 0.015)))
    enlarged = blurred.resize((width * SUPERSAMPLING, height * SUPERSAMPLING), Image.Resampling.BILINEAR)
    return np.asarray(enlarged, np.float32) * float(light.direction[2] / 255)


@lru_cache(maxsize=2)
def make_noise(stretch: int) -> Floats:
    """Make a texture, mean 0 and deviation 1, that falls off as 1/f: clouds or, if stretched, the grain of wood."""
    spectrum = np.fft.rfft2(np.random.default_rng(0).standard_normal((TEXELS, TEXELS)))
    frequencies = np.hypot(np.fft.fftfreq(TEXELS)[:, None], stretch * np.fft.rfftfreq(TEXELS))
    frequencies[0, 0] = np.inf  # no mean
    texture = np.fft.irfft2(spectrum / frequencies)
    return np.asarray(texture[..., None] / texture.std(), np.float32)


def read_texture(texture: npt.NDArray[Any], x: Floats, y: Floats) -> npt.NDArray[Any]:
    """Read a texture, which repeats, at (N,) positions in metres: (N, channels)."""
    columns, rows = ((c * (TEXELS / TILE_M)).astype(np.int32) & (TEXELS - 1) for c in (x, y))
    return texture.reshape(TEXELS**2, -1).take(rows * TEXELS + columns, axis=0)


def paint_face(face: Face, is_front: bool, s: Floats, t: Floats, rng: np.random.Generator) -> Floats:
    """Return the (N, 3) linear reflectance at positions on a face; `rng` chooses what is printed on it."""
    length, height = float(np.linalg.norm(face.along)), float(np.linalg.norm(face.across))
    x, y = s * length, t * height
    shade = 1 + 0.07 * read_texture(make_noise(1), x + float(rng.uniform(0, TILE_M)), y)
    cut = face.taper * length * t
    shade[np.minimum(np.minimum(x - cut, length - cut - x), height - y) < RIM_M] *= RIM_SHADES[face.part]
    if face.part == "flap":
        shade[y < RIM_M] *= 0.7  # the crease of the hinge
    colours = shade * face.colour.astype(np.float32)
    if face.part == "wall" and is_front and rng.random() < PRINTED_SHARE:
        rows, columns = (np.clip(c * n, 0, n - 1).astype(int) for c, n in zip((1 - t, s), PRINT_SIZE, strict=True))
        ink = draw_print(rng)[rows, columns]
        colours += ink[:, 3:] * (ink[:, :3] ** 2 - colours)
    return colours


def draw_print(rng: np.random.Generator) -> Floats:
    """Draw a label with a bar code, or an arrow, to be printed on a wall: (height, width, 4) from 0 to 1, RGBA."""
    left, top = (int(rng.integers(6, n // 2)) for n in reversed(PRINT_SIZE))
    is_label = rng.random() < 0.5
    ink = (25, 25, 30) if is_label else INKS[rng.integers(len(INKS))]
    image = Image.new("RGBA", PRINT_SIZE[::-1], (*ink, 0))
    pen = ImageDraw.Draw(image)
    if is_label:
        pen.rectangle((left - 4, top - 4, left + 52, top + 40), fill=(236, 234, 228))
        bars = [(left + x, top + 18, left + x + int(rng.integers(3)), top + 36) for x in range(0, 48, 4)]
    else:
        pen.polygon([(left + 2, top + 18), (left + 13, top), (left + 24, top + 18)], fill=ink)
        bars = [(left + 9, top + 18, left + 17, top + 34), (left, top + 38, left + 46, top + 42)]
    lines = [(left + 28 * (not is_label), top + y, left + int(rng.integers(32, 48)), top + y + 2) for y in (0, 6, 12)]
    for bar in bars + lines:
        pen.rectangle(bar, fill=ink)
    return np.asarray(image, np.float32) / 255


def paint_ground(s: Floats, t: Floats, rng: np.random.Generator) -> Floats:
    """Return the (N, 3) linear reflectance at positions on the ground; `rng` chooses the floor and the litter on it."""
    # Planks, tiles or something plain.
    n_rows, n_columns, stretch = ((12, 2, 12), (8, 8, 1), (1, 1, 1))[rng.choice(3, p=[0.35, 0.2, 0.45])]
    colour = np.array(FLOORS[rng.integers(len(FLOORS))]) * rng.uniform(0.75, 1.15)
    image = Image.new("RGB", (TEXELS, TEXELS))
    pen = ImageDraw.Draw(image)
    length, width = TEXELS / n_columns, TEXELS / n_rows
    for row in range(n_rows):
        start = -length * rng.random() if stretch > 1 else 0.0
        for left in np.arange(start, TEXELS, length):
            fill, seam = as_ink(colour * rng.uniform(0.92, 1.08)), as_ink(0.7 * colour)
            pen.rectangle((left, row * width, left + length, (row + 1) * width), fill=fill, outline=seam)
    for _ in range(rng.integers(3, 25)):
        fill = as_ink(255 * np.sqrt(sample_colour(rng)))
        x, y, radius = *rng.uniform(0, TEXELS, 2), rng.uniform(2, 25)
        if rng.random() < 0.6:
            pen.regular_polygon((x, y, radius), int(rng.integers(3, 9)), rng.uniform(0, 360), fill=fill)
        else:
            pen.line([(x, y), tuple(rng.normal((x, y), 3 * radius))], fill=fill, width=int(rng.integers(1, 5)))

    angle = rng.uniform(0, 2 * np.pi)
    cos, sin = GROUND_M * float(np.cos(angle)), GROUND_M * float(np.sin(angle))
    x, y = cos * (s - 0.5) + sin * (t - 0.5), cos * (t - 0.5) - sin * (s - 0.5)
    shade = 1 + float(rng.uniform(0.05, 0.18)) * read_texture(make_noise(stretch), x + float(rng.uniform(0, TILE_M)), y)
    return (read_texture(np.asarray(image), x, y) / np.float32(255)) ** 2 * shade


def as_ink(colour: Array) -> tuple[int, ...]:
    """Turn a (3,) colour from 0 to 255 into what Pillow draws with."""
    return tuple(int(value) for value in colour)


def expose(colours: Floats, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Turn samples of linear light, (2 height, 2 width, 3), into an image, as a camera with its flaws does."""
    pixels = (colours[::2, ::2] + colours[1::2, ::2] + colours[::2, 1::2] + colours[1::2, 1::2]) / 4
    bright = pixels * np.float32(rng.uniform(0.5, 1.0) / np.quantile(pixels[::4, ::4], 0.93))
    # The square root is close to the sRGB curve; the hyperbolic tangent rolls highlights off instead of clipping them.
    image = Image.fromarray((255 * np.sqrt(np.tanh(bright))).astype(np.uint8))
    blurred = np.asarray(image.filter(ImageFilter.GaussianBlur(rng.uniform(0.0, 0.6))))
    noise = np.float32(rng.uniform(0.5, 3.5)) * rng.standard_normal((*blurred.shape[:2], 1), dtype=np.float32)
    return np.asarray(np.clip(blurred + noise + 0.5, 0, 255).astype(np.uint8))
