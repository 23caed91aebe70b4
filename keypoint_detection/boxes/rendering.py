"""Draw a box scene: exact perspective and occlusion, soft shadows, textures, and the flaws of a real camera."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from keypoint_detection.boxes.scene import Ball, Camera, Face, Scene, intersect_ball
from keypoint_detection.boxes.textures import (
    DECAL_BOX,
    Floats,
    Ground,
    Noises,
    paint,
    paste_decal,
    sample_decal,
    sample_ground,
    sample_noises,
)

Array = npt.NDArray[np.float64]
Owners = npt.NDArray[np.int16]
Pixels = npt.NDArray[np.intp]
Bools = npt.NDArray[np.bool_]

SUPERSAMPLING = 2  # samples per pixel in each direction
GROUND = -1  # the owner of a sample that shows no face and no ball
COARSE_NOISE, FINE_NOISE = 256, 512  # texels along a noise tile, for images of up to 256 pixels and for larger ones
FACE_TEXELS, CLUTTER_TEXELS, GROUND_TEXELS = 10, 4, 36  # number of cells along each side that light is computed on
GROUND_HALF_M = 1.3  # half the side of the lit square of ground: nothing beyond it casts a shadow
GROUND_AXES = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
LIGHT_ZOOM = 6  # light maps are interpolated to this multiple before they are read
SKY_RAYS, SUN_RAYS = 15, 5
NO_HIT_M = 1e-3  # a shadow ray must travel this far, or a face would shade itself
SHADOW_REACH = 2.5  # no visible shadow falls further than this multiple of the size of what casts it
SLANT = 1.3  # surfaces are seen at an angle, so a pixel covers this much more of them
FARTHEST_M = 50.0
HAZE_M = 2.6  # beyond about this distance the ground's texture is finer than a pixel and fades to its mean
SHOULDER = 0.7  # linear light above this share of white is compressed
GROUND_BOUNCE = 0.35
DECAL_SHARE = 0.6


class Rendering(NamedTuple):
    """A drawn scene: (height, width, 3) uint8 RGB, and where the box shows, (2 height, 2 width) half-pixel samples."""

    image: npt.NDArray[np.uint8]
    is_box: Bools


class Fragments(NamedTuple):
    """The pixels in which a thing shows: (N,) numbers counted row by row, and the share of each that it fills."""

    pixels: Pixels
    shares: Floats


class Look(NamedTuple):
    """What all surfaces of an image share.

    Attributes:
        noises: noise tiles.
        ground: the ground.
        directions: (R, 3) unit directions towards the light, the sky's first.
        colours: (3, 3) colours of the light from the sky, from the sun, and off other surfaces.
    """

    noises: Noises
    ground: Ground
    directions: Floats
    colours: Floats


def render(scene: Scene, rng: np.random.Generator) -> Rendering:
    """Draw a scene; `rng` chooses materials, light and sensor."""
    owners = rasterise(scene)
    look = sample_look(rng, scene.size)
    height, width = scene.size
    cells = owners.reshape(height, SUPERSAMPLING, width, SUPERSAMPLING)
    samples = np.ascontiguousarray(cells.transpose(1, 3, 0, 2)).reshape(SUPERSAMPLING**2, height * width)
    shown = [int(i) for i in np.flatnonzero(np.bincount(owners.ravel() - GROUND)) + GROUND]
    light_maps = compute_light_maps(scene, [i for i in shown if 0 <= i < len(scene.faces)], look)
    colours = np.zeros((height * width, 3), np.float32)
    for i in shown:
        pixels, shares = find_fragments(samples, i)
        if i == GROUND:
            seen = shade_ground(scene, pixels, look, light_maps[i])
        elif i < len(scene.faces):
            seen = shade_face(scene, scene.faces[i], pixels, look, light_maps[i], rng)
        else:
            seen = shade_ball(scene, scene.balls[i - len(scene.faces)], pixels, look)
        colours[pixels] += shares * seen
    is_box = np.array([face.is_box for face in scene.faces] + [False] * (len(scene.balls) + 1))[owners]  # -1: the last
    return Rendering(expose(colours.reshape(height, width, 3), rng), is_box)


def find_fragments(samples: Owners, owner: int) -> Fragments:
    """Find the pixels in which an owner shows, given the (4, N) owners of the samples of N pixels.

    Colours are computed once per fragment and edges come from the shares: a quarter of the work of colouring samples.
    """
    counts = (samples == owner).sum(axis=0, dtype=np.uint8)
    pixels = np.flatnonzero(counts)
    return Fragments(pixels, counts[pixels, None].astype(np.float32) / len(samples))


def rasterise(scene: Scene) -> Owners:
    """Find what each sample shows: (2 height, 2 width) index of a face, then of a ball, or GROUND."""
    x, y = sample_positions(scene.size)
    camera = scene.camera
    to_ground = camera.plane_map(*GROUND_AXES)
    assert to_ground is not None, "the camera is above the ground"
    nearest = linear(to_ground[2], x, y[:, None])  # inverse depths
    owners = np.full(nearest.shape, GROUND, np.int16)
    for i, face in enumerate(scene.faces):
        window = find_window(camera.project(face.corners)[0], nearest.shape)
        to_face = camera.plane_map(face.origin, face.along, face.across)
        if to_face is None or not nearest[window].size:
            continue
        s, t, inverse_depth = (linear(row, x[window[1]], y[window[0], None]) for row in to_face)
        cut = np.float32(face.taper) * t
        is_nearer = (inverse_depth > nearest[window]) & (t >= 0) & (t <= inverse_depth)
        is_nearer &= (s >= cut) & (s <= inverse_depth - cut)
        nearest[window][is_nearer] = inverse_depth[is_nearer]
        owners[window][is_nearer] = i
    for i, ball in enumerate(scene.balls, start=len(scene.faces)):
        cube = ball.centre + ball.radius * np.array(np.meshgrid(*[[-1, 1]] * 3)).reshape(3, 8).T
        window = find_window(camera.project(cube)[0], nearest.shape)
        depth = intersect_ball(camera, ball, x[window[1]], y[window[0], None])
        is_nearer = depth * nearest[window] < 1  # NaN, a miss, is not
        nearest[window][is_nearer] = 1 / depth[is_nearer]
        owners[window][is_nearer] = i
    return owners


def sample_positions(size: tuple[int, int]) -> tuple[Floats, Floats]:
    """Return the x of the sample columns and the y of the sample rows, in continuous pixels."""
    x, y = ((np.arange(n * SUPERSAMPLING, dtype=np.float32) + 0.5) / SUPERSAMPLING for n in reversed(size))
    return x, y


def linear(row: Array, x: Floats, y: Floats) -> Floats:
    """Evaluate row @ (x, y, 1) in single precision."""
    a, b, c = row.astype(np.float32)
    return np.asarray(a * x + (b * y + c))


def find_window(corners: Array, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Return the rows and columns of samples that contain the convex hull of (N, 2) pixels."""
    low = np.floor(corners.min(axis=0) * SUPERSAMPLING).astype(int)
    high = np.ceil(corners.max(axis=0) * SUPERSAMPLING).astype(int)
    (left, top), (right, bottom) = np.clip(low, 0, shape[::-1]), np.clip(high, 0, shape[::-1])
    return slice(top, bottom), slice(left, right)


def sample_look(rng: np.random.Generator, size: tuple[int, int]) -> Look:
    """Draw textures, and light: a lamp or window of random size and warmth, and what comes from everywhere else."""
    noises = sample_noises(rng, COARSE_NOISE if max(size) <= COARSE_NOISE else FINE_NOISE)
    golden = np.pi * (3 - np.sqrt(5))  # a spiral of this angle spreads directions evenly
    up = (np.arange(SKY_RAYS) + 0.5) / SKY_RAYS
    turns = golden * np.arange(SKY_RAYS) + rng.uniform(0, 2 * np.pi)
    sky = np.stack([np.sqrt(1 - up**2) * np.cos(turns), np.sqrt(1 - up**2) * np.sin(turns), up], axis=1)
    azimuth, elevation = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(32, 75))
    sun = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    suns = sun + rng.uniform(0.04, 0.22) * rng.standard_normal((SUN_RAYS, 3))
    suns /= np.linalg.norm(suns, axis=1, keepdims=True)
    warmth = rng.uniform(-0.12, 0.3)
    sun_colour = np.array([1 + 0.6 * warmth, 1, 1 - warmth]) * rng.uniform(0.5, 1.7)
    sky_colour = np.array([1 - 0.3 * warmth, 1, 1 + 0.3 * warmth]) * rng.uniform(0.45, 0.8)
    bounce_colour = 0.24 * np.array([1.0, 0.72, 0.48]) * (sky_colour + 0.5 * sun_colour)  # off brown cardboard
    colours = np.stack([sky_colour, sun_colour, bounce_colour]).astype(np.float32)
    return Look(noises, sample_ground(rng), np.concatenate([sky, suns]).astype(np.float32), colours)


def compute_light_maps(scene: Scene, shown: list[int], look: Look) -> dict[int, Floats]:
    """Compute the light on the ground and on the visible side of the shown faces, by casting rays.

    Returns:
        (n, n, 3) light, keyed by the number of the face or GROUND.
    """
    ground = Face("sheet", *np.array([[-1, -1, 0], [2, 0, 0], [0, 2, 0], [0, 0, 0]]) * GROUND_HALF_M)
    surfaces = [(GROUND, ground, GROUND_TEXELS)]
    for i in shown:
        surfaces.append((i, scene.faces[i], FACE_TEXELS if scene.faces[i].is_box else CLUTTER_TEXELS))
    points, normals = [], []
    for _, face, count in surfaces:
        cells = (np.arange(count) + 0.5) / count
        points.append((face.origin + cells[:, None, None] * face.across + cells[:, None] * face.along).reshape(-1, 3))
        normals.append(np.broadcast_to(facing_normal(scene.camera, face), (count * count, 3)))
    received = receive_light(scene, np.concatenate(points), np.concatenate(normals), look)
    parts = np.split(received, np.cumsum([count * count for _, _, count in surfaces])[:-1])
    return {i: enlarge(part.reshape(n, n, 3)) for part, (i, _, n) in zip(parts, surfaces, strict=True)}


def enlarge(cells: Floats) -> Floats:
    """Interpolate (n, n, 3) cells linearly, so that reading the nearest one is accurate enough."""
    size = (LIGHT_ZOOM * len(cells),) * 2
    layers = [Image.fromarray(np.ascontiguousarray(layer)) for layer in np.moveaxis(cells, 2, 0)]
    return np.stack([np.asarray(layer.resize(size, Image.Resampling.BILINEAR)) for layer in layers], axis=2)


def facing_normal(camera: Camera, face: Face) -> Array:
    """Return the face's unit normal on the side that the camera sees."""
    return face.normal * np.sign(face.normal @ (camera.position - face.origin))


def receive_light(scene: Scene, points: Array, normals: Array, look: Look) -> Floats:
    """Return the (N, 3) light that reaches (N, 3) points with (N, 3) normals."""
    cosines = np.maximum(look.directions @ normals.T.astype(np.float32), 0)  # (R, N)
    cosines *= ~find_blocked(scene, points.astype(np.float32), look.directions)
    sky = cosines[:SKY_RAYS].sum(axis=0) / look.directions[:SKY_RAYS, 2].sum()
    sun = cosines[SKY_RAYS:].mean(axis=0)
    up = normals[:, 2].astype(np.float32)
    # What hides the sky is seldom black: it reflects some light itself.
    bounced = np.maximum((1 + up) / 2 - sky, 0)
    from_below = (1 - up) / 2 * np.float32(GROUND_BOUNCE)
    return np.asarray(np.stack([sky + from_below, sun, bounced], axis=1) @ look.colours)


def find_blocked(scene: Scene, points: Floats, directions: Floats) -> Bools:
    """Find which rays in (R, 3) directions from (N, 3) points hit a face or a ball: (R, N)."""
    blocked = np.zeros((len(directions), len(points)), np.bool_)
    for face in scene.faces:
        if face.part == "sheet":
            continue  # the shadow of paper is not worth computing
        offset = points - face.origin.astype(np.float32)
        reach = SHADOW_REACH * (np.linalg.norm(face.along) + np.linalg.norm(face.across))
        near = np.flatnonzero(np.einsum("nc,nc->n", offset, offset) < reach**2)
        if not len(near):
            continue
        to_plane = np.linalg.inv(np.stack([face.along, face.across, face.normal], axis=1)).astype(np.float32)
        start, step = to_plane @ offset[near].T, to_plane @ directions.T
        with np.errstate(divide="ignore", invalid="ignore"):  # a parallel ray gives inf or NaN, which hits nothing
            distance = start[2] * (-1 / step[2])[:, None]
            s, t = start[0] + distance * step[0, :, None], start[1] + distance * step[1, :, None]
        is_hit = (distance > NO_HIT_M) & (s > 0) & (s < 1) & (t > 0) & (t < 1)
        blocked[:, near] |= is_hit
    for ball in scene.balls:
        offset = ball.centre.astype(np.float32) - points
        near = np.flatnonzero((offset**2).sum(axis=1) < (2 * SHADOW_REACH * ball.radius) ** 2)
        along = directions @ offset[near].T
        misses_by = (offset[near] ** 2).sum(axis=1) - along**2
        blocked[:, near] |= (along > 0) & (misses_by < np.float32(ball.radius**2))
    return blocked


def find_centres(pixels: Pixels, size: tuple[int, int]) -> tuple[Floats, Floats]:
    """Return the continuous x and y of the centres of (N,) pixels."""
    rows, columns = np.divmod(pixels.astype(np.int32), size[1])
    x, y = (index.astype(np.float32) + np.float32(0.5) for index in (columns, rows))
    return x, y


def locate(to_plane: Array, pixels: Pixels, scene: Scene) -> tuple[Floats, Floats, Floats]:
    """Return s, t and the depth in metres of a plane at (N,) pixels."""
    x, y = find_centres(pixels, scene.size)
    s, t, inverse_depth = (linear(row, x, y) for row in to_plane)
    # The centre of a pixel that a face only partly fills may lie beyond the face's horizon.
    depth = 1 / np.maximum(inverse_depth, np.float32(1 / FARTHEST_M))
    return s * depth, t * depth, depth


def read_light(light_map: Floats, s: Floats, t: Floats) -> Floats:
    """Read the (N, 3) light at positions on a surface; beyond its rim, the light is that of the rim."""
    side = len(light_map)
    column = np.clip(s * np.float32(side), 0, side - 1).astype(np.int32)
    row = np.clip(t * np.float32(side), 0, side - 1).astype(np.int32)
    return np.asarray(light_map[row, column])


def shade_ground(scene: Scene, pixels: Pixels, look: Look, light_map: Floats) -> Floats:
    """Return the (N, 3) linear colours of pixels that show the ground."""
    to_ground = scene.camera.plane_map(*GROUND_AXES)
    assert to_ground is not None, "the camera is above the ground"
    x, y, depth = locate(to_ground, pixels, scene)
    clearness = np.exp(-((depth / np.float32(HAZE_M)) ** 4))
    pixel = depth * np.float32(SLANT / scene.camera.focal_px)
    shade = 1 + (look.ground.shade(x, y, pixel, look.noises) - 1) * clearness
    s, t = (c / np.float32(2 * GROUND_HALF_M) + np.float32(0.5) for c in (x, y))
    return np.asarray(read_light(light_map, s, t) * (np.maximum(shade, 0)[:, None] * look.ground.colour))


def shade_face(
    scene: Scene, face: Face, pixels: Pixels, look: Look, light_map: Floats, rng: np.random.Generator
) -> Floats:
    """Return the (N, 3) linear colours of pixels that show a face; `rng` chooses what is printed on it."""
    to_face = scene.camera.plane_map(face.origin, face.along, face.across)
    assert to_face is not None, "a face seen edge-on owns no samples"
    s, t, depth = locate(to_face, pixels, scene)
    s, t = np.clip(s, 0, 1), np.clip(t, 0, 1)
    length, height = (np.float32(np.linalg.norm(edge)) for edge in (face.along, face.across))
    pixel = depth * np.float32(SLANT / scene.camera.focal_px)
    surface = paint(face, s * length, t * height, pixel, look.noises, rng.random())
    is_outside = face.normal @ facing_normal(scene.camera, face) > 0
    if face.part == "wall" and is_outside and rng.random() < DECAL_SHARE:
        width_px = (DECAL_BOX[2] - DECAL_BOX[0]) * float(length / pixel.mean())
        paste_decal(surface, sample_decal(rng), s, t, width_px)
    return np.asarray(read_light(light_map, s, t) * surface)


def shade_ball(scene: Scene, ball: Ball, pixels: Pixels, look: Look) -> Floats:
    """Return the (N, 3) linear colours of pixels that show a ball."""
    x, y = find_centres(pixels, scene.size)
    depth = intersect_ball(scene.camera, ball, x, y)
    # At the rim a pixel's centre may miss the ball: its outline there is as far away as its centre.
    depth = np.where(np.isnan(depth), (ball.centre - scene.camera.position) @ scene.camera.rotation[2], depth)
    normals = (scene.camera.rays(x, y) * depth).T @ scene.camera.rotation + scene.camera.position - ball.centre
    towards_sun = look.directions[SKY_RAYS:].mean(axis=0)
    facing = np.maximum(normals @ towards_sun / np.linalg.norm(normals, axis=1), 0)
    # The light above the ball is used for all of it: a ball is small compared to the shadows that fall on it.
    above = ball.centre[None] + (0, 0, 1.05 * ball.radius)
    received = receive_light(scene, above, np.array([[0.0, 0, 1]]), look)
    return np.asarray((0.4 + 0.8 * facing[:, None]) * received * ball.colour, np.float32)


def expose(colours: Floats, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Turn (height, width, 3) linear light into an image, as a camera with its flaws does."""
    bright = colours * np.float32(rng.uniform(0.5, 1.0) / np.quantile(colours[::4, ::4], 0.93))
    # A soft shoulder: highlights roll off instead of clipping.
    above = np.maximum(bright - SHOULDER, 0)
    display = np.minimum(bright, SHOULDER) + above * (1 - SHOULDER) / (above + 1 - SHOULDER)
    # A square root is close to the sRGB curve, and fast.
    image = Image.fromarray((255 * np.sqrt(display) + np.float32(0.5)).astype(np.uint8))
    blurred = np.asarray(image.filter(ImageFilter.GaussianBlur(rng.uniform(0.0, 0.6))))
    noise = np.float32(rng.uniform(0.5, 3.5)) * rng.standard_normal((*blurred.shape[:2], 1), dtype=np.float32)
    return np.asarray(np.clip(blurred + noise + 0.5, 0, 255).astype(np.uint8))
